"""Emptying a volume: everything on it but what is kept, also what its file system protects from being deleted."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from fleetcast_agent.sequence.errors import StepError
from fleetcast_agent.sequence.saving import protection, reparse, store

_LOST_AND_FOUND = "lost+found"


def emptied(root: Path, keep: set[str]) -> Iterator[None]:
    """Deletes what is at the mount point `root` but the directories `keep`, whose names are in small letters.

    It first looks at everything, then takes away what protects files from being deleted, and only then deletes.

    Raises:
        StepError: something cannot be looked at, and nothing was deleted; or it could not be deleted.
    """
    entries = sorted(root.iterdir())
    gone = [entry for entry in entries if entry.name.lower() not in {*keep, _LOST_AND_FOUND}]
    protected: list[Path] = []
    try:
        for entry in gone:
            yield from _seen(entry, protected)
    except OSError as error:
        raise StepError(f"{_shown(error, root)} cannot be read: {error.strerror}; nothing was deleted") from error
    for entry in entries:
        if entry.name.lower() in keep:
            store.erases_originals(entry)
    try:
        for path in protected:
            protection.take_away(path)
        for entry in gone:
            yield from _deleted(entry)
    except OSError as error:
        raise StepError(
            f"{_shown(error, root)} cannot be deleted: {error.strerror}; the volume is emptied in part, and this step "
            f"can be repeated"
        ) from error


def _seen(top: Path, protected: list[Path]) -> Iterator[None]:
    """Adds what is protected from being deleted, from the top down."""
    waiting = [top]
    while waiting:
        path = waiting.pop()
        if not path.is_symlink():
            if protection.is_protected(path):
                protected.append(path)
            if path.is_dir():
                waiting += path.iterdir()
        yield


def _deleted(top: Path) -> Iterator[None]:
    """Deletes a file, or a directory with what is in it."""
    waiting = [top]
    while waiting:
        path = waiting[-1]
        if _gone(path, (os.unlink if path.is_symlink() or not path.is_dir() else os.rmdir)):
            waiting.pop()
            yield
            continue
        if path.is_symlink():
            # A directory of Windows that is a reparse point looks like a link; what is in it shows without that.
            reparse.take_off(path)
        waiting += path.iterdir()


def _gone(path: Path, delete: Callable[[Path], None]) -> bool:
    """Returns whether it could be deleted; it could not if there is something in it."""
    try:
        delete(path)
    except OSError as error:
        if error.errno == errno.ENOTEMPTY:
            return False
        raise
    return True


def _shown(error: OSError, root: Path) -> str:
    """Returns the path that an error is about, from the volume's top."""
    return str(error.filename).removeprefix(str(root)) or "/"
