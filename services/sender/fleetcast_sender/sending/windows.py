"""Windows in memory: their source symbols as the pass has them, and their parity, made when it is wanted."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from fleetcast_wire.geometry import Geometry, PassLayout, WindowShape
from fleetcast_wire.memory import Buffer, GatheredSymbols, Numbers
from fleetcast_wire.parity.fec import CODECS, SymbolPlaces

from fleetcast_sender.chunks.patience import PatientSource
from fleetcast_sender.chunks.source import ChunkSource

_PARITY_ROWS = 8
"""Parity is made by so many rows, or more: those that are not asked for cost as much as the others."""


@dataclass
class LoadedWindow:
    """One window."""

    shape: WindowShape
    source: GatheredSymbols
    """Its source symbols, as far as they are there."""
    parity: dict[int, Sequence[Buffer]] = field(default_factory=dict)
    """Codeword -> its first parity rows."""


class WindowMemory:
    """The windows of one transmission. Loading and encoding are for one thread, reading for another.

    Args:
        geometry: of the transmission.
        source: where stored chunks come from.
    """

    def __init__(self, geometry: Geometry, source: ChunkSource) -> None:
        self._geometry = geometry
        self._source = PatientSource(source)
        self._windows: dict[tuple[int, int], LoadedWindow] = {}
        self._parity_rows = _PARITY_ROWS  # as many as were ever asked for

    def get(self, pass_number: int, window: int) -> LoadedWindow:
        """Returns a window that is loaded."""
        return self._windows[pass_number, window]

    def load(self, pass_number: int, layout: PassLayout, window: int, loaded: Callable[[int], None]) -> None:
        """Gather the source symbols of a window. Blocks on the source.

        `loaded` is told after every chunk how many symbols, counted from the first, are there: they may be read.

        Raises:
            FleetcastError: a chunk cannot be read.
        """
        shape = layout.window(window)
        symbols = GatheredSymbols(self._geometry.symbol_bytes, shape.symbol_count)
        self._windows[pass_number, window] = LoadedWindow(shape, symbols)
        first, end = layout.window_span(window)
        positions = layout.window_chunks(window)
        self._source.prefetch(layout.chunks[positions.start : positions.stop].tolist())
        for position in positions:
            start, stop = int(layout.offsets[position]), int(layout.offsets[position + 1])
            stored = memoryview(self._source.stored(int(layout.chunks[position])))
            symbols.append(stored[max(first - start, 0) : min(stop, end) - start])
            if stop < end:
                loaded(len(symbols))
        symbols.finish()
        loaded(shape.symbol_count)

    def encode(self, pass_number: int, window: int, stopped: Callable[[], bool]) -> None:
        """Make parity of every codeword of a window, letting other threads run in between."""
        loaded = self._windows.get((pass_number, window))
        if loaded is None:
            return
        for codeword in range(loaded.shape.codewords):
            loaded.parity[codeword] = self._encoded(loaded, codeword)
            if stopped():
                return
            time.sleep(0)  # the codec may hold the interpreter: let the sending thread have its turn

    def parity(self, pass_number: int, window: int, symbols: Numbers) -> list[Buffer]:
        """Returns parity symbols of a window that is encoded, making what was not asked for before."""
        loaded = self.get(pass_number, window)
        rows, codewords = np.divmod(symbols, loaded.shape.codewords)
        missing = int(rows.max(initial=0)) + 1 - self._parity_rows
        if missing > 0:
            self._parity_rows += -(-missing // _PARITY_ROWS) * _PARITY_ROWS
        chosen = list[Buffer]()
        for codeword, row in zip(codewords.tolist(), rows.tolist(), strict=True):
            if row >= len(loaded.parity[codeword]):
                loaded.parity[codeword] = self._encoded(loaded, codeword)
            chosen.append(loaded.parity[codeword][row])
        return chosen

    def _encoded(self, loaded: LoadedWindow, codeword: int) -> Sequence[Buffer]:
        shape, all_rows = loaded.shape, self._geometry.parity_symbols
        places = SymbolPlaces(loaded.source, np.arange(codeword, shape.symbol_count, shape.codewords))
        count = min(self._parity_rows, all_rows)
        return CODECS[self._geometry.codec].encode_first(shape.rows, all_rows, places, count)

    def release(self, pass_number: int, window: int) -> None:
        """Let go of a window. Releasing what is not loaded does nothing."""
        self._windows.pop((pass_number, window), None)

    def stop(self) -> None:
        """Wait no more for a source that is away: loading raises instead."""
        self._source.stop()

    def clear(self) -> None:
        """Forget everything."""
        self._windows.clear()
