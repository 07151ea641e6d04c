"""What happens in a reception: past-tense facts, each with what is to be done about it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fleetcast_agent.receiving.multicast.reception.windows import Window


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
