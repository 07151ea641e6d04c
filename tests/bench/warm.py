"""Memory that is there before it is needed.

A virtual machine gives memory that it does not use back to its host, and the first touch of a page afterwards costs
several times what writing to it does. Tools that write their copies into such memory would be measured by that alone.
"""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_BLOCK = memoryview(bytes(16 << 20))
_FALLOC_FL_KEEP_SIZE, _FALLOC_FL_PUNCH_HOLE = 1, 2

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]


class WarmMemory:
    """A file in memory whose pages are lent to whoever allocates while something is measured."""

    def __init__(self, path: Path, size_bytes: int) -> None:
        """Touches `size_bytes` of memory, by a file at `path` in a file system in memory."""
        self._file = os.open(path, os.O_CREAT | os.O_RDWR | os.O_EXCL, 0o600)
        path.unlink()
        self._touch(size_bytes)

    def close(self) -> None:
        """Give everything back."""
        os.close(self._file)

    @contextmanager
    def lent(self, size_bytes: int) -> Iterator[None]:
        """Free so much; touch as much again afterwards, when it should just have been freed.

        It stays warm for minutes, and the kernel hands out first what was freed last.
        """
        if _libc.fallocate(self._file, _FALLOC_FL_PUNCH_HOLE | _FALLOC_FL_KEEP_SIZE, 0, size_bytes):
            raise OSError(ctypes.get_errno(), "memory cannot be given back")
        try:
            yield
        finally:
            self._touch(size_bytes)

    def _touch(self, size_bytes: int) -> None:
        for start in range(0, size_bytes, len(_BLOCK)):
            os.pwrite(self._file, _BLOCK[: size_bytes - start], start)
