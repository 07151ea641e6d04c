"""Files that are whole or absent, whenever the process dies."""

from __future__ import annotations

import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path


def write_atomically(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Puts `content` into the file `path`, durably: a reader sees the old content or all of the new, never a part."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def write_if_other(path: Path, content: bytes) -> None:
    """Does what `write_atomically` does, unless that is there already: nothing is written then, on a full disk too."""
    with suppress(OSError):
        if path.read_bytes() == content:
            make_private(path)
            return
    write_atomically(path, content)


def make_private_directory(path: Path) -> None:
    """Makes the directory `path` with its parents, readable by its owner only if it is new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir(mode=0o700, exist_ok=True)


def shut_directory(path: Path) -> None:
    """Makes the directory `path`, for this program alone, and takes the rights of others on it that is there."""
    make_private_directory(path)
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & stat.S_IRWXO:
        path.chmod(mode & ~stat.S_IRWXO)


def make_private(path: Path, mode: int = 0o600) -> None:
    """Makes the file at `path`, unless it is there, and takes every right on it from all but its owner.

    Raises:
        OSError: it cannot be made, or belongs to somebody else.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, mode)
    try:
        if stat.S_IMODE(os.fstat(descriptor).st_mode) & ~mode:
            os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)


def sync_directory(path: Path) -> None:
    """Makes the names in the directory `path` durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
