"""Windows in memory: their source symbols as the pass has them, and their parity, made when it is wanted."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from fleetcast_wire.fec import CODECS
from fleetcast_wire.geometry import Geometry, PassLayout
from fleetcast_wire.memory import GatheredSymbols

from .source import ChunkSource


@dataclass
class LoadedWindow:
    """One window."""

    source: GatheredSymbols
    """Its source symbols, as far as they are there."""
    parity: dict[int, list[bytes]] = field(default_factory=dict)
    """Codeword -> all its parity rows."""


class WindowMemory:
    """The windows of one transmission. Loading and encoding are for one thread, reading for another.

    Args:
        geometry: of the transmission.
        source: where stored chunks come from.
    """

    def __init__(self, geometry: Geometry, source: ChunkSource) -> None:
        self._geometry = geometry
        self._source = source
        self._windows: dict[tuple[int, int], LoadedWindow] = {}

    def get(self, pass_number: int, window: int) -> LoadedWindow:
        """Return a window that is loaded."""
        return self._windows[pass_number, window]

    def load(self, pass_number: int, layout: PassLayout, window: int, loaded: Callable[[int], None]) -> None:
        """Gather the source symbols of a window. Blocks on the source.

        `loaded` is told after every chunk how many symbols, counted from the first, are there: they may be read.

        Raises:
            FleetcastError: a chunk cannot be read.
        """
        symbol_count = layout.window(window).symbol_count
        symbols = GatheredSymbols(self._geometry.symbol_bytes, symbol_count)
        self._windows[pass_number, window] = LoadedWindow(symbols)
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
        loaded(symbol_count)

    def encode(self, pass_number: int, layout: PassLayout, window: int, stopped: Callable[[], bool]) -> None:
        """Make the parity of every codeword of a window, letting other threads run in between."""
        loaded = self._windows.get((pass_number, window))
        if loaded is None:
            return
        codec = CODECS[self._geometry.codec]
        shape = layout.window(window)
        numbers = np.arange(shape.symbol_count)
        zero = bytes(self._geometry.symbol_bytes)
        for codeword in range(shape.codewords):
            rows = loaded.source.chosen(numbers[codeword :: shape.codewords])
            rows += [zero] * (shape.rows - len(rows))
            loaded.parity[codeword] = codec.encode(rows, self._geometry.parity_symbols)
            if stopped():
                return
            time.sleep(0)  # the codec holds the interpreter: let the sending thread have its turn

    def release(self, pass_number: int, window: int) -> None:
        """Let go of a window. Releasing what is not loaded does nothing."""
        self._windows.pop((pass_number, window), None)

    def clear(self) -> None:
        """Forget everything."""
        self._windows.clear()
