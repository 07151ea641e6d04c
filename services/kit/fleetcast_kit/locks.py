"""Files that one process alone may work on."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

from fleetcast_kit.errors import FailedPreconditionError


def lock_file(path: Path) -> int | None:
    """Returns the descriptor of the file at `path`, made if it is missing, locked until it is closed.

    None means that another process has it.

    Raises:
        FailedPreconditionError: the file system has no locks.
        OSError: the file cannot be opened.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return None
        raise FailedPreconditionError(
            f"the file system of {path} does not lock files ({error.strerror}), so two processes could spoil what is "
            "there: use one on a local disk",
            reason="NO_FILE_LOCKS",
        ) from error
    return descriptor
