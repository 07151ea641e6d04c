"""Memory for many symbols, and for many datagrams: one block each, whose parts go by their numbers."""

import ctypes
import gc
from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fleetcast_wire.packet import HEADER, datagram_bytes

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

    @staticmethod
    def of(payloads: Sequence[Buffer], symbol_bytes: int) -> "SymbolMemory":
        """Returns memory with copies of symbols."""
        if any(len(payload) != symbol_bytes for payload in payloads):
            raise ValueError(f"not all of {len(payloads)} symbols have {symbol_bytes} bytes")
        memory = SymbolMemory(symbol_bytes, len(payloads))
        memory.content[:] = b"".join(payloads)
        return memory

    def __len__(self) -> int:
        return len(self.content) // self.symbol_bytes

    @cached_property
    def addresses(self) -> NDArray[np.uintp]:
        """Shape (count,): where each symbol lies."""
        return _addresses(self.address, len(self), self.symbol_bytes)

    def chosen(self, numbers: Numbers) -> list[memoryview]:
        """Returns the views of symbols by their numbers."""
        return chosen(self.views, numbers)

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


class GatheredSymbols:
    """Symbols of equal size where they lie in the parts of a stream; only those across two parts are copied.

    One thread appends; others may take what was there when `append` returned.

    Args:
        symbol_bytes: size of each.
        count: most that there will be.
    """

    def __init__(self, symbol_bytes: int, count: int) -> None:
        self.symbol_bytes = symbol_bytes
        self._addresses = np.zeros(count, np.uintp)
        self._count = 0
        self._blocks: list[Buffer] = []
        self._begun = bytearray()

    def __len__(self) -> int:
        return self._count

    @property
    def addresses(self) -> NDArray[np.uintp]:
        """Shape (len(self),): where each symbol lies that is there."""
        return self._addresses[: self._count]

    def append(self, part: Buffer) -> None:
        """Add the next part of the stream, which stays as it is as long as this object is."""
        rest = memoryview(part)
        if self._begun:
            missing = self.symbol_bytes - len(self._begun)
            self._begun += rest[:missing]
            rest = rest[missing:]
            if len(self._begun) == self.symbol_bytes:
                self._add(bytes(self._begun))
                self._begun.clear()
        whole = len(rest) - len(rest) % self.symbol_bytes
        self._add(rest[:whole])
        self._begun += rest[whole:]

    def finish(self) -> None:
        """Fill the last symbol up with zeros."""
        if self._begun:
            self.append(bytes(self.symbol_bytes - len(self._begun)))

    def chosen(self, numbers: Numbers) -> list[bytes]:
        """Returns copies of symbols by their numbers."""
        return [ctypes.string_at(address, self.symbol_bytes) for address in self.addresses[numbers].tolist()]

    def _add(self, block: Buffer) -> None:
        count = len(block) // self.symbol_bytes
        if not count:
            return
        address = np.frombuffer(block, np.uint8).ctypes.data
        end = self._count + count
        self._addresses[self._count : end] = _addresses(address, count, self.symbol_bytes)
        self._blocks.append(block)
        self._count = end


Symbols = SymbolMemory | GatheredSymbols
"""Symbols that go by their numbers."""


def chosen(views: list[memoryview], numbers: Numbers) -> list[memoryview]:
    """Returns the views with these numbers."""
    if len(numbers) and (np.diff(numbers) == 1).all():
        return views[int(numbers[0]) : int(numbers[-1]) + 1]
    return list(map(views.__getitem__, numbers.tolist()))


def _addresses(first: int, count: int, step_bytes: int) -> NDArray[np.uintp]:
    return np.uintp(first) + np.arange(count, dtype=np.uintp) * np.uintp(step_bytes)


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
