"""Windows in memory: their source symbols as the pass has them, and their parity, made when it is wanted."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from fleetcast_wire.fec import CODECS
from fleetcast_wire.geometry import Geometry, PassLayout
from fleetcast_wire.memory import SymbolMemory

from .source import ChunkSource


@dataclass
class LoadedWindow:
    """One window. Its memory serves many, one after the other."""

    source: SymbolMemory
    """Every source symbol of a full window; those beyond the window's own count are stale."""
    parity: dict[int, list[bytes]] = field(default_factory=dict)
    """Codeword -> all its parity rows."""


class WindowMemory:
    """The buffers of one transmission. Loading and encoding are for one thread, reading for another.

    Args:
        geometry: of the transmission.
        source: where stored chunks come from.
        slots: how many windows there can be at once.
    """

    def __init__(self, geometry: Geometry, source: ChunkSource) -> None:
        self._geometry = geometry
        self._source = source
        self._free: list[LoadedWindow] = []
        self._windows: dict[tuple[int, int], LoadedWindow] = {}

    def get(self, pass_number: int, window: int) -> LoadedWindow:
        """Return a window that is loaded."""
        return self._windows[pass_number, window]

    def load(self, pass_number: int, layout: PassLayout, window: int, loaded: Callable[[int], None]) -> None:
        """Fill a buffer with the source symbols of a window. Blocks on the source.

        `loaded` is told after every chunk how many symbols, counted from the first, are there: they may be read.

        Raises:
            FleetcastError: a chunk cannot be read.
        """
        symbol_bytes = self._geometry.symbol_bytes
        filled = self._windows[pass_number, window] = (
            self._free.pop() if self._free else LoadedWindow(SymbolMemory(symbol_bytes, self._geometry.window_symbols))
        )
        first, end = layout.window_span(window)
        content = filled.source.content
        positions = layout.window_chunks(window)
        self._source.prefetch(layout.chunks[positions.start : positions.stop].tolist())
        for position in positions:
            chunk = int(layout.chunks[position])
            start, stop = int(layout.offsets[position]), int(layout.offsets[position + 1])
            low, high = max(start, first), min(stop, end)
            if (low, high) == (start, stop):
                self._source.read_into(chunk, content[low - first : high - first])
            else:
                stored = memoryview(bytearray(stop - start))
                self._source.read_into(chunk, stored)
                content[low - first : high - first] = stored[low - start : high - start]
            if high < end:
                loaded((high - first) // symbol_bytes)
        symbol_count = layout.window(window).symbol_count
        content[end - first : symbol_count * symbol_bytes] = bytes(symbol_count * symbol_bytes - (end - first))
        loaded(symbol_count)

    def encode(self, pass_number: int, layout: PassLayout, window: int, stopped: Callable[[], bool]) -> None:
        """Make the parity of every codeword of a window, letting other threads run in between."""
        loaded = self._windows.get((pass_number, window))
        if loaded is None:
            return
        codec = CODECS[self._geometry.codec]
        shape = layout.window(window)
        symbols = loaded.source.views[: shape.symbol_count]
        zero = bytes(self._geometry.symbol_bytes)
        for codeword in range(shape.codewords):
            rows = list(map(bytes, symbols[codeword :: shape.codewords]))
            rows += [zero] * (shape.rows - len(rows))
            loaded.parity[codeword] = codec.encode(rows, self._geometry.parity_symbols)
            if stopped():
                return
            time.sleep(0)  # the codec holds the interpreter: let the sending thread have its turn

    def release(self, pass_number: int, window: int) -> None:
        """Give a window's buffer back. Releasing what is not loaded does nothing."""
        loaded = self._windows.pop((pass_number, window), None)
        if loaded:
            loaded.parity = {}
            self._free.append(loaded)

    def clear(self) -> None:
        """Forget everything."""
        self._windows.clear()
        self._free.clear()
