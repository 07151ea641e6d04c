"""Memory that is there before it is needed.

A virtual machine gives memory that it does not use back to its host, and the first touch of a page afterwards costs
several times what writing to it does. Tools that write their copies into such memory would be measured by that alone.
"""

import ctypes
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_MARGIN_BYTES = 512 << 20
"""So much is free beyond what was free before: the kernel hands out first what was freed last."""
_STEP_SECONDS = 0.02
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
        self._size_bytes = self._lent_bytes = size_bytes
        self.take_back()

    def close(self) -> None:
        """Give everything back."""
        os.close(self._file)

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Free as much as is allocated meanwhile, a little ahead of it; take it back afterwards."""
        ended = threading.Event()
        thread = threading.Thread(target=self._lend, args=(_free_bytes() + _MARGIN_BYTES, ended), daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def take_back(self) -> None:
        """Touch again what was lent, at once after it was freed: to allocate it would not be enough."""
        for start in range(0, self._lent_bytes, len(_BLOCK)):
            os.pwrite(self._file, _BLOCK[: self._lent_bytes - start], start)
        self._lent_bytes = 0

    def _lend(self, wanted_bytes: int, ended: threading.Event) -> None:
        while not ended.wait(_STEP_SECONDS) and self._lent_bytes < self._size_bytes:
            lack_bytes = min(wanted_bytes - _free_bytes(), self._size_bytes - self._lent_bytes)
            if lack_bytes > len(_BLOCK):
                mode = _FALLOC_FL_PUNCH_HOLE | _FALLOC_FL_KEEP_SIZE
                if _libc.fallocate(self._file, mode, self._lent_bytes, lack_bytes):
                    raise OSError(ctypes.get_errno(), "memory cannot be given back")
                self._lent_bytes += lack_bytes


def _free_bytes() -> int:
    with open("/proc/meminfo") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemFree:"))
