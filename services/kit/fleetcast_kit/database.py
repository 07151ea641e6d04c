"""The database of a service: SQLite in WAL mode or PostgreSQL, by URL; migrated at start, traced, asynchronous."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, Self

import sqlalchemy
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from opentelemetry.instrumentation.sqlalchemy.engine import EngineTracer
from opentelemetry.semconv.metrics import MetricInstruments
from sqlalchemy import Connection, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool
from sqlmodel.ext.asyncio.session import AsyncSession

from fleetcast_kit.database_ownership import FileOwnership, Ownership, ServerOwnership
from fleetcast_kit.errors import DataLossError, FailedPreconditionError, InvalidArgumentError, UnavailableError
from fleetcast_kit.files import make_private
from fleetcast_kit.process import telemetry
from fleetcast_kit.storage_failures import storage_failure

BUSY_SECONDS = 10
"""How long a transaction waits for its turn to write before it fails (SQLite has one writer)."""

_DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg", "postgres": "postgresql+asyncpg"}
_READS_ONLY = "fleetcast_reads_only"
_upgrading = threading.Lock()


class Database:
    """Sessions on one database. Close it: its threads keep the process alive."""

    def __init__(self, url: URL) -> None:
        self._url = url
        self.name = url.render_as_string(hide_password=True)
        self._engine = _engine(url)
        self._file = url.database if url.get_backend_name() == "sqlite" else ""
        self._ownership: Ownership | None = None
        # Those who wait for the one writer of SQLite look again after pauses that grow to 100 ms, in no order.
        self._turn = asyncio.Lock() if url.get_backend_name() == "sqlite" else None
        # The instrumentor of the library traces the first engine of a process only.
        connections = telemetry.meter(__name__).create_up_down_counter(MetricInstruments.DB_CLIENT_CONNECTIONS_USAGE)
        EngineTracer(telemetry.tracer(__name__), self._engine.sync_engine, connections)  # type: ignore[no-untyped-call]

    @property
    def engine(self) -> AsyncEngine:
        """The engine, for what a session cannot do."""
        return self._engine

    @asynccontextmanager
    async def session(self, *, reads_only: bool = False) -> AsyncIterator[AsyncSession]:
        """Yields a session in one transaction: committed at the end, rolled back by an exception.

        On SQLite it owns the right to write from the start, so that what it read still holds when it writes; with
        `reads_only` it leaves that to others and sees one state of the database throughout. Objects stay usable after
        the end.
        """
        turn = nullcontext() if reads_only or self._turn is None else self._turn
        async with turn, AsyncSession(self._engine, expire_on_commit=False) as session:
            await session.connection(execution_options={_READS_ONLY: reads_only})
            yield session
            await session.commit()

    async def upgrade(self, migrations_package: str, *, must_exist: str = "") -> None:
        """Brings the tables to the newest revision in `migrations_package`, such as `fleetcast_catalog.migrations`.

        Args:
            migrations_package: where the revisions are.
            must_exist: how to begin without what was stored, for the error; if it is not empty, a database without
                tables is refused and not made.

        Raises:
            FailedPreconditionError: a newer version of the program has been here, or the database is gone.
            UnavailableError: the database cannot be opened or reached.
        """
        await asyncio.to_thread(self._upgrade, migrations_package, must_exist)

    async def own(self, program: str, lost: Callable[[str], None]) -> None:
        """Takes the database for this process alone, among those of the same `program`, until `close`.

        `lost` is called with one sentence if another process has it later: PostgreSQL forgets who had it when the
        connection breaks.

        Raises:
            FailedPreconditionError: another process has it.
            UnavailableError: the database cannot be reached.
        """
        assert self._ownership is None  # noqa: S101 - once
        if self._file:
            self._ownership = FileOwnership(Path(self._file), program)
        else:
            self._ownership = ServerOwnership(self._engine, program, lost)
        try:
            await self._ownership.take(self.name)
        except (DBAPIError, OSError) as error:
            cause = getattr(error, "orig", None) or error
            raise UnavailableError(f"the database {self.name} cannot be reached: {cause}") from error

    async def close(self) -> None:
        """Ends all connections."""
        if self._ownership is not None:
            await self._ownership.release()
        await self._engine.dispose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _upgrade(self, migrations_package: str, must_exist: str) -> None:
        # Alembic works through globals of the process, so upgrades take turns, each in a thread with a loop of its own.
        with _upgrading:
            try:
                if must_exist and self._file and not Path(self._file).exists():
                    raise self._gone(must_exist)
                self._open_file()
                asyncio.run(self._upgrade_alone(migrations_package, must_exist))
            except (DBAPIError, sqlite3.Error, OSError) as error:
                cause = getattr(error, "orig", None) or getattr(error, "strerror", None) or error
                advice = "; restore it from a backup" if isinstance(storage_failure(error), DataLossError) else ""
                raise UnavailableError(
                    f"the database {self.name} cannot be opened or upgraded: {cause}{advice}"
                ) from error

    def _open_file(self) -> None:
        """Makes sure that the file can be opened: where it cannot, the asynchronous driver forgets a thread.

        Nobody but its owner may read it, and what SQLite keeps beside it: secrets of deployments are in there.
        """
        if self._file:
            for beside in ("", "-wal", "-shm"):
                path = Path(self._file + beside)
                if not beside or path.exists():
                    make_private(path)
            sqlite3.connect(self._file).close()

    def _gone(self, way_out: str) -> FailedPreconditionError:
        return FailedPreconditionError(
            f"the database {self.name} is gone or empty, and this data directory had one: restore it from a backup; "
            f"{way_out}",
            reason="DATABASE_GONE",
        )

    async def _upgrade_alone(self, migrations_package: str, must_exist: str) -> None:
        engine = _engine(self._url, for_migrations=True)
        try:
            async with engine.begin() as connection:
                if must_exist and not await connection.run_sync(_has_tables, migrations_package):
                    raise self._gone(must_exist)
                await connection.run_sync(self._migrate, migrations_package)
        finally:
            await engine.dispose()

    def _migrate(self, connection: Connection, migrations_package: str) -> None:
        config = Config()
        package, _, folder = migrations_package.rpartition(".")
        config.set_main_option("script_location", f"{package}:{folder}")
        config.set_main_option("path_separator", "os")
        scripts = ScriptDirectory.from_config(config)

        def steps(revision: Any, _: object) -> Any:
            try:
                return scripts._upgrade_revs("head", revision)
            except CommandError as error:
                raise FailedPreconditionError(
                    f"the database {self.name} is of a newer version of fleetcast (revision {', '.join(revision)}): "
                    "update this program, or restore the data directory from before the update",
                    reason="NEWER_DATABASE",
                ) from error

        with EnvironmentContext(config, scripts, fn=steps, destination_rev="head") as environment:
            environment.configure(
                connection=connection, render_as_batch=True, version_table=_version_table(connection, package)
            )
            environment.run_migrations()


def _has_tables(connection: Connection, migrations_package: str) -> bool:
    package = migrations_package.rpartition(".")[0]
    return sqlalchemy.inspect(connection).has_table(_version_table(connection, package))


def _version_table(connection: Connection, package: str) -> str:
    """Returns where Alembic notes the revision: services share a PostgreSQL, and each has its own file of SQLite."""
    return "alembic_version" if connection.dialect.name == "sqlite" else f"{package}_alembic_version"


def open_database(url: str) -> Database:
    """Returns the database at `url`: `sqlite:///PATH` or `postgresql://USER:PASSWORD@HOST/NAME`. Connects on first use.

    Raises:
        InvalidArgumentError: it is neither.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise InvalidArgumentError(
            "the database URL cannot be read: write sqlite:///PATH or postgresql://USER:PASSWORD@HOST/NAME",
            field="database_url",
        ) from error
    driver = _DRIVERS.get(parsed.get_backend_name())
    if driver is None:
        raise InvalidArgumentError(
            f"{parsed.get_backend_name()} is not a supported database: use sqlite or postgresql", field="database_url"
        )
    return Database(parsed.set(drivername=driver))


