"""How a pass is cut into windows, codewords and symbols. See WIRE.md, section 4."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fleetcast_wire.errors import GeometryError

MIN_SYMBOL_BYTES = 512
MAX_SYMBOL_BYTES = 8896
MAX_CODEWORD_SYMBOLS = 4096
MAX_PARITY_SYMBOLS = 1024
MAX_WINDOW_SYMBOLS = 1 << 18


@dataclass(frozen=True)
class WindowShape:
    """One window: `symbol_count` source symbols; source symbol s is row s // codewords of codeword s % codewords."""

    symbol_count: int
    codewords: int
    rows: int
    """Source symbols of the longest codeword; the missing ones of shorter codewords count as zeros that never fail."""


@dataclass(frozen=True)
class Geometry:
    """The numbers of a transmission, agreed when it starts.

    Raises:
        GeometryError: a number is outside its limits.
    """

    symbol_bytes: int = 1408
    """T: payload of a symbol; a multiple of 64 from `MIN_SYMBOL_BYTES` to `MAX_SYMBOL_BYTES`."""
    codeword_symbols: int = 1000
    """k: source symbols of a codeword."""
    window_codewords: int = 32
    """D: codewords of a window."""
    parity_symbols: int = 0
    """P: parity symbols that a codeword can have; 0 when the transmission sends none."""
    codec: str = ""
    """Name of the parity codec; empty when the transmission sends no parity."""

    def __post_init__(self) -> None:
        limits = (
            ("symbol_bytes", self.symbol_bytes, MIN_SYMBOL_BYTES, MAX_SYMBOL_BYTES),
            ("codeword_symbols", self.codeword_symbols, 1, MAX_CODEWORD_SYMBOLS),
            ("window_codewords", self.window_codewords, 1, MAX_WINDOW_SYMBOLS),
            ("parity_symbols", self.parity_symbols, 0, MAX_PARITY_SYMBOLS),
            ("symbols of a window", self.codeword_symbols * self.window_codewords, 1, MAX_WINDOW_SYMBOLS),
        )
        for name, value, low, high in limits:
            if not low <= value <= high:
                raise GeometryError(f"{name} is {value}, outside {low} to {high}")
        if self.symbol_bytes % 64:
            raise GeometryError(f"symbol_bytes is {self.symbol_bytes}, not a multiple of 64")
        if bool(self.parity_symbols) != bool(self.codec):
            raise GeometryError(f"{self.parity_symbols} parity symbols do not fit codec {self.codec!r}")

    @property
    def window_symbols(self) -> int:
        """Source symbols of a full window."""
        return self.codeword_symbols * self.window_codewords

    @property
    def window_bytes(self) -> int:
        """Payload of a full window in bytes."""
        return self.window_symbols * self.symbol_bytes

    def shape(self, symbol_count: int) -> WindowShape:
        """Returns the shape of a window of so many source symbols: as few codewords as k allows.

        Raises:
            GeometryError: no window has so many symbols.
        """
        if not 1 <= symbol_count <= self.window_symbols:
            raise GeometryError(f"a window of {symbol_count} symbols is outside 1 to {self.window_symbols}")
        codewords = -(-symbol_count // self.codeword_symbols)
        return WindowShape(symbol_count, codewords, -(-symbol_count // codewords))


class PassLayout:
    """Where the chunks of one pass lie in its stream, and the stream in windows.

    Args:
        geometry: the transmission's numbers.
        chunks: indices of the chunks that the pass sends, ascending, none of them a zero chunk.
        stored_size_bytes: stored size of every chunk of the image, indexed by chunk.

    Raises:
        GeometryError: the pass is empty or a chunk has no bytes to send.
    """

    def __init__(self, geometry: Geometry, chunks: NDArray[np.int64], stored_size_bytes: NDArray[np.int64]) -> None:
        sizes = stored_size_bytes[chunks]
        if not len(chunks) or sizes.min() < 1:
            raise GeometryError("a pass needs chunks, and each needs stored bytes")
        self.geometry = geometry
        self.chunks = chunks
        """Shape (n,): the chunks in the order of sending."""
        self.offsets = np.concatenate(([0], np.cumsum(sizes, dtype=np.int64)))
        """Shape (n + 1,): first stream byte of each chunk, and the end."""

    @property
    def stream_bytes(self) -> int:
        """Length of the stream without the padding of its last symbol."""
        return int(self.offsets[-1])

    @cached_property
    def symbol_count(self) -> int:
        """Source symbols of the pass."""
        return -(-self.stream_bytes // self.geometry.symbol_bytes)

    @cached_property
    def window_count(self) -> int:
        """Windows of the pass."""
        return -(-self.symbol_count // self.geometry.window_symbols)

    def window(self, window: int) -> WindowShape:
        """Returns the shape of a window.

        Raises:
            GeometryError: the pass has no such window.
        """
        if not 0 <= window < self.window_count:
            raise GeometryError(f"window {window} is not one of {self.window_count}")
        full = self.geometry.window_symbols
        return self.geometry.shape(min(full, self.symbol_count - window * full))

    def window_span(self, window: int) -> tuple[int, int]:
        """Returns the first stream byte of a window and the byte after its last, without padding."""
        first = window * self.geometry.window_bytes
        return first, min(first + self.geometry.window_bytes, self.stream_bytes)

    def window_chunks(self, window: int) -> range:
        """Returns the positions in `chunks` of the chunks that lie in a window at least in part."""
        first, end = self.window_span(window)
        low = int(np.searchsorted(self.offsets, first, side="right")) - 1
        return range(low, int(np.searchsorted(self.offsets, end, side="left")))

    def chunk_windows(self, position: int) -> range:
        """Returns the windows that hold a part of the chunk at a position in `chunks`."""
        size = self.geometry.window_bytes
        return range(int(self.offsets[position]) // size, (int(self.offsets[position + 1]) - 1) // size + 1)
