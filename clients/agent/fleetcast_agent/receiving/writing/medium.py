"""What the system does with a target's bytes: writes, reads, holes, and when they get to the medium."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
import threading
from collections.abc import Sequence

_FALLOC_PUNCH_HOLE_KEEP_SIZE = 0x03
_SEEK_LOCK = threading.Lock()


class Medium:
    """The calls of the system, and the sizes by which a target uses them.

    Args:
        flush_from_bytes: the medium gets its data in portions of about so much, while more arrives.
        dirty_limit_bytes: writers wait for the medium beyond so much, so that what counts as written is nearly so and
            the end is short.
    """

    def __init__(self, *, flush_from_bytes: int = 32 << 20, dirty_limit_bytes: int = 192 << 20) -> None:
        self.flush_from_bytes = flush_from_bytes
        self.dirty_limit_bytes = dirty_limit_bytes

    def write_at(self, descriptor: int, contents: Sequence[memoryview], offset: int) -> int:
        """Write the first of some bytes, end to end; return how many."""
        if sys.platform != "win32":
            return os.pwritev(descriptor, contents, offset)
        with _SEEK_LOCK:
            os.lseek(descriptor, offset, os.SEEK_SET)
            return os.write(descriptor, contents[0])

    def read_at(self, descriptor: int, length: int, offset: int) -> bytes:
        """Returns bytes at an offset, fewer at the end."""
        if sys.platform != "win32":
            return os.pread(descriptor, length, offset)
        with _SEEK_LOCK:
            os.lseek(descriptor, offset, os.SEEK_SET)
            return os.read(descriptor, length)

    def flush(self, descriptor: int) -> None:
        """Returns when what was written is on the medium."""
        os.fdatasync(descriptor) if sys.platform == "linux" else os.fsync(descriptor)

    def punch_hole(self, descriptor: int, start: int, length: int) -> None:
        """Make a part of a file a hole, which reads as zeros.

        Raises:
            OSError: the file system has no holes, or failed.
        """
        if sys.platform != "linux":
            raise OSError(errno.EOPNOTSUPP, "no holes here")
        libc = ctypes.CDLL(None, use_errno=True)
        offsets = (ctypes.c_int64(start), ctypes.c_int64(length))
        if libc.fallocate64(descriptor, _FALLOC_PUNCH_HOLE_KEEP_SIZE, *offsets):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
