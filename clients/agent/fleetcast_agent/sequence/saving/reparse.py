"""Kinds of reparse points: what Windows, and not the file system, makes of a file."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

REPARSE = "system.ntfs_reparse_data"
"""ntfs-3g shows and takes the data of a reparse point as this extended attribute."""
JUNCTION, SYMBOLIC_LINK = 0xA0000003, 0xA000000C
LINKS = frozenset({JUNCTION, SYMBOLIC_LINK})
"""The only ones that lead elsewhere; all others have their content behind them."""
SYSTEM_COMPRESSED = 0x80000017
"""Windows compressed it: the content is in the stream `WofCompressedData`."""
_ELSEWHERE = {
    0x80000007: "single instance storage",
    0x80000013: "data deduplication",
    0x80000006: "hierarchical storage management",
    0xC0000004: "hierarchical storage management",
}
_CLOUD, _CLOUD_MASK = 0x9000001A, 0xFFFF0FFF
_REMOTE_FLAGS = 0x00400000 | 0x00040000 | 0x00001000
"""Attributes: recall on data access, recall on open, offline."""


def kept_elsewhere(tag: int) -> str:
    """Returns what keeps the content of such files in another place of the volume; empty if nothing does."""
    return _ELSEWHERE.get(tag, "")


def is_cloud(tag: int) -> bool:
    """Returns whether such files belong to a folder that a service such as OneDrive keeps the same everywhere."""
    return tag & _CLOUD_MASK == _CLOUD


def is_online_only(tag: int, attributes: int, size_bytes: int, stored_bytes: int) -> bool:
    """Returns whether the content of a file is with the service alone."""
    return is_cloud(tag) and size_bytes > 0 and (stored_bytes == 0 or bool(attributes & _REMOTE_FLAGS))


def put_on(path: Path, data: bytes) -> None:
    """Makes a file or directory of a mounted volume a reparse point, which the mount shows as a symbolic link.

    Raises:
        OSError: it cannot be made one.
    """
    os.setxattr(path, REPARSE, data, follow_symlinks=False)
    _look_again(path)


def take_off(path: Path) -> None:
    """Makes a reparse point the file or directory again that it is below.

    Raises:
        OSError: it is none.
    """
    os.removexattr(path, REPARSE, follow_symlinks=False)
    _look_again(path)


def _look_again(path: Path) -> None:
    with contextlib.suppress(OSError):  # the kernel refuses once what has become another thing under its eyes
        path.lstat()
