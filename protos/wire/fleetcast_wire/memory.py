"""Memory for many symbols, and for many datagrams: one block each, whose parts go by their numbers."""

import gc
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from .packet import HEADER, datagram_bytes

Buffer = bytes | bytearray | memoryview
Numbers = NDArray[np.int64]
"""Numbers of symbols or of slots."""


class SymbolMemory:
    """Memory for symbols of equal size, end to end.

    Args:
        symbol_bytes: size of each.
        count: how many.
    """

    def __init__(self, symbol_bytes: int, count: int) -> None:
        # numpy's memory comes from the system in large pages, as it is touched: with the interpreter held for neither.
        block = np.empty(count * symbol_bytes, np.uint8)
        self.symbol_bytes = symbol_bytes
        self.content: memoryview = block.data
        """All the symbols, not initialised."""
        self.address: int = block.ctypes.data
        """Where the block lies in the process: symbol i is `symbol_bytes` bytes from i * symbol_bytes on."""

    def __len__(self) -> int:
        return len(self.content) // self.symbol_bytes

    @cached_property
    def views(self) -> list[memoryview]:
        """The view of every symbol, made once, when first asked for."""
        content, size = self.content, self.symbol_bytes
        collecting = gc.isenabled()
        gc.disable()  # tens of thousands of views are made at once, and none of them is garbage
        try:
            return [content[start : start + size] for start in range(0, len(content), size)]
        finally:
            if collecting:
                gc.enable()


class Slots:
    """Room for datagrams of equal size, end to end.

    Args:
        symbol_bytes: of the symbol in each.
        count: how many.
    """

    def __init__(self, symbol_bytes: int, count: int) -> None:
        self.symbol_bytes = symbol_bytes
        self.stride = datagram_bytes(symbol_bytes)
        """Bytes of a slot: a sealed symbol."""
        block = np.zeros(count * self.stride, np.uint8)
        self.address: int = block.ctypes.data
        self.buffer: memoryview = block.data
        """Datagram i at i * stride."""
        self.headers: NDArray[np.void] = block.view(
            np.dtype({"names": ["h"], "formats": [HEADER], "offsets": [0], "itemsize": self.stride})
        )["h"]
        """Shape (count,), dtype HEADER: the headers in the slots."""

    def __len__(self) -> int:
        return len(self.headers)
