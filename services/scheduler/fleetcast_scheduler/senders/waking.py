"""Wakes machines: through every connected sender, or from this host if no sender is connected."""

from __future__ import annotations

import asyncio
import logging

from fleetcast_kit.errors import UnavailableError
from fleetcast_kit.network import wake_on_lan

from fleetcast_scheduler.senders.desk import SenderDesk

_logger = logging.getLogger(__name__)


class Waking:
    """Sends wake-ups; what waits for its turn is sent by `run`."""

    def __init__(self, pump: SenderDesk) -> None:
        self._pump = pump
        self._queue: asyncio.Queue[tuple[str, ...]] = asyncio.Queue()

    def wake(self, mac_addresses: tuple[str, ...]) -> None:
        """Has machines woken, by any of their addresses."""
        if mac_addresses:
            self._queue.put_nowait(mac_addresses)

    async def run(self) -> None:
        """Sends the wake-ups that wait, until cancelled."""
        while True:
            mac_addresses = await self._queue.get()
            _logger.info("waking machines, %d addresses", len(mac_addresses))
            if self._pump.wake_machines(mac_addresses):
                continue
            try:
                await wake_on_lan.wake(mac_addresses)
            except (UnavailableError, ValueError) as error:
                _logger.warning("cannot wake machines: %s", error)
