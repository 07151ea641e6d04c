"""Which machines a session waits for: the members of its collection, or the targets of its deployment, as of now."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from fleetcast_kit.errors import NotFoundError
from sqlalchemy.exc import SQLAlchemyError

from fleetcast_scheduler.machines.collections import Collections
from fleetcast_scheduler.sessions.pump import Pump

_logger = logging.getLogger(__name__)

REFRESH_SECONDS = 5.0
"""Members come and go by rules over inventories: nobody says when. A collection of 2,000 is read in 50 ms."""
_PAGE_SIZE = 500


class Awaited:
    """Tells the dispatcher which machines the open sessions wait for.

    `targets` returns the machines that the sessions of a deployment wait for, with the names for display, or None if
    the deployment is over: then its sessions admit nobody any more.
    """

    def __init__(self, pump: Pump, collections: Collections, targets: Callable[[str], dict[str, str] | None]) -> None:
        self._pump = pump
        self._collections = collections
        self._targets = targets

    async def members(self, collection: str) -> dict[str, str]:
        """Returns the members of a collection, with the names for display by machine; empty without a collection.

        Raises:
            NotFoundError: there is no such collection.
        """
        found: dict[str, str] = {}
        after, full = "", bool(collection)
        while full:
            page = await self._collections.list_members(collection, after, _PAGE_SIZE)
            found |= {machine.name: machine.display_name for machine in page}
            full = len(page) == _PAGE_SIZE
            after = page[-1].name if page else ""
        return found

    def refresh_deployments(self) -> None:
        """Looks at the deployments of all open sessions again."""
        for session in list(self._pump.dispatcher.ledger.sessions.values()):
            if session.deployment and not session.state.final:
                expected = self._targets(session.deployment)
                self._pump.dispatcher.expect(session.name, expected or {})
                if expected is None and not session.closed:
                    self._pump.dispatcher.operations.close(session)

    async def refresh(self) -> None:
        """Looks at the collections and deployments of all open sessions again."""
        self.refresh_deployments()
        sessions = [one for one in self._pump.dispatcher.ledger.sessions.values() if not one.state.final]
        for collection in {session.collection for session in sessions} - {""}:
            try:
                members = await self.members(collection)
            except NotFoundError:
                members = {}
            for session in sessions:
                if session.collection == collection:
                    self._pump.dispatcher.expect(session.name, members)
        self._pump.wake()

    async def run(self) -> None:
        """Refreshes every REFRESH_SECONDS until cancelled."""
        while True:
            try:
                await self.refresh()
            except SQLAlchemyError as error:
                _logger.warning("cannot read who is awaited, trying again: %s", error)
            await asyncio.sleep(REFRESH_SECONDS)
