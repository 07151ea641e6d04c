"""The blocking steps of one import, run on threads and stopped when the import is cancelled."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

_Result = TypeVar("_Result")


class BlockingSteps:
    """Runs one step at a time. A step that is running when the task is cancelled is told to stop, and waited for."""

    def __init__(self, executor: ThreadPoolExecutor, interrupt: Callable[[], None]) -> None:
        self._executor = executor
        self._interrupt = interrupt
        self.interrupted = threading.Event()
        """Set once the import is cancelled; long steps look at it."""

    async def run(self, step: Callable[[], _Result]) -> _Result:
        """Returns what `step` returns; it runs on a thread and has ended when this returns."""
        running = asyncio.get_running_loop().run_in_executor(self._executor, step)
        return await finish(running, self._stop)

    def _stop(self) -> None:
        self.interrupted.set()
        self._interrupt()


async def finish(work: Awaitable[_Result], on_cancel: Callable[[], None] = lambda: None) -> _Result:
    """Returns the result of `work`, which is not cancelled with the task: it is waited for, then the task ends."""
    running = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        on_cancel()
        while not running.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([running])
        _ = running.cancelled() or running.exception()
        raise
