"""What protects files of Linux from being changed, even by root: flags of chattr, subvolumes of btrfs for reading."""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path

IMMUTABLE, APPEND_ONLY = 0x10, 0x20
_PROTECTING = IMMUTABLE | APPEND_ONLY
_GET_FLAGS, _SET_FLAGS = 0x80086601, 0x40086602
"""ioctl_iflags(2)"""
_GET_SUBVOLUME, _SET_SUBVOLUME, _SUBVOLUME_READ_ONLY = 0x80089419, 0x4008941A, 2
_SUBVOLUME_INODE = 256
"""Of each top of a subvolume (btrfs)."""
_NONE_SUCH = (errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)


def flags_of(path: Path) -> int:
    """Returns the flags of a file or directory as `chattr` sets them; 0 where there are none."""
    with _opened(path) as descriptor:
        return _asked(descriptor, _GET_FLAGS, "i")


def set_flags(path: Path, flags: int) -> None:
    """Sets the flags of a file or directory.

    Raises:
        OSError: its file system has none such.
    """
    with _opened(path) as descriptor:
        if descriptor is not None:
            fcntl.ioctl(descriptor, _SET_FLAGS, array.array("i", [flags]))


def is_protected(path: Path) -> bool:
    """Returns whether something keeps the file, or what is in the directory, from being deleted.

    Raises:
        OSError: it cannot be opened.
    """
    with _opened(path) as descriptor:
        return bool(_asked(descriptor, _GET_FLAGS, "i") & _PROTECTING) or _is_read_only_subvolume(descriptor)


def take_away(path: Path) -> None:
    """Lets the file, or what is in the directory, be deleted.

    Raises:
        OSError: its file system does not.
    """
    with _opened(path) as descriptor:
        if descriptor is None:
            return
        if _is_read_only_subvolume(descriptor):
            flags = _asked(descriptor, _GET_SUBVOLUME, "Q") & ~_SUBVOLUME_READ_ONLY
            fcntl.ioctl(descriptor, _SET_SUBVOLUME, array.array("Q", [flags]))
        flags = _asked(descriptor, _GET_FLAGS, "i")
        if flags & _PROTECTING:
            fcntl.ioctl(descriptor, _SET_FLAGS, array.array("i", [flags & ~_PROTECTING]))


def _is_read_only_subvolume(descriptor: int | None) -> bool:
    if descriptor is None or os.fstat(descriptor).st_ino != _SUBVOLUME_INODE:
        return False
    return bool(_asked(descriptor, _GET_SUBVOLUME, "Q") & _SUBVOLUME_READ_ONLY)


def _asked(descriptor: int | None, request: int, form: str) -> int:
    """Returns what the file system answers; 0 if it knows no such question."""
    answer = array.array(form, [0])
    try:
        if descriptor is not None:
            fcntl.ioctl(descriptor, request, answer)
    except OSError as error:
        if error.errno not in _NONE_SUCH:
            raise
    return int(answer[0])


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int | None]:
    """Yields a descriptor of a file or directory; None for what has no flags and might answer to being opened."""
    if stat.S_IFMT(path.lstat().st_mode) not in (stat.S_IFREG, stat.S_IFDIR):
        yield None
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
