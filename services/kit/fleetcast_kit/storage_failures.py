"""What a failure of a disk or a database means to a caller: one sentence instead of a traceback in the log."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator

from fleetcast_kit.errors import (
    DataLossError,
    FailedPreconditionError,
    FleetcastError,
    ResourceExhaustedError,
    UnavailableError,
)

_FULL = {errno.ENOSPC, errno.EDQUOT}
_POSTGRES_FULL = {"53100"}
_POSTGRES_AWAY = ("08", "57P")
"""Classes of SQLSTATE: connection exception, operator intervention (a shutdown)."""


def storage_failure(error: BaseException) -> FleetcastError | None:
    """Returns what `error`, or what caused it, says of a disk or a database; None if it says nothing of that."""
    for cause in _causes(error):
        if isinstance(cause, OSError) and cause.errno is not None:
            found = _of_system(cause)
        elif isinstance(cause, sqlite3.Error):
            found = _of_sqlite(cause)
        else:
            found = _of_postgres(cause)
        if found is not None:
            return found
    return None


def is_full(error: BaseException) -> bool:
    """Returns whether `error` says that a disk or a quota is full."""
    return isinstance(storage_failure(error), ResourceExhaustedError)


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        cause = waiting.pop()
        if cause is not None and id(cause) not in seen:
            seen.add(id(cause))
            yield cause
            waiting += [cause.__context__, cause.__cause__, getattr(cause, "orig", None)]


def _of_system(error: OSError) -> FleetcastError | None:
    where = f" of {error.filename}" if error.filename else ""
    if error.errno in _FULL:
        return _full(f"the server's disk{where} is full ({os.strerror(error.errno or 0)})")
    if error.errno == errno.EROFS:
        return FailedPreconditionError(
            f"the server's disk{where} can only be read: after a fault the system mounts it so; its log says more",
            reason="READ_ONLY",
        )
    if error.errno == errno.EIO:
        return DataLossError(f"the server's disk{where} fails: the system's log says more", reason="DISK_BROKEN")
    return None


def _of_sqlite(error: sqlite3.Error) -> FleetcastError | None:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return _full("the disk of the server's database is full")
    if code == sqlite3.SQLITE_BUSY:
        return UnavailableError("another process keeps the server's database locked", reason="DATABASE_BUSY")
    if code == sqlite3.SQLITE_READONLY:
        return FailedPreconditionError("the server's database can only be read", reason="READ_ONLY")
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return DataLossError(
            "the server's database is damaged: stop the server and restore the data directory from a backup",
            reason="DATABASE_DAMAGED",
        )
    if code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN):
        return UnavailableError(
            "the server's database cannot be read or written: look at its disk, and whether the file is still there",
            reason="DATABASE_UNAVAILABLE",
        )
    return None


def _of_postgres(error: BaseException) -> FleetcastError | None:
    state = str(getattr(error, "sqlstate", None) or "")
    if state in _POSTGRES_FULL:
        return _full("the disk of the server's PostgreSQL is full")
    if state.startswith(_POSTGRES_AWAY):
        return UnavailableError("the server's PostgreSQL does not answer", reason="DATABASE_UNAVAILABLE")
    return None


def _full(what: str) -> ResourceExhaustedError:
    return ResourceExhaustedError(
        f"{what}: delete images that are no longer needed, or give it more room", reason="DISK_FULL"
    )
