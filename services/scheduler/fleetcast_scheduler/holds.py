"""Holds at the catalog: what is deployed or sent cannot be deleted while something open needs it, and no longer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress

from fleetcast_kit.errors import FleetcastError
from fleetcast_kit.values.jitter import jittered

_logger = logging.getLogger(__name__)

RECONCILE_SECONDS = 600.0
"""A call that timed out may have left a hold; it is found after this."""
_FIRST_PAUSE_SECONDS = 0.5
_LAST_PAUSE_SECONDS = 5.0
"""Between attempts while the catalog does not answer: from the first, doubled, to the last."""


class HoldKeeper:
    """Reconciles the catalog's holds with what is open: at once, after each change, and every RECONCILE_SECONDS.

    `what` names the holders for the log: sessions, or deployments.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._news = asyncio.Event()
        self.opening: set[str] = set()
        """Holders that may hold already and are not known as open yet: nobody may release what they hold."""

    def changed(self) -> None:
        """Something was opened or has ended."""
        self._news.set()

    @contextmanager
    def opens(self, holder: str) -> Iterator[None]:
        """Keeps what `holder` holds while it is being opened; if that fails, its holds are released soon."""
        self.opening.add(holder)
        try:
            yield
        except BaseException:
            self._news.set()
            raise
        finally:
            self.opening.discard(holder)

    async def run(self, reconcile: Callable[[], Awaitable[None]]) -> None:
        """Has `reconcile` make the catalog hold what is open and nothing else, until cancelled."""
        pause_seconds = _FIRST_PAUSE_SECONDS
        while True:
            self._news.clear()
            try:
                await reconcile()
            except FleetcastError as error:
                _logger.warning("cannot reconcile what %s hold, trying again: %s", self._what, error.message)
                await asyncio.sleep(jittered(pause_seconds, 0.8, 1.2))
                pause_seconds = min(pause_seconds * 2, _LAST_PAUSE_SECONDS)
                continue
            pause_seconds = _FIRST_PAUSE_SECONDS
            with suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), RECONCILE_SECONDS)
