"""Time limits that do not count the time a run is paused."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from fleetcast_agent.sequence.control import Control


@dataclass
class Timer:
    """Whether a time limit was reached."""

    expired: bool = False


@contextlib.contextmanager
def unpaused_timeout(work: asyncio.Future[None], seconds: float | None, control: Control) -> Iterator[Timer]:
    """Cancels `work` after so many seconds in which the run was not paused."""
    timer = Timer()
    if seconds is None:
        yield timer
        return
    loop = asyncio.get_running_loop()
    left, begun, handle = seconds, loop.time(), None

    def expire() -> None:
        timer.expired = True
        work.cancel()

    def paused(now_paused: bool) -> None:
        nonlocal left, begun, handle
        if now_paused and handle is not None:
            handle.cancel()
            handle, left = None, left - (loop.time() - begun)
        elif not now_paused and handle is None:
            begun, handle = loop.time(), loop.call_later(max(left, 0), expire)

    paused(control.paused)
    unwatch = control.watch(paused)
    try:
        yield timer
    finally:
        unwatch()
        if handle is not None:
            handle.cancel()
