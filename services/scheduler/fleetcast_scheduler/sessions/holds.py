"""Keeps the catalog's holds in step with the sessions: each open session holds its image, no other does."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial

from fleetcast_kit.errors import FailedPreconditionError, FleetcastError, NotFoundError

from fleetcast_scheduler.catalog import Catalog
from fleetcast_scheduler.sessions.domain.events import SessionEnded, SessionOpened
from fleetcast_scheduler.sessions.domain.session import Session
from fleetcast_scheduler.sessions.pump import Pump

_logger = logging.getLogger(__name__)

PREFIX = "sessions/"
RECONCILE_SECONDS = 600.0
"""A call that timed out may have left a hold; it is found after this."""
_FIRST_PAUSE_SECONDS = 0.5
_LAST_PAUSE_SECONDS = 30.0


class Holds:
    """Releases what ended sessions held, and reconciles after a start; tries until it succeeds."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._ended: dict[str, str] = {}
        """Image by session, to be released."""
        self._opened: set[str] = set()
        """Sessions that came by themselves: their images are to be held."""
        self._news = asyncio.Event()
        self.opening: set[str] = set()
        """Sessions that hold their image and are not known to the dispatcher yet."""

    def session_opened(self, event: SessionOpened) -> None:
        """Has the image of a session held that came by itself."""
        self._opened.add(event.session)
        self._news.set()

    def session_ended(self, event: SessionEnded) -> None:
        """Has the image of an ended session released."""
        self._ended[event.session] = event.image
        self._news.set()

    async def run(self, pump: Pump) -> None:
        """Reconciles at once and every while, and releases what ended sessions held, until cancelled."""
        while True:
            await _persist("reconcile the holds", partial(self._reconcile, pump))
            reconcile_at = time.monotonic() + RECONCILE_SECONDS
            while (seconds := reconcile_at - time.monotonic()) > 0:
                await self._release(pump)
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._news.wait(), seconds)

    async def _release(self, pump: Pump) -> None:
        self._news.clear()
        for name in list(self._opened):  # before the releases: the session before held the same image until now
            session = pump.dispatcher.ledger.sessions.get(name)
            if session is not None and not session.state.final:
                await _persist(f"hold {session.image} for {name}", partial(self._hold, pump, session))
            self._opened.discard(name)
        for name, image in list(self._ended.items()):
            await _persist(f"release {image} of {name}", partial(self._catalog.release, image, name))
            del self._ended[name]
            pump.dispatcher.hold_released(name)
            pump.wake()

    async def _reconcile(self, pump: Pump) -> None:
        sessions = pump.dispatcher.ledger.sessions
        holds = await self._catalog.holds(PREFIX)
        held = {holder for _, holder in holds}
        for session in list(sessions.values()):
            if session.state.final and not session.hold_released:
                self.session_ended(SessionEnded(session.name, session.image))
            elif not session.state.final and session.name not in held:
                await self._hold(pump, session)
        for image, holder in holds:
            if holder not in sessions and holder not in self.opening:
                _logger.info("releasing %s, held by %s, which does not exist", image, holder)
                await self._catalog.release(image, holder)

    async def _hold(self, pump: Pump, session: Session) -> None:
        try:
            await self._catalog.hold(session.image, session.name)
        except (NotFoundError, FailedPreconditionError) as error:
            pump.dispatcher.fail(session.name, f"its image is gone: {error.message}", pump.clock())
            pump.wake()


async def _persist(what: str, act: Callable[[], Awaitable[None]]) -> None:
    """Does something until it succeeds, with growing pauses."""
    pause_seconds = _FIRST_PAUSE_SECONDS
    while True:
        try:
            await act()
        except FleetcastError as error:
            _logger.warning("cannot %s, trying again: %s", what, error.message)
            await asyncio.sleep(pause_seconds * random.uniform(0.8, 1.2))  # noqa: S311 - jitter
            pause_seconds = min(pause_seconds * 2, _LAST_PAUSE_SECONDS)
        else:
            return
