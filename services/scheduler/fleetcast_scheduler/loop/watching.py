"""The loop behind every watch: shows what a resource is now, then each change, for as long as somebody reads."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, TypeVar

from fleetcast_scheduler.loop.cycle import Cycle

_View = TypeVar("_View")

WATCH_SECONDS = 0.25
"""Changes within this are shown together: far below the second that people wait, far above one message's cost."""
SLOW_SECONDS = 5.0
"""A reader that takes longer for one message is told that it lost changes."""


class Watch:
    """One reader's watch of one resource.

    Args:
        cycle: the loop that decides about the resource.
        name: the resource.
        lost: whether the reader has already lost changes, when it begins.
    """

    def __init__(self, cycle: Cycle[Any], name: str, *, lost: bool = False) -> None:
        self.lost = lost
        """Whether the reader missed changes since the view before."""
        self._cycle = cycle
        self._name = name

    async def views(
        self, look: Callable[[], Awaitable[_View | None]], over: Callable[[], bool] = lambda: False
    ) -> AsyncGenerator[_View, None]:
        """Yields what `look` returns, now and after each change, unless that is None; ends once `over` says so."""
        with self._cycle.pulse.watched(self._name) as changed:
            while True:
                changed.clear()
                await self._cycle.decided()
                view = await look()
                if view is not None:
                    said_at = time.monotonic()
                    yield view
                    self.lost = time.monotonic() - said_at > SLOW_SECONDS
                if over():
                    return
                await changed.wait()
                await asyncio.sleep(WATCH_SECONDS)


class RevisionWatch(Watch):
    """A watch of a resource with a revision, by a reader who may know an earlier one.

    `after_revision` is the last revision that the reader has seen; one that is ahead of `revision` is of another life
    of the scheduler, so the reader is shown everything and told that it lost changes.
    """

    def __init__(self, cycle: Cycle[Any], name: str, *, revision: int, after_revision: int) -> None:
        super().__init__(cycle, name, lost=after_revision > revision)
        self.seen = 0 if self.lost else after_revision
        """The revision that the reader has seen."""
        self._shown = False

    def take(self, revision: int) -> int | None:
        """Returns the revision after which there is something to show; None if the reader has seen all."""
        if self._shown and revision <= self.seen:
            return None
        seen, self.seen, self._shown = self.seen, revision, True
        return seen
