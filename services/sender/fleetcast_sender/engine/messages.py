"""What receivers say and what they are told, free of protobuf: inputs and outputs of the engine."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from fleetcast_wire.geometry import Geometry
from numpy.typing import NDArray

ChunkMembers = NDArray[np.bool_]
"""Shape (chunk_count,): which chunks of the image are meant."""


@dataclass(frozen=True)
class Join:
    """A machine wants to take part."""

    machine: str
    """Resource name, `machines/{id}`."""
    held: ChunkMembers
    unicast_only: bool = False
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