def _engine(url: URL, *, for_migrations: bool = False) -> AsyncEngine:
    options: dict[str, Any] = {"poolclass": NullPool} if for_migrations else {}
    if url.get_backend_name() != "sqlite":
        return create_async_engine(url, pool_pre_ping=not for_migrations, **options)
    # SQLite's own `?timeout=SECONDS` in the URL counts before ours.
    connect_args = {"factory": _Connection} | ({} if "timeout" in url.query else {"timeout": BUSY_SECONDS})
    engine = create_async_engine(url, connect_args=connect_args, **options)
    # Alembic rebuilds tables under other names on SQLite; enforced references would delete what refers to them.
    event.listen(engine.sync_engine, "connect", _connected(foreign_keys=not for_migrations))
    event.listen(engine.sync_engine, "begin", _begin)
    return engine


class _Connection(sqlite3.Connection):
    """Rolls back before it closes.

    SQLite keeps a closed connection, and with it the right to write, while a statement of it exists: one that was
    cancelled does until the collector has freed the traceback that refers to it.
    """

    def close(self) -> None:
        with suppress(sqlite3.Error):
            self.rollback()
        super().close()


def _connected(*, foreign_keys: bool) -> Callable[[Any, object], None]:
    def prepare(connection: Any, _: object) -> None:
        # The driver would begin transactions only at the first write; `_begin` does it, so that reads are inside too.
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")  # a decision that was answered survives a power cut
        cursor.execute(f"PRAGMA foreign_keys={'ON' if foreign_keys else 'OFF'}")
        cursor.close()

    return prepare


def _begin(connection: sqlalchemy.Connection) -> None:
    reads_only = connection.get_execution_options().get(_READS_ONLY, False)
    connection.exec_driver_sql("BEGIN" if reads_only else "BEGIN IMMEDIATE")
