"""Long work in threads that can be paused and broken off: done in slices, between which the event loop has its say."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator

from fleetcast_agent.sequence.control import Control

SLICE_SECONDS = 0.2
"""How long a pause or a cancellation waits at most, if the work yields often."""


async def in_slices(control: Control, work: Iterable[object], *, slice_seconds: float = SLICE_SECONDS) -> None:
    """Does what the iterator does from one item to the next, in a thread, and waits between slices while paused.

    When this is cancelled, the work stops at its next item and nothing of it goes on in the background.
    """
    items = iter(work)
    while True:
        await control.go()
        part = asyncio.ensure_future(asyncio.to_thread(_slice, items, slice_seconds))
        try:
            ended = await asyncio.shield(part)
        except asyncio.CancelledError:
            await asyncio.wait([part])
            raise
        if ended:
            return


def _slice(items: Iterator[object], seconds: float) -> bool:
    """Returns whether the work has ended."""
    until = time.monotonic() + seconds
    return all(time.monotonic() < until for _ in items)
