"""The blocking work of one import: it runs on threads, and stops when the import is cancelled."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

_Result = TypeVar("_Result")


class BlockingWork:
    """Runs one function at a time. One that runs when the task is cancelled is told to stop, and waited for."""

    def __init__(self, executor: ThreadPoolExecutor, interrupt: Callable[[], None]) -> None:
        self._executor = executor
        self._interrupt = interrupt
        self.interrupted = threading.Event()
        """Set once the import is cancelled; long work looks at it."""

    async def run(self, work: Callable[[], _Result]) -> _Result:
        """Returns what `work` returns. It runs on a thread, and has ended when this returns."""
        running = asyncio.get_running_loop().run_in_executor(self._executor, work)
        return await finish(running, self._stop)

    def _stop(self) -> None:
        self.interrupted.set()
        self._interrupt()


async def finish(work: Awaitable[_Result], on_cancel: Callable[[], None] = lambda: None) -> _Result:
    """Returns the result of `work`. If the task is cancelled, `work` still ends first, and the task after it."""
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
