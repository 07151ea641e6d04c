"""Files as memory: their pages are those of the system's cache, and nothing is copied."""

from __future__ import annotations

import ctypes
import sys
import weakref
from functools import cache

_PROT_READ, _MAP_SHARED = 1, 1
_MADV_POPULATE_READ = 22
_FAILED = ctypes.c_void_p(-1).value


def map_file(descriptor: int, size_bytes: int) -> memoryview | None:
    """Returns the first bytes of a file, read into the cache now, or None where that cannot be: read the file then.

    An unreadable medium is met here, where it can be told, and not when the bytes are used (by SIGBUS). The descriptor
    may be closed; the memory goes with the last reference to it. Unlike Python's `mmap` it keeps no descriptor.
    """
    if sys.platform != "linux" or not size_bytes:
        return None
    libc = _libc()
    address = libc.mmap(None, size_bytes, _PROT_READ, _MAP_SHARED, descriptor, 0)
    if address == _FAILED:
        return None
    block = (ctypes.c_ubyte * size_bytes).from_address(address)
    weakref.finalize(block, libc.munmap, address, size_bytes).atexit = False
    if libc.madvise(address, size_bytes, _MADV_POPULATE_READ):
        return None  # before Linux 5.14, or the medium is broken: a read says how
    return memoryview(block).cast("B").toreadonly()


@cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *(ctypes.c_int,) * 3, ctypes.c_long)
    libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return libc
