"""The catalog's holds for sessions: each open session holds its image, no other does."""

from __future__ import annotations

import asyncio
import logging
from functools import partial

from fleetcast_kit.errors import FailedPreconditionError, NotFoundError

from fleetcast_scheduler.catalog import Catalog
from fleetcast_scheduler.holds import HoldKeeper
from fleetcast_scheduler.sessions.domain.session import Session
from fleetcast_scheduler.sessions.pump import Pump

_logger = logging.getLogger(__name__)

PREFIX = "sessions/"
_AT_ONCE = 32
"""Holds released at once: sessions may end as fast as they are opened, and their holds must end as fast."""


class SessionHolds:
    """Holds the images of sessions that opened by themselves, and releases those of ended sessions."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self.keeper = HoldKeeper("sessions")

    async def run(self, pump: Pump) -> None:
        """Keeps the holds until cancelled."""
        await self.keeper.run(partial(self._reconcile, pump))

    async def _reconcile(self, pump: Pump) -> None:
        """Holds first and releases then: two sessions of a series, one after the other, hold the same image."""
        sessions = pump.dispatcher.ledger.sessions
        holds = await self._catalog.holds(PREFIX)
        held = {holder for _, holder in holds}
        for session in list(sessions.values()):
            if not session.state.final and session.name not in held:
                await self._hold(pump, session)
        ended = [one for one in sessions.values() if one.state.final and not one.hold_released]
        for batch in (ended[start : start + _AT_ONCE] for start in range(0, len(ended), _AT_ONCE)):
            await asyncio.gather(*(self._catalog.release(session.image, session.name) for session in batch))
            for session in batch:
                pump.dispatcher.hold_released(session.name)
            pump.wake()
        for image, holder in holds:
            if holder not in sessions and holder not in self.keeper.opening:
                _logger.info("releasing %s, held by %s, which does not exist", image, holder)
                await self._catalog.release(image, holder)

    async def _hold(self, pump: Pump, session: Session) -> None:
        try:
            await self._catalog.hold(session.image, session.name)
        except (NotFoundError, FailedPreconditionError) as error:
            pump.dispatcher.fail(session.name, f"its image is gone: {error.message}", pump.clock())
            pump.wake()
