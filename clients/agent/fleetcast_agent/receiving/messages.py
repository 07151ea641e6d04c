"""What the scheduler and the sender say to this machine, and what it says to them, free of protobuf."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

import numpy as np
from fleetcast_wire.geometry import Geometry
from fleetcast_wire.keys import SealKeys
from numpy.typing import NDArray

FIRST_LOOK_BYTES = 1 << 20
"""How much of an image is shown before it is written: its partition table, mostly zeros, which cost next to nothing."""
HEAD_BYTES = 2 << 20
"""What is shown where that is not enough: how its first partition begins, too."""
ChunkMembers = NDArray[np.bool_]
"""Shape (chunk_count,): which chunks of the image are meant."""


# From the scheduler.


@dataclass(frozen=True)
class Waiting:
    """The session has not started."""

    session: str
    image: str
    reason: str
    joined_count: int
    min_clients: int


@dataclass(frozen=True)
class Assignment:
    """Where to receive."""

    session: str
    image: str
    """The pinned image version, `images/{image}@sha256:{hex}`."""
    size_bytes: int
    transmission: str
    sender_address: str
    traceparent: str


class DismissalReason(Enum):
    """Why the machine's part is over."""

    DONE = "done"
    CANCELLED = "cancelled"
    SESSION_FAILED = "session failed"
    REMOVED = "removed"


@dataclass(frozen=True)
class Dismissal:
    """The machine's part is over."""

    reason: DismissalReason
    detail: str


# To the scheduler.


@dataclass(frozen=True)
class HardwareIdentifiers:
    """What tells the machine from others; what is empty is not known, or not said."""

    smbios_uuid: str = ""
    serial_number: str = ""
    mac_addresses: tuple[str, ...] = ()


@dataclass(frozen=True)
class JoinRequest:
    """What the machine wants to take part in, and how."""

    session: str
    """`sessions/{id}`, or empty."""
    image: str
    """`images/{image}` or `images/{image}@sha256:{hex}`, or empty."""
    display_name: str
    no_multicast_reason: str
    """Why it takes no multicast; empty if it does."""
    target_size_bytes: int
    held_image: str
    run: str = ""
    """The run that the image is for, `deployments/{deployment}/runs/{id}`; empty outside of deployments."""
    medium: str = ""
    """`volume` or `disk`: refuse an image that does not belong there; empty takes whatever it is."""
    medium_sector_size_bytes: int = 0
    hardware: HardwareIdentifiers = field(default_factory=HardwareIdentifiers)


@dataclass(frozen=True)
class Totals:
    """Totals since the machine joined the session."""

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


# From the sender.


@dataclass(frozen=True)
class Welcome:
    """What is needed to hear the group; `group` is empty when the machine is to take unicast only."""

    group: str
    port: int
    source_address: str
    keys: SealKeys | None
    geometry: Geometry
    report_interval_seconds: float


@dataclass(frozen=True)
class PassPlanned:
    """A pass is about to begin, or runs."""

    pass_number: int
    chunks: ChunkMembers


@dataclass(frozen=True)
class PassEnded:
    """A pass ended."""

    pass_number: int


@dataclass(frozen=True)
class UnicastOffered:
    """Chunks to fetch by unicast."""

    chunks: ChunkMembers


@dataclass(frozen=True)
class SenderDismissal:
    """The transmission ended, or the sender took the machine out."""

    reason: str


# To the sender.


@dataclass(frozen=True)
class ReceiverLimits:
    """What this machine can do, said at joining."""

    unicast_only: bool
    window_memory_bytes: int
    max_payload_bytes: int
    codecs: tuple[str, ...]
    receive_buffer_bytes: int
    link_bits_per_second: int


@dataclass(frozen=True)
class ReceptionTotals:
    """Reception on one stream."""

    sequence: int
    highest_packet_counter: int
    datagram_count: int
    overflow_datagram_count: int
    backlog_bytes: int
    written_bytes: int
    dropped_window_count: int
    pass_number: int
    rejected_datagram_count: int
