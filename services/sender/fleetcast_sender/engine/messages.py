"""What receivers say and what they are told, free of protobuf: inputs and outputs of the engine."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from fleetcast_wire.geometry import Geometry
from numpy.typing import NDArray

ChunkMembers = NDArray[np.bool_]
"""Shape (chunk_count,): which chunks of the image are meant."""


class UnicastReason(StrEnum):
    """Why a receiver gets chunks by unicast."""

    NO_MULTICAST = "no-multicast"
    """It said at joining that it takes no multicast."""
    OPERATOR = "operator"
    """An operator wants it so."""
    LIMITS = "limits"
    """It has too little memory for a window, cannot take datagrams so large, or does not know the parity codec."""
    DEAF = "deaf"
    """It hears nothing of the group: a switch, a firewall or its radio drops multicast."""
    SLOW = "slow"
    """It is slower than the others, and the policy is to serve slow receivers by unicast."""
    NO_ANSWER = "no-answer"
    """It lives, and has not said for long what it holds."""
    NO_PROGRESS = "no-progress"
    """Several passes in a row brought it nothing."""
    ALONE = "alone"
    """It takes multicast, but no other receiver lacks anything now."""
    SMALL_REST = "small-rest"
    """It takes multicast, but what all receivers lack now is so little that a pass would take longer."""

    @property
    def passes(self) -> bool:
        """Whether the receiver returns to the group on the same stream; else it may do so with another stream."""
        return self in (UnicastReason.NO_ANSWER, UnicastReason.NO_PROGRESS)


@dataclass(frozen=True)
class Join:
    """A machine wants to take part."""

    machine: str
    """Resource name, `machines/{id}`."""
    held: ChunkMembers
    unicast_only: bool = False
    unicast_reason: UnicastReason = UnicastReason.NO_MULTICAST
    """Why `unicast_only`: it may be the machine itself that wants it, or the sender."""
    window_memory_bytes: int = 1 << 40
    """What it can spend on windows of symbols."""
    max_payload_bytes: int = 65507
    """Largest UDP payload its path takes without fragmentation."""
    codecs: frozenset[str] = frozenset()
    receive_buffer_bytes: int = 0
    link_bits_per_second: int = 0
    """Of its network interface; 0 if not known."""


@dataclass(frozen=True)
class Reception:
    """Totals of one receiver since it joined."""

    highest_packet_counter: int
    """-1 before the first datagram."""
    datagram_count: int
    overflow_datagram_count: int = 0
    backlog_bytes: int = 0
    written_bytes: int = 0
    dropped_window_count: int = 0


@dataclass(frozen=True)
class Deficits:
    """What one window lacks at one receiver after one round, run-length coded."""

    pass_number: int
    window: int
    round: int
    run_values: Sequence[int]
    run_lengths: Sequence[int]


@dataclass(frozen=True)
class Holding:
    """Everything a receiver holds, after the end of a pass or after an offer was fetched."""

    pass_number: int
    held: ChunkMembers


@dataclass(frozen=True)
class Welcomed:
    """The receiver may take part: by multicast in this geometry, or by unicast alone."""

    geometry: Geometry
    unicast_only: bool
    report_interval_seconds: float


@dataclass(frozen=True)
class Planned:
    """A pass runs or is about to begin."""

    pass_number: int
    chunks: ChunkMembers


@dataclass(frozen=True)
class PassEnded:
    """A pass ended: the receiver is to answer with its holding."""

    pass_number: int


@dataclass(frozen=True)
class Offered:
    """Chunks to fetch by unicast."""

    chunks: ChunkMembers


@dataclass(frozen=True)
class Dismissed:
    """The receiver is out."""

    reason: str
    forgotten: bool = False
    """True when it may come back at once: it was only silent."""


Told = Welcomed | Planned | PassEnded | Offered | Dismissed
"""What the engine has to tell one receiver."""
