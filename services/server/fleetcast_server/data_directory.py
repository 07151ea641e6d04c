"""The server's data directory: one process at a time, and never an older program on newer data."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fleetcast_kit.errors import FailedPreconditionError
from fleetcast_kit.files import make_private_directory, write_atomically
from fleetcast_kit.locks import lock_file

LAYOUT = 1
"""Version of the directory's layout: grows when an older program could no longer work on it."""

LAYOUT_FILE = "layout.json"
LOCK_FILE = "lock"


@contextmanager
def open_data_directory(path: Path) -> Iterator[Path]:
    """Gives the data directory at `path`, made on first use, to this process alone.

    Raises:
        FailedPreconditionError: it cannot be written, another process has it, or a newer version made it.
    """
    try:
        make_private_directory(path)
        lock = lock_file(path / LOCK_FILE)
    except OSError as error:
        raise FailedPreconditionError(
            f"the data directory {path} cannot be used: {error.strerror}; "
            "give one that this user may write with --data-dir",
            reason="DATA_DIRECTORY_UNUSABLE",
        ) from error
    if lock is None:
        raise _in_use(path)
    try:
        try:
            _write_holder(lock)
            _check_layout(path)
        except OSError as error:
            raise FailedPreconditionError(
                f"the data directory {path} cannot be used: {error.strerror} ({LAYOUT_FILE})",
                reason="DATA_DIRECTORY_UNUSABLE",
            ) from error
        yield path
    finally:
        os.close(lock)


def _in_use(path: Path) -> FailedPreconditionError:
    holder = (path / LOCK_FILE).read_text("ascii", "replace").strip()
    by = f" (process {holder})" if holder else ""
    return FailedPreconditionError(
        f"another fleetcast-server{by} uses the data directory {path}: stop it, or give "
        "another directory with --data-dir",
        reason="DATA_DIRECTORY_IN_USE",
    )


def _write_holder(lock: int) -> None:
    """Writes down which process has the directory; on a full disk it stays unsaid."""
    with suppress(OSError):
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)


def _check_layout(path: Path) -> None:
    file = path / LAYOUT_FILE
    try:
        layout = int(json.loads(file.read_text())["layout"])
    except FileNotFoundError:
        write_atomically(file, json.dumps({"layout": LAYOUT}).encode())
        return
    except (ValueError, KeyError, TypeError) as error:
        raise FailedPreconditionError(
            f"{file} is damaged: restore it from a backup, or write {json.dumps({'layout': LAYOUT})} into it",
            reason="DATA_DIRECTORY_DAMAGED",
        ) from error
    if layout > LAYOUT:
        raise FailedPreconditionError(
            f"the data directory {path} is of a newer version of fleetcast (layout {layout}, this program knows "
            f"{LAYOUT}): update this program, or give another directory with --data-dir",
            reason="NEWER_DATA_DIRECTORY",
        )
