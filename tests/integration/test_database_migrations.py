"""The tables of catalog and scheduler: what the migrations make is what the programs expect, on both databases."""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
import sqlalchemy
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory
from fleetcast_kit.database import Database, open_database
from fleetcast_kit.errors import FailedPreconditionError
from sqlalchemy import Connection, MetaData, text
from sqlmodel import SQLModel

TABLES = {
    "fleetcast_catalog.migrations": (
        "fleetcast_catalog.images.tables",
        "fleetcast_catalog.task_sequences.tables",
        "fleetcast_catalog.deletions",
    ),
    "fleetcast_scheduler.migrations": tuple(
        f"fleetcast_scheduler.{noun}.tables"
        for noun in ("audit", "boot", "deployments", "enrolment", "machines", "sessions")
    ),
}


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with open_database(database_url) as opened:
        yield opened


def tables_of(package: str) -> MetaData:
    """Returns the tables that the modules of a service declare."""
    found = MetaData()
    for module in map(importlib.import_module, TABLES[package]):
        for declared in vars(module).values():
            table = getattr(declared, "__table__", None)
            if isinstance(declared, type) and issubclass(declared, SQLModel) and table is not None:
                table.to_metadata(found)
    return found


def scripts_of(package: str) -> ScriptDirectory:
    config = Config()
    parent, _, folder = package.rpartition(".")
    config.set_main_option("script_location", f"{parent}:{folder}")
    config.set_main_option("path_separator", "os")
    return ScriptDirectory.from_config(config)


@pytest.mark.parametrize("package", TABLES)
async def test_the_migrations_make_the_tables_that_the_program_uses(database: Database, package: str) -> None:
    await database.upgrade(package)
    expected = tables_of(package)

    def differences(connection: Connection) -> list[Any]:
        context = MigrationContext.configure(
            connection,
            opts={"include_name": lambda name, kind, parent: kind != "table" or name in expected.tables},
        )
        return list(compare_metadata(context, expected))

    async with database.engine.connect() as connection:
        assert await connection.run_sync(differences) == []


async def test_each_migration_of_the_scheduler_is_taken_back_and_made_again(database: Database) -> None:
    package = "fleetcast_scheduler.migrations"
    await database.upgrade(package)
    scripts = scripts_of(package)

    def there_and_back(connection: Connection) -> None:
        context = MigrationContext.configure(connection, opts={"render_as_batch": True})
        with Operations.context(context):
            for script in scripts.walk_revisions():
                script.module.downgrade()
        names = set(sqlalchemy.inspect(connection).get_table_names())
        assert not names & set(tables_of(package).tables)
        with Operations.context(context):
            for script in reversed(list(scripts.walk_revisions())):
                script.module.upgrade()
        assert set(tables_of(package).tables) <= set(sqlalchemy.inspect(connection).get_table_names())

    async with database.engine.begin() as connection:
        await connection.run_sync(there_and_back)


async def test_both_services_may_share_one_postgresql(database: Database) -> None:
    if database.engine.dialect.name == "sqlite":
        pytest.skip("each service has a file of its own")
    for _ in range(2):
        for package in TABLES:
            await database.upgrade(package)


@pytest.mark.parametrize("package", TABLES)
async def test_a_database_of_a_newer_program_is_refused(database: Database, package: str) -> None:
    await database.upgrade(package)
    async with database.engine.begin() as connection:
        table = await connection.run_sync(
            lambda sync: next(name for name in sqlalchemy.inspect(sync).get_table_names() if "alembic_version" in name)
        )
        await connection.execute(text(f"UPDATE {table} SET version_num = '9999'"))  # noqa: S608 - a name of ours
    with pytest.raises(FailedPreconditionError, match="newer version of fleetcast"):
        await database.upgrade(package)
