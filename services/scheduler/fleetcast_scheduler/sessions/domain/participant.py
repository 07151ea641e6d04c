"""One machine in one session."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum

from fleetcast_scheduler.images import Medium
from fleetcast_scheduler.machines.domain.machine import Inventory
from fleetcast_scheduler.senders.domain.transmission import UnicastReason

_RATE_WINDOW_SECONDS = 5.0


class ParticipantState(StrEnum):
    """Where a machine is in a session."""

    WAITING = "WAITING"
    RECEIVING = "RECEIVING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    LOST = "LOST"
    DISMISSED = "DISMISSED"

    @property
    def final(self) -> bool:
        """True when nothing more is expected of the machine."""
        return self in _FINAL

    @property
    def present(self) -> bool:
        """True while the machine is connected."""
        return self in _PRESENT


_FINAL = frozenset({ParticipantState.SUCCEEDED, ParticipantState.FAILED, ParticipantState.DISMISSED})
_PRESENT = frozenset({ParticipantState.WAITING, ParticipantState.RECEIVING})


@dataclass(frozen=True, slots=True)
class ReceptionTotals:
    """What a machine received since it joined; the fields are those of the API."""

    size_bytes: int = 0
    written_bytes: int = 0
    held_bytes: int = 0
    multicast_bytes: int = 0
    unicast_bytes: int = 0
    datagram_count: int = 0
    lost_datagram_count: int = 0
    overflow_datagram_count: int = 0
    rejected_datagram_count: int = 0
    recovered_symbol_count: int = 0
    backlog_bytes: int = 0
    dropped_window_count: int = 0
    damaged_chunk_count: int = 0
    elapsed_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Joiner:
    """What a machine says when it joins."""

    machine: str
    """`machines/{id}`."""
    display_name: str = ""
    unicast_only: bool = False
    no_multicast_reason: str = ""
    target_size_bytes: int = -1
    """-1 if the target grows."""
    medium: Medium = Medium.ANY
    medium_sector_size_bytes: int = 0
    hardware: Inventory = field(default_factory=Inventory)
    """What tells it from other machines, as far as it says."""
    address: str = ""
    """Where its stream comes from; empty if not known."""


@dataclass(slots=True, kw_only=True)
class Participant:
    """One machine in one session."""

    session: str
    machine: str
    number: int
    """Order of joining, from 1."""
    state: ParticipantState
    join_time: float
    contact_time: float
    display_name: str = ""
    unicast_only: bool = False
    no_multicast_reason: str = ""
    apart: bool = False
    """An operator has it served by unicast."""
    end_time: float | None = None
    error: str = ""
    totals: ReceptionTotals = field(default_factory=ReceptionTotals)
    run: int = 0
    """The session's run in which it received last; 0 if it never did."""
    revision: int = 0
    """Session revision of its last change."""
    rate_bytes_per_second: float = 0.0
    """Content written lately. Not stored."""
    address: str = ""
    """Where its stream comes from; empty if not known. Not stored."""
    hardware: Inventory = field(default_factory=Inventory)
    """What tells it from other machines, as far as it says. Not stored."""
    unicast_reason: UnicastReason | None = None
    """Why its sender serves it by unicast now; None if it does not. Not stored."""

    @property
    def name(self) -> str:
        """`sessions/{session}/participants/{machine}`."""
        return f"{self.session}/participants/{self.machine.removeprefix('machines/')}"

    @property
    def remaining_seconds(self) -> int:
        """Estimated time to the end; -1 if not known."""
        if self.state.final:
            return 0 if self.state is ParticipantState.SUCCEEDED else -1
        lacking_bytes = self.totals.size_bytes - self.totals.written_bytes
        if not self.totals.size_bytes or self.rate_bytes_per_second < 1:
            return -1
        return math.ceil(max(lacking_bytes, 0) / self.rate_bytes_per_second)

    def receive_totals(self, totals: ReceptionTotals, now: float) -> None:
        """Takes over newer totals and learns the rate from them."""
        elapsed_seconds = now - self.contact_time
        if elapsed_seconds > 0 and self.totals.size_bytes:
            present = max(totals.written_bytes - self.totals.written_bytes, 0) / elapsed_seconds
            weight = 1 - math.exp(-elapsed_seconds / _RATE_WINDOW_SECONDS)
            self.rate_bytes_per_second += (present - self.rate_bytes_per_second) * weight
        self.totals = totals
        self.contact_time = now
