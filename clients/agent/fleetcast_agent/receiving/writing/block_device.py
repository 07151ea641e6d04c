"""What Linux can say about and do to a block device beyond reading and writing."""

from __future__ import annotations

import os
import struct
import sys
from pathlib import Path

if sys.platform == "linux":
    import fcntl

_BLKSSZGET = 0x1268
_BLKROGET = 0x125E
_BLKGETSIZE64 = 0x80081272
_BLKZEROOUT = 0x127F


def device_bytes(descriptor: int) -> int:
    """Returns the size of an open block device in bytes."""
    if sys.platform != "linux":
        return os.lseek(descriptor, 0, os.SEEK_END)
    return int(struct.unpack("=Q", fcntl.ioctl(descriptor, _BLKGETSIZE64, bytes(8)))[0])


def sector_bytes(descriptor: int) -> int:
    """Returns the size of the logical sectors of an open block device; 0 where nobody can say."""
    if sys.platform != "linux":
        return 0
    return int(struct.unpack("=i", fcntl.ioctl(descriptor, _BLKSSZGET, bytes(4)))[0])


def is_whole_disk(descriptor: int) -> bool:
    """Returns whether an open block device is a disk, and no partition and no volume of the device mapper."""
    device = os.fstat(descriptor).st_rdev
    about = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}") if sys.platform != "win32" else Path()
    return not any((about / name).exists() for name in ("partition", "dm", "md"))


def is_read_only(descriptor: int) -> bool:
    """Returns whether an open block device refuses writes."""
    if sys.platform != "linux":
        return False
    return bool(struct.unpack("=i", fcntl.ioctl(descriptor, _BLKROGET, bytes(4)))[0])


def zero_out(descriptor: int, start: int, length: int) -> None:
    """Make a range of an open block device read as zeros, by discarding it where the device then gives zeros.

    Raises:
        OSError: the device cannot, or the range is not aligned to its sectors.
    """
    if sys.platform != "linux":
        raise OSError("only Linux zeroes a range of a device")
    fcntl.ioctl(descriptor, _BLKZEROOUT, struct.pack("=QQ", start, length))
