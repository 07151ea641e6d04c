"""Databases: transactions, migrations, refusals, spans; on SQLite, the embedded default."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from fleetcast_kit.database import Database, open_database
from fleetcast_kit.errors import FailedPreconditionError, InvalidArgumentError, UnavailableError
from fleetcast_kit.process.telemetry import tracer
from sqlalchemy import CursorResult, text
from sqlalchemy.exc import IntegrityError
from sqlmodel.ext.asyncio.session import AsyncSession

from tests.support.spans import recorded_spans

MIGRATIONS = "fleetcast_scheduler.migrations"


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with open_database(f"sqlite:///{tmp_path / 'test.db'}") as opened:
        async with opened.session() as session:
            await sql(session, "CREATE TABLE entry (name TEXT PRIMARY KEY, number INTEGER)")
        yield opened


async def sql(session: AsyncSession, statement: str, values: dict[str, object] | None = None) -> CursorResult[Any]:
    return await (await session.connection()).execute(text(statement), values)


async def count(database: Database) -> int:
    async with database.session(reads_only=True) as session:
        return int((await sql(session, "SELECT count(*) FROM entry")).scalar_one())


async def test_a_session_is_one_transaction(database: Database) -> None:
    async def fail() -> None:
        async with database.session() as session:
            await sql(session, "INSERT INTO entry VALUES ('a', 1)")
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError):
        await fail()
    assert await count(database) == 0
    async with database.session() as session:
        await sql(session, "INSERT INTO entry VALUES ('a', 1)")
    assert await count(database) == 1


async def test_a_reader_sees_one_state_and_waits_for_no_writer(database: Database) -> None:
    async with database.session() as writer:
        await sql(writer, "INSERT INTO entry VALUES ('a', 1)")
        async with database.session(reads_only=True) as reader:
            assert (await sql(reader, "SELECT count(*) FROM entry")).scalar_one() == 0
            await writer.commit()
            assert (await sql(reader, "SELECT count(*) FROM entry")).scalar_one() == 0
    assert await count(database) == 1


async def test_what_a_session_read_still_holds_when_it_writes(database: Database) -> None:
    async with database.session() as session:
        await sql(session, "INSERT INTO entry VALUES ('a', 0)")

    async def increase() -> None:
        async with database.session() as session:
            number = (await sql(session, "SELECT number FROM entry")).scalar_one()
            await asyncio.sleep(0)
            await sql(session, "UPDATE entry SET number = :number", {"number": number + 1})

    await asyncio.gather(*(increase() for _ in range(20)))
    async with database.session(reads_only=True) as session:
        assert (await sql(session, "SELECT number FROM entry")).scalar_one() == 20


async def test_writers_have_their_turns_in_the_order_in_which_they_came(database: Database) -> None:
    turns: list[int] = []

    async def write(number: int) -> None:
        async with database.session() as session:
            await sql(session, "INSERT INTO entry VALUES (:name, :number)", {"name": str(number), "number": number})
            turns.append(number)

    await asyncio.gather(*(write(number) for number in range(20)))
    assert turns == list(range(20))


async def test_a_transaction_cancelled_in_a_statement_gives_the_right_to_write_back(database: Database) -> None:
    loop = asyncio.get_running_loop()
    is_cancelled = threading.Event()

    async def cancelled() -> None:
        async with database.session() as session:
            connection = await session.connection()
            driver = (await connection.get_raw_connection()).driver_connection
            assert driver is not None
            await driver.create_function("cancel", 0, cancel)
            await connection.execute(text("INSERT INTO entry VALUES (:name, cancel())"), [{"name": "a"}, {"name": "b"}])

    def cancel() -> None:
        loop.call_soon_threadsafe(task.cancel)
        loop.call_soon_threadsafe(is_cancelled.set)
        is_cancelled.wait(10)  # so the statement still runs when the task is cancelled

    task = asyncio.create_task(cancelled())
    # What was raised refers to the statement until the collector comes by.
    with pytest.raises(asyncio.CancelledError) as kept:
        await task
    async with (
        open_database(f"sqlite:///{database.engine.url.database}?timeout=5") as other,
        other.session() as session,
    ):
        await sql(session, "INSERT INTO entry VALUES ('b', 2)")
    assert await count(database) == 1
    assert kept.value.__traceback__


async def test_references_are_enforced(database: Database) -> None:
    async def insert_orphan() -> None:
        async with database.session() as session:
            await sql(session, "CREATE TABLE child (entry TEXT REFERENCES entry)")
            await sql(session, "INSERT INTO child VALUES ('none')")

    with pytest.raises(IntegrityError):
        await insert_orphan()


async def test_the_database_survives_a_crash_in_wal_mode_with_full_sync(database: Database) -> None:
    async with database.session(reads_only=True) as session:
        assert (await sql(session, "PRAGMA journal_mode")).scalar_one() == "wal"
        assert (await sql(session, "PRAGMA synchronous")).scalar_one() == 2


async def test_each_of_two_databases_leaves_spans(tmp_path: Path) -> None:
    exporter = recorded_spans()
    for name in ("one", "two"):
        async with open_database(f"sqlite:///{tmp_path / name}.db") as database:
            exporter.clear()
            with tracer(__name__).start_as_current_span("work") as work:
                async with database.session(reads_only=True) as session:
                    await sql(session, "SELECT 42")
            spans = [
                span for span in exporter.get_finished_spans() if span.attributes and "db.system" in span.attributes
            ]
            assert any("SELECT 42" in str((span.attributes or {})["db.statement"]) for span in spans)
            assert {span.context.trace_id for span in spans} == {work.get_span_context().trace_id}


async def test_an_upgrade_is_repeatable_and_runs_once_when_two_start(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'test.db'}"
    async with open_database(url) as one, open_database(url) as two:
        await asyncio.gather(one.upgrade(MIGRATIONS), two.upgrade(MIGRATIONS))
        await one.upgrade(MIGRATIONS)
        async with one.session(reads_only=True) as session:
            rows = (await sql(session, "SELECT version_num FROM alembic_version")).all()
        assert len(rows) == 1


async def test_upgrades_of_different_databases_at_once_do_not_mix(tmp_path: Path) -> None:
    async with (
        open_database(f"sqlite:///{tmp_path / 'catalog.db'}") as catalog,
        open_database(f"sqlite:///{tmp_path / 'scheduler.db'}") as scheduler,
    ):
        await asyncio.gather(catalog.upgrade("fleetcast_catalog.migrations"), scheduler.upgrade(MIGRATIONS))
        for database, expected in ((catalog, "image"), (scheduler, "enrolment")):
            async with database.session(reads_only=True) as session:
                tables = set((await sql(session, "SELECT name FROM sqlite_master WHERE type = 'table'")).scalars())
            assert ({"image", "enrolment"} & tables) == {expected}


async def test_a_database_of_a_newer_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "test.db"
    async with open_database(f"sqlite:///{file}") as database:
        await database.upgrade(MIGRATIONS)
        async with database.session() as session:
            await sql(session, "UPDATE alembic_version SET version_num = '9999'")
        with pytest.raises(FailedPreconditionError, match=r"is of a newer version of fleetcast \(revision 9999\)") as e:
            await database.upgrade(MIGRATIONS)
        assert e.value.reason == "NEWER_DATABASE"
        async with database.session(reads_only=True) as session:
            assert (await sql(session, "SELECT version_num FROM alembic_version")).scalar_one() == "9999"


async def test_a_failed_upgrade_leaves_nothing_behind(tmp_path: Path) -> None:
    file = tmp_path / "test.db"
    async with open_database(f"sqlite:///{file}") as database:
        async with database.session() as session:
            # The last table of the last revision is in the way.
            await sql(session, "CREATE TABLE enrolment (x TEXT)")
        with pytest.raises(UnavailableError, match="enrolment already exists"):
            await database.upgrade(MIGRATIONS)
        async with database.session(reads_only=True) as session:
            tables = (await sql(session, "SELECT name FROM sqlite_master WHERE type = 'table'")).scalars()
            assert set(tables) == {"enrolment"}


async def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    file = tmp_path / "test.db"
    file.write_bytes(b"not a database, but long enough to be taken for one " * 100)
    async with open_database(f"sqlite:///{file}") as database:
        with pytest.raises(UnavailableError, match=r"test\.db cannot be opened or upgraded: file is not a database"):
            await database.upgrade(MIGRATIONS)
    async with open_database(f"sqlite:///{tmp_path / 'missing' / 'test.db'}") as database:
        with pytest.raises(UnavailableError, match="No such file or directory"):
            await database.upgrade(MIGRATIONS)


async def test_a_locked_database_fails_in_the_end_with_its_name(tmp_path: Path) -> None:
    file = tmp_path / "test.db"
    holder = sqlite3.connect(file, isolation_level=None)
    holder.execute("PRAGMA journal_mode=WAL")
    holder.execute("BEGIN IMMEDIATE")
    async with open_database(f"sqlite:///{file}?timeout=0.05") as database:
        with pytest.raises(UnavailableError, match="database is locked"):
            await database.upgrade(MIGRATIONS)
    holder.close()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "cannot be read"),
        ("/var/lib/x.db", "cannot be read"),
        ("mysql://localhost/x", "mysql is not a supported database"),
    ],
)
def test_urls_that_are_none_are_refused(url: str, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        open_database(url)


def test_a_password_is_not_shown() -> None:
    name = open_database("postgresql://fleetcast:hunter2@db.lan/fleetcast").name
    assert "hunter2" not in name
    assert "db.lan/fleetcast" in name
