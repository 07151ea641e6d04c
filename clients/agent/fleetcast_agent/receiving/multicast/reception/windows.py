"""Windows of symbols being collected: the memory, what is held of it, and the pieces of chunks that lie in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from fleetcast_wire.geometry import Geometry, PassLayout, WindowShape
from fleetcast_wire.memory import SymbolMemory
from fleetcast_wire.packet import Kind
from numpy.typing import NDArray

_READY_WINDOWS = 4
"""More are collected at once only where something is lost or late."""
_PAGE_BYTES = 4096
_MOST_RIVALS, _MOST_RIVALS_OF_WINDOW = 4, 8192
"""Copies of one symbol, and of all of a window, that are kept until it is known which is the sender's."""


class WindowMemory:
    """Memory for one window at a time."""

    def __init__(self, geometry: Geometry, window_symbols: int) -> None:
        self.source = SymbolMemory(geometry.symbol_bytes, window_symbols)
        self.held = np.zeros(window_symbols, np.bool_)
        """Which source symbols must not be written again: they arrived, or are being rebuilt from parity."""


class WindowMemories:
    """Memory for several windows, each made when it is first needed.

    Args:
        geometry: the transmission's numbers.
        window_symbols: source symbols of the largest window that will come.
        count: most windows at once.
    """

    def __init__(self, geometry: Geometry, window_symbols: int, count: int) -> None:
        self.count = count
        self._geometry = geometry
        self._window_symbols = window_symbols
        self._made = 0
        self._free: list[WindowMemory] = []

    def make_ready(self) -> None:
        """Make memory for the first windows, and have the system provide it, before they come."""
        while self._made < min(self.count, _READY_WINDOWS):
            memory = WindowMemory(self._geometry, self._window_symbols)
            np.frombuffer(memory.source.content, np.uint8)[::_PAGE_BYTES] = 0
            self._free.append(memory)
            self._made += 1

    def take(self) -> WindowMemory | None:
        """Returns memory for a window, the one used last first (it is in the cache); None if all are taken."""
        if self._free:
            return self._free.pop()
        if self._made == self.count:
            return None
        self._made += 1
        return WindowMemory(self._geometry, self._window_symbols)

    def give_back(self, memory: WindowMemory) -> None:
        """Take back what `take` gave."""
        self._free.append(memory)

    def close(self) -> None:
        """Let go of the memory that is free; what is taken goes with who has it."""
        self._free.clear()
        self._made = self.count


@dataclass(frozen=True)
class Piece:
    """The part of one chunk that lies in one window."""

    position: int
    """Which chunk of the pass."""
    start: int
    """First byte within the window."""
    end: int
    """Byte after the last within the window."""
    first_symbol: int
    end_symbol: int
    whole: bool
    """True if no other window has a part of this chunk."""


def cut_pieces(layout: PassLayout, window: int) -> list[Piece]:
    """Returns the pieces of a window in the order of the stream."""
    first, end = layout.window_span(window)
    size = layout.geometry.symbol_bytes
    positions = layout.window_chunks(window)
    bounds = layout.offsets[positions.start : positions.stop + 1].tolist()
    pieces = []
    for position, low, high in zip(positions, bounds, bounds[1:], strict=False):
        start, stop = max(low, first) - first, min(high, end) - first
        whole = low >= first and high <= end
        pieces.append(Piece(position, start, stop, start // size, -(-stop // size), whole))
    return pieces


@dataclass(eq=False)
class Window:
    """One window that is being collected."""

    number: int
    layout: PassLayout
    shape: WindowShape
    memory: WindowMemory
    pieces: Sequence[Piece]
    """The pieces of wanted chunks that are not delivered yet, in order."""
    late: bool
    """True if its beginning was sent before this machine listened: it asks for no repair."""
    missing: int
    """Source symbols that neither arrived nor were rebuilt."""
    next_piece: int = 0
    """Pieces before this one were looked at when their last symbol came by."""
    left: list[Piece] = field(default_factory=list)
    """Pieces that lacked a symbol when they were looked at."""
    parity: dict[int, dict[int, memoryview]] = field(default_factory=dict)
    """Parity symbols by codeword and row, never more than the codeword needs."""
    decoding: set[int] = field(default_factory=set)
    """Codewords being rebuilt now."""
    rebuilt: bool = False
    """True once a codeword was given to the decoder: from then on `held` runs ahead of the content."""
    references: int = 0
    """Delivered chunks that still lie in the memory."""
    rivals: dict[tuple[Kind, int], list[memoryview]] = field(default_factory=dict)
    """Where something was forged: symbols that may be the sender's, by kind and number."""
    doubted: list[Piece] = field(default_factory=list)
    """Pieces of chunks that did not match their digests."""
    reported_round: int = 0
    active_at: float = 0.0
    closed: bool = False
    """True when it takes no more symbols; the memory is free once `references` and `decoding` are empty."""

    @property
    def held(self) -> NDArray[np.bool_]:
        """Shape (symbol_count,): see `WindowMemory.held`."""
        return self.memory.held[: self.shape.symbol_count]

    @cached_property
    def checked(self) -> NDArray[np.bool_]:
        """Shape (symbol_count,): whose fingerprints were looked at; a symbol that comes later is nobody's."""
        return np.zeros(self.shape.symbol_count, np.bool_)

    def add_rival(self, kind: Kind, symbol: int, content: memoryview) -> None:
        """Keep what may be the sender's symbol."""
        rivals = self.rivals.setdefault((kind, symbol), [])
        if len(rivals) < _MOST_RIVALS and len(self.rivals) <= _MOST_RIVALS_OF_WINDOW:
            rivals.append(content)

    def deficits(self) -> NDArray[np.int32]:
        """Returns how many symbols each codeword lacks, parity counted: shape (codewords,)."""
        lost = np.flatnonzero(~self.held)
        deficits = np.bincount(lost % self.shape.codewords, minlength=self.shape.codewords).astype(np.int32)
        for codeword, rows in self.parity.items():
            deficits[codeword] -= len(rows)
        return deficits

    @property
    def busy(self) -> bool:
        """True while somebody still reads or writes the memory."""
        return bool(self.references or self.decoding)
