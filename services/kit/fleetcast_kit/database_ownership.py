"""One process alone has a database: a lock on a file beside it, or an advisory lock of PostgreSQL."""

from __future__ import annotations

import asyncio
import logging
import os
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from fleetcast_kit.errors import FailedPreconditionError
from fleetcast_kit.locks import lock_file

_logger = logging.getLogger(__name__)

LOOK_SECONDS = 2.0
"""How often it is looked whether PostgreSQL still knows who has the database: a broken connection forgets it."""

LET_GO_SECONDS = 3.0
"""How long PostgreSQL may take to notice that the process before was killed: some milliseconds on the same host."""

_TAKE = text("SELECT pg_try_advisory_lock(:space, :key)")
_SPACE = zlib.crc32(b"fleetcast") - 2**31
"""First half of the lock's number, so that no other program's lock is meant."""


class Ownership(Protocol):
    """That a process alone has a database."""

    async def take(self, name: str) -> None:
        """Takes it. `name` is the database's, for people.

        Raises:
            FailedPreconditionError: another process has it.
        """

    async def release(self) -> None:
        """Lets another process take it."""


class FileOwnership:
    """By a lock on a file beside a database of SQLite; the system lets go of it when the process ends."""

    def __init__(self, database: Path, program: str) -> None:
        self._file = database.with_name(f"{database.name}.lock")
        self._program = program
        self._descriptor = -1

    async def take(self, name: str) -> None:
        """See `Ownership.take`."""
        descriptor = lock_file(self._file)
        if descriptor is None:
            raise FailedPreconditionError(_taken(name, self._program), reason="DATABASE_IN_USE")
        self._descriptor = descriptor

    async def release(self) -> None:
        """See `Ownership.release`."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class ServerOwnership:
    """By an advisory lock of PostgreSQL, which lasts as long as one connection."""

    def __init__(self, engine: AsyncEngine, program: str, lost: Callable[[str], None]) -> None:
        self._engine = engine
        self._program = program
        self._lost = lost
        self._connection: AsyncConnection | None = None
        self._watch: asyncio.Task[None] | None = None

    async def take(self, name: str) -> None:
        """See `Ownership.take`."""
        deadline = time.monotonic() + LET_GO_SECONDS
        while not await self._try():
            if time.monotonic() > deadline:
                raise FailedPreconditionError(_taken(name, self._program), reason="DATABASE_IN_USE")
            await asyncio.sleep(0.2)
        self._watch = asyncio.create_task(self._look(name), name="ownership of the database")

    async def release(self) -> None:
        """See `Ownership.release`."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        await self._let_go()

    async def _try(self) -> bool:
        connection = await self._engine.connect()
        self._connection = await connection.execution_options(isolation_level="AUTOCOMMIT")
        numbers = {"space": _SPACE, "key": zlib.crc32(self._program.encode()) - 2**31}
        if await self._connection.scalar(_TAKE, numbers):
            return True
        await self._let_go()
        return False

    async def _let_go(self) -> None:
        if self._connection is not None:
            with suppress(DBAPIError, OSError):
                await self._connection.invalidate()  # not back into the pool: the lock is the connection's
                await self._connection.close()
            self._connection = None

    async def _look(self, name: str) -> None:
        """Takes the lock anew whenever its connection broke; gives up if another process was faster."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                if self._connection is not None:
                    await self._connection.scalar(text("SELECT 1"))
                    continue
                if await self._try():
                    continue
                self._lost(_taken(name, self._program))
                return
            except (DBAPIError, OSError) as error:
                _logger.warning("the connection that keeps %s for this process broke: %s", name, error)
                await self._let_go()


def end_process(sentence: str) -> None:
    """Ends this process at once, as a kill would, with the exit code 75 (EX_TEMPFAIL): another one has its database.

    Nothing that is stored is lost by it, and whatever it would still write could spoil what the other one does.
    """
    _logger.critical("%s; this process ends", sentence)
    os._exit(75)


def _taken(name: str, program: str) -> str:
    return f"another {program} works on the database {name}: stop that one, or give this one a database of its own"
