"""The loop while its database cannot be written: nothing takes effect, callers are told, and then everything does."""

import asyncio
import errno
import os
from collections.abc import Awaitable, Callable

import pytest
from fleetcast_kit.errors import UnavailableError
from fleetcast_scheduler.loop.cycle import Cycle, Turn
from sqlalchemy.exc import OperationalError

TROUBLE_SECONDS = 0.05


class OneDecision(Cycle[str]):
    """Decides one thing, and stores it with `write`."""

    def __init__(self, write: Callable[[], Awaitable[None]]) -> None:
        super().__init__(trouble_seconds=TROUBLE_SECONDS)
        self._write: Callable[[], Awaitable[None]] | None = write
        self.done = asyncio.Event()

    def decide(self, now: float) -> Turn[str]:
        write, self._write = self._write, None
        return Turn(write, (), ["done"] if write else [], ())

    def act(self, event: str, now: float) -> None:
        self.done.set()

    def due_time(self) -> float | None:
        return None


def full_disk() -> OperationalError:
    return OperationalError("INSERT", {}, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))


async def test_while_the_disk_is_full_callers_hear_so_and_later_everything_takes_effect() -> None:
    is_full = True

    async def write() -> None:
        if is_full:
            raise full_disk()

    cycle = OneDecision(write)
    running = asyncio.create_task(cycle.run())
    with pytest.raises(UnavailableError, match=r"disk is full.*is not lost.*do not ask again"):
        await cycle.durable()
    assert not cycle.done.is_set()
    is_full = False
    await asyncio.wait_for(cycle.done.wait(), 30)
    await cycle.durable()
    running.cancel()


async def test_a_database_that_only_takes_long_is_waited_for() -> None:
    may_end = asyncio.Event()

    async def write() -> None:
        await may_end.wait()

    cycle = OneDecision(write)
    running = asyncio.create_task(cycle.run())
    waiting = asyncio.create_task(cycle.durable())
    answered, _ = await asyncio.wait({waiting}, timeout=4 * TROUBLE_SECONDS)
    assert not answered
    may_end.set()
    await waiting
    assert cycle.done.is_set()
    running.cancel()
