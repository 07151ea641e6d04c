"""One process alone works on a database; one that is gone is not made anew; nobody else may read it."""

import asyncio
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fleetcast_kit.database import Database, open_database
from fleetcast_kit.errors import FailedPreconditionError
from sqlalchemy import text

MIGRATIONS = "fleetcast_scheduler.migrations"
WAY_OUT = "or, to begin without it, say so"


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with open_database(database_url) as opened:
        yield opened


def ignored(sentence: str) -> None:
    """Nobody takes it in these tests."""


async def test_a_second_process_on_a_database_is_refused_in_one_sentence_until_the_first_ends(
    database: Database, database_url: str
) -> None:
    await database.own("fleetcast-scheduler", ignored)
    async with open_database(database_url) as second:
        with pytest.raises(FailedPreconditionError, match="another fleetcast-scheduler works on the database"):
            await second.own("fleetcast-scheduler", ignored)
    await database.close()
    async with open_database(database_url) as third:
        await third.own("fleetcast-scheduler", ignored)


async def test_catalog_and_scheduler_share_a_postgresql(database: Database, database_url: str) -> None:
    if database_url.startswith("sqlite"):
        pytest.skip("each has a file of its own")
    await database.own("fleetcast-scheduler", ignored)
    async with open_database(database_url) as other:
        await other.own("fleetcast-catalog", ignored)


async def break_connections(database_url: str) -> None:
    """Ends what PostgreSQL has connected, as its restart does."""
    async with open_database(database_url) as killer, killer.session() as session:
        others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
        await (await session.connection()).execute(text(f"{others} AND datname = current_database()"))


async def test_a_process_that_lost_its_connection_takes_the_database_again(
    database: Database, database_url: str
) -> None:
    if database_url.startswith("sqlite"):
        pytest.skip("the lock of a file does not get lost")
    await database.own("fleetcast-scheduler", ignored)
    await break_connections(database_url)
    async with asyncio.timeout(60):
        while True:
            await asyncio.sleep(0.2)
            async with open_database(database_url) as second:
                try:
                    await second.own("fleetcast-scheduler", ignored)
                except FailedPreconditionError:
                    return


async def test_a_process_whose_database_another_took_meanwhile_is_told(database: Database, database_url: str) -> None:
    if database_url.startswith("sqlite"):
        pytest.skip("the lock of a file does not get lost")
    told: asyncio.Queue[str] = asyncio.Queue()
    await database.own("fleetcast-scheduler", told.put_nowait)
    await break_connections(database_url)
    async with open_database(database_url) as faster:
        await faster.own("fleetcast-scheduler", ignored)
        assert "another fleetcast-scheduler works" in await asyncio.wait_for(told.get(), 60)


async def test_a_database_that_is_gone_is_refused_and_not_made(tmp_path: Path, database: Database) -> None:
    with pytest.raises(FailedPreconditionError, match=f"is gone or empty.*restore it from a backup; {WAY_OUT}"):
        await database.upgrade(MIGRATIONS, must_exist=WAY_OUT)
    assert not (tmp_path / "test.db").exists()
    await database.upgrade(MIGRATIONS)
    await database.upgrade(MIGRATIONS, must_exist=WAY_OUT)


async def test_nobody_else_may_read_a_database_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        file = tmp_path / "test.db"
        async with open_database(f"sqlite:///{file}") as database:
            await database.upgrade(MIGRATIONS)
            async with database.session() as session:
                await (await session.connection()).execute(text("CREATE TABLE one (x)"))
            modes = {name: stat.S_IMODE(os.stat(file.with_name(name)).st_mode) for name in os.listdir(tmp_path)}
            assert modes == {"test.db": 0o600, "test.db-wal": 0o600, "test.db-shm": 0o600}
        file.chmod(0o644)
        async with open_database(f"sqlite:///{file}") as database:
            await database.upgrade(MIGRATIONS)
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    finally:
        os.umask(before)
