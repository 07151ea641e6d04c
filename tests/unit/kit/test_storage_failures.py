"""What a failure of a disk or a database means to a caller."""

import errno
import os
import sqlite3
from pathlib import Path

import pytest
from fleetcast_kit.errors import DataLossError, FailedPreconditionError, ResourceExhaustedError, UnavailableError
from fleetcast_kit.storage_failures import is_full, storage_failure
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_said_with_what_to_do(number: int) -> None:
    failure = storage_failure(OSError(number, os.strerror(number), "/data/store"))
    assert isinstance(failure, ResourceExhaustedError)
    assert "/data/store is full" in failure.message
    assert "delete images" in failure.message


@pytest.mark.parametrize(("number", "kind"), [(errno.EROFS, FailedPreconditionError), (errno.EIO, DataLossError)])
def test_other_failures_of_a_disk_are_told_apart(number: int, kind: type[Exception]) -> None:
    assert isinstance(storage_failure(OSError(number, os.strerror(number))), kind)


def test_what_is_no_failure_of_storage_stays_unexplained() -> None:
    assert storage_failure(ValueError("x")) is None
    assert storage_failure(FileNotFoundError(errno.ENOENT, "no such file")) is None
    assert storage_failure(ConnectionResetError(errno.ECONNRESET, "reset")) is None


def test_a_database_that_is_full_is_recognised_through_what_wraps_its_error(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'small.db'}")
    with engine.connect() as connection:
        connection.execute(text("PRAGMA max_page_count = 2"))
        connection.execute(text("CREATE TABLE one (x)"))
        with pytest.raises(DBAPIError) as full:
            connection.execute(text("CREATE TABLE two (x)"))
    engine.dispose()
    assert is_full(full.value)
    assert is_full(ExceptionGroup("several", [full.value]).exceptions[0])


def test_a_database_that_another_process_locks_is_said(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "x.db", isolation_level=None) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        waiting = sqlite3.connect(tmp_path / "x.db", timeout=0, isolation_level=None)
        with pytest.raises(sqlite3.OperationalError) as locked:
            waiting.execute("BEGIN IMMEDIATE")
        waiting.close()
        holder.execute("ROLLBACK")
    holder.close()
    assert isinstance(storage_failure(locked.value), UnavailableError)


def test_a_damaged_database_is_said(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_bytes(b"no database at all, and long enough" * 100)
    database = sqlite3.connect(tmp_path / "x.db")
    with pytest.raises(sqlite3.DatabaseError) as damaged:
        database.execute("SELECT * FROM sqlite_master")
    database.close()
    assert isinstance(storage_failure(damaged.value), DataLossError)


class PostgresError(Exception):
    """As the driver raises it."""

    def __init__(self, sqlstate: str) -> None:
        super().__init__(sqlstate)
        self.sqlstate = sqlstate


@pytest.mark.parametrize(
    ("sqlstate", "kind"), [("53100", ResourceExhaustedError), ("57P01", UnavailableError), ("08006", UnavailableError)]
)
def test_failures_of_postgresql_are_told_by_their_sqlstate(sqlstate: str, kind: type[Exception]) -> None:
    assert isinstance(storage_failure(PostgresError(sqlstate)), kind)
