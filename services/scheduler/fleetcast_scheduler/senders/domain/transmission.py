"""What one sender does for one session."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from fleetcast_scheduler.senders.domain.policies import RatePolicy
from fleetcast_scheduler.senders.domain.sender import Lease


class TransmissionState(StrEnum):
    """Where a transmission is, as far as the scheduler knows."""

    STARTING = "STARTING"
    """Decided; the sender has not confirmed."""
    RUNNING = "RUNNING"
    """The sender confirmed the start."""
    STOPPING = "STOPPING"
    """No longer wanted; the sender has not confirmed the stop."""
    ENDED = "ENDED"
    """The sender does not run it. Its group and port rest until `release_time`."""

    @property
    def live(self) -> bool:
        """True while it is wanted."""
        return self in (TransmissionState.STARTING, TransmissionState.RUNNING)


class ReportState(StrEnum):
    """What the sender says that a transmission does."""

    SENDING = "SENDING"
    IDLE = "IDLE"
    STOPPED = "STOPPED"
    FAILED = "FAILED"


class UnicastReason(StrEnum):
    """Why a machine gets chunks by unicast, as its sender says; the names are those of the API."""

    NO_MULTICAST = "NO_MULTICAST"
    OPERATOR = "OPERATOR"
    LIMITS = "LIMITS"
    DEAF = "DEAF"
    SLOW = "SLOW"
    NO_ANSWER = "NO_ANSWER"
    NO_PROGRESS = "NO_PROGRESS"
    ALONE = "ALONE"
    SMALL_REST = "SMALL_REST"


@dataclass(frozen=True, slots=True)
class TransmissionTotals:
    """What a transmission sent; the fields are those of the API."""

    pass_: int = 0
    sent_source_bytes: int = 0
    sent_repair_bytes: int = 0
    sent_unicast_bytes: int = 0
    rate_bits_per_second: int = 0
    sent_chunk_count: int = 0
    receiver_count: int = 0


@dataclass(frozen=True, slots=True)
class TransmissionReport:
    """What a sender says about a transmission."""

    transmission: str
    state: ReportState
    totals: TransmissionTotals
    error: str = ""
    unicast: Mapping[str, UnicastReason] = field(default_factory=dict)
    """Why machines get chunks by unicast now, by machine."""


@dataclass(slots=True, kw_only=True)
class Transmission:
    """What one sender does for one session. An id is never started twice, so no key or packet counter repeats."""

    name: str
    """`sessions/{session}/transmissions/{id}`."""
    session: str
    sender: str
    group: str
    port: int
    create_time: float
    state: TransmissionState = TransmissionState.STARTING
    release_time: float | None = None
    """When another transmission may have the group and port; None while they are in use."""
    totals: TransmissionTotals = field(default_factory=TransmissionTotals)
    site: str = ""
    """Where another sender must stand that takes its session over; empty for anywhere. Not stored."""
    rate: RatePolicy | None = None
    """What the sender was told last; None if not known. Not stored."""
    admissions: dict[str, None] = field(default_factory=dict)
    """Machines that the sender is to be told of. Not stored."""
    dismissals: dict[str, None] = field(default_factory=dict)
    """Machines that the sender is to take out. Not stored."""
    moves: dict[str, None] = field(default_factory=dict)
    """Machines that the sender is to serve by unicast. Not stored."""
    unreachable: dict[str, float] = field(default_factory=dict)
    """When machines last said that they cannot reach its sender. Not stored."""
    addresses: dict[str, str] = field(default_factory=dict)
    """Where the machines are that were told of it, by machine. Not stored."""
    unicast: Mapping[str, UnicastReason] = field(default_factory=dict)
    """Why machines get chunks by unicast now, by machine. Not stored."""
    heard: bool = False
    """A machine received datagrams of a group from its sender. Not stored."""
    admitting: bool = False
    """The sender has an admission to answer. Not stored."""

    @property
    def lease(self) -> Lease:
        """Its group and port."""
        return self.group, self.port
