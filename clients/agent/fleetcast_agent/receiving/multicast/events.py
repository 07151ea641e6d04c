"""What happens in a reception: past-tense facts, each with what is to be done about it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fleetcast_agent.receiving.multicast.windows import Window


@dataclass(frozen=True, eq=False)
class ChunkArrived:
    """All stored bytes of a chunk are there, unproven. Answer with `Reception.settle_chunk`."""

    chunk: int
    stored: memoryview
    """Valid until settled."""
    window: Window | None
    """Whose memory `stored` lies in; None if it has its own."""


@dataclass(frozen=True, eq=False)
class CodewordCompleted:
    """A codeword can be rebuilt from its parity. Answer with `Reception.settle_codeword`."""

    window: Window
    codeword: int
    lost_rows: list[int]
    """Rows of the source symbols to rebuild, into `window.memory`."""
    parity: dict[int, memoryview]
    """Parity symbols by row."""


@dataclass(frozen=True, eq=False)
class DeficitsCounted:
    """A round ended and a window lacks something."""

    pass_number: int
    window: int
    round: int
    deficits: NDArray[np.int32]
    """Shape (codewords,), or without parity (symbols,): see WIRE.md, section 7."""


@dataclass(frozen=True)
class PassSettled:
    """A pass ended, and everything that could be rebuilt of it is."""

    pass_number: int


Event = ChunkArrived | CodewordCompleted | DeficitsCounted | PassSettled


@dataclass
class ReceptionCounts:
    """Totals of one transmission."""

    datagram_count: int = 0
    """Datagrams that authenticated."""
    rejected_datagram_count: int = 0
    """Datagrams that are not of this transmission, or do not open."""
    first_packet_counter: int = -1
    highest_packet_counter: int = -1
    """Of those that authenticated; -1 if none did."""
    pass_number: int = 0
    """Pass of the highest packet counter."""
    dropped_window_count: int = 0
    """Windows given up because the ring was full."""
    recovered_symbol_count: int = 0

    @property
    def absent_datagram_count(self) -> int:
        """Datagrams sent since the first that was heard, and not heard: lost on the way or in this host."""
        if self.highest_packet_counter < 0:
            return 0
        return max(0, self.highest_packet_counter - self.first_packet_counter + 1 - self.datagram_count)
