"""Asks the scheduler what a machine is answered, and answers in its place while it is away."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from fleetcast_kit.errors import FleetcastError, UnavailableError

from fleetcast_boot.domain import Answer, Asker, Decision

_logger = logging.getLogger(__name__)

REMEMBERED_SECONDS = 5.0
"""Firmware asks up to four times within seconds, and gets one decision."""

MAX_REMEMBERED = 4_096
MAX_QUESTIONS = 64
"""Questions to the scheduler at once: a stranger who asks in the name of thousands of machines is kept waiting."""


class Decider(Protocol):
    """Who decides what becomes of a machine."""

    async def decide(self, asker: Asker, *, with_token: bool) -> Decision:
        """Returns what a machine is answered.

        `with_token` says that it is about to start the boot image, and needs the token for it.

        Raises:
            UnavailableError: the scheduler cannot be asked.
        """


@dataclass(slots=True)
class _Remembered:
    until: float
    decision: Decision


class Decisions:
    """Decisions, each asked for once in a few seconds.

    While the scheduler is away, a machine that was known to it starts its disk, and others are not answered. So no disk
    is erased because something was in doubt.
    """

    def __init__(
        self, decider: Decider, clock: Callable[[], float], remembered_seconds: float = REMEMBERED_SECONDS
    ) -> None:
        self._decider = decider
        self._clock = clock
        self._remembered_seconds = remembered_seconds
        self._remembered: OrderedDict[str, _Remembered] = OrderedDict()
        self._under_way: dict[str, asyncio.Future[Decision]] = {}
        self._places = asyncio.Semaphore(MAX_QUESTIONS)

    async def for_offer(self, asker: Asker) -> Decision:
        """Returns whether a machine is answered, and with what; without a token."""
        remembered = self._remembered.get(asker.mac_address)
        if remembered and self._clock() < remembered.until:
            return remembered.decision
        return await self._once(asker.mac_address, lambda: self._ask(asker, with_token=False))

    async def for_menu(self, asker: Asker) -> Decision:
        """Returns what a machine starts now, with the token for it."""
        return await self._ask(asker, with_token=True)

    async def _once(self, key: str, ask: Callable[[], Awaitable[Decision]]) -> Decision:
        if (asked := self._under_way.get(key)) is not None:
            return await asyncio.shield(asked)
        future = asyncio.ensure_future(ask())
        self._under_way[key] = future
        try:
            return await asyncio.shield(future)
        finally:
            self._under_way.pop(key, None)

    async def _ask(self, asker: Asker, *, with_token: bool) -> Decision:
        try:
            async with self._places:
                decision = await self._decider.decide(asker, with_token=with_token)
        except FleetcastError as error:
            return self._without_scheduler(asker, error)
        self._remember(asker, decision)
        return decision

    def _without_scheduler(self, asker: Asker, error: FleetcastError) -> Decision:
        if not isinstance(error, UnavailableError):
            _logger.warning("%s is not answered: %s", asker.mac_address, error)
        known = self._remembered.get(asker.mac_address)
        if known and known.decision.answer in (Answer.INSTALL, Answer.LOCAL):
            return Decision(
                Answer.LOCAL, reason="the scheduler cannot be asked", display_name=known.decision.display_name
            )
        return Decision(Answer.SILENT, reason="the scheduler cannot be asked, and the machine was not known before")

    def _remember(self, asker: Asker, decision: Decision) -> None:
        self._remembered[asker.mac_address] = _Remembered(self._clock() + self._remembered_seconds, decision)
        self._remembered.move_to_end(asker.mac_address)
        while len(self._remembered) > MAX_REMEMBERED:
            self._remembered.popitem(last=False)
