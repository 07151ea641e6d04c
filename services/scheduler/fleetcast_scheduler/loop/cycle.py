"""A loop that decides in memory, stores what it decided, and then, not before, acts on it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from fleetcast_kit.errors import FleetcastError, UnavailableError
from fleetcast_kit.storage_failures import storage_failure
from sqlalchemy.exc import SQLAlchemyError

from fleetcast_scheduler.loop.mailbox import Mailbox
from fleetcast_scheduler.loop.pulse import Pulse

_logger = logging.getLogger(__name__)

REPORT_SECONDS = 0.25
"""Progress is stored this often: at most so much of it, and the time of one write, is lost by a kill. Machines report
once a second, so a quarter of them is stored at once, and the acknowledgements of thousands come in portions."""
_RETRY_SECONDS = (0.1, 0.5, 2.0, 10.0)
"""Pauses while the database cannot be written; the last one repeats. Nothing takes effect meanwhile."""


TROUBLE_SECONDS = 5.0
"""How long callers wait for a decision to be stored while the database cannot be written; then an error says so."""

_Event = TypeVar("_Event")


@dataclass(frozen=True, slots=True)
class Turn(Generic[_Event]):
    """What one turn decided, and what follows once that is stored."""

    write: Callable[[], Awaitable[None]] | None
    """Stores it in one transaction; None if there is nothing to store."""
    acknowledgements: Sequence[tuple[Mailbox[Any], int]]
    """Streams, and the request up to which everything is stored then."""
    events: Sequence[_Event]
    """What is to be done, in order."""
    changed: Iterable[str]
    """Names of resources whose watchers look again."""


class Cycle(Generic[_Event]):
    """The loop. A subclass decides, acts on the events of a decision, and says when the next turn is due."""

    def __init__(self, clock: Callable[[], float] = time.time, *, trouble_seconds: float = TROUBLE_SECONDS) -> None:
        self.clock = clock
        self._trouble_seconds = trouble_seconds
        self.pulse = Pulse()
        """Tells watchers which resources changed."""
        self._audit: list[dict[str, Any]] = []
        self._wake = asyncio.Event()
        self._next_turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._present_turn: asyncio.Future[None] | None = None
        self._broken = False
        self._trouble: FleetcastError | None = None
        """Why the database cannot be written now."""
        self._report_time = 0.0
        """When progress is stored next, at the earliest."""

    def wake(self) -> None:
        """Has a turn begin soon."""
        self._wake.set()

    def audit(self, row: dict[str, Any]) -> None:
        """Stores an entry of the audit with the next turn."""
        self._audit.append(row)
        self.wake()

    async def durable(self) -> None:
        """Returns when everything decided so far is stored.

        Raises:
            UnavailableError: the scheduler met an error of its own and decides nothing any more.
            FleetcastError: the database cannot be written; what is decided takes effect once it can.
        """
        if self._broken:
            raise _broken()
        self._wake.set()
        await self._stored(self._next_turn)

    async def conclude(self) -> None:
        """Returns when everything decided and reported so far is stored: nothing is lost by an end after it.

        Raises:
            UnavailableError: the scheduler met an error of its own and decides nothing any more.
        """
        self._report_time = 0.0
        await self.durable()

    async def decided(self) -> None:
        """Returns when what was decided so far is stored, as `durable`; begins no turn for it if nothing waits.

        Raises:
            UnavailableError: the scheduler met an error of its own and decides nothing any more.
        """
        if self._broken:
            raise _broken()
        if self._present_turn is not None:
            await self._stored(self._present_turn)
        if self._wake.is_set():
            await self._stored(self._next_turn)

    async def _stored(self, turn: asyncio.Future[None]) -> None:
        while not turn.done():
            await asyncio.wait({turn}, timeout=self._trouble_seconds)
            if not turn.done() and self._trouble is not None:
                raise self._trouble
        turn.result()

    async def run(self) -> None:
        """Takes turns until cancelled."""
        try:
            while True:
                await self._sleep()
                await self.turn()
        except Exception:
            self._broken = True
            _logger.exception("the scheduler met an error of its own and stops deciding: restart it")
            self._next_turn.set_exception(_broken())
            self._next_turn.exception()  # seen, even if nobody waits

    async def turn(self) -> None:
        """Decides, stores, acts: once."""
        self._wake.clear()
        finished, self._next_turn = self._next_turn, asyncio.get_running_loop().create_future()
        self._present_turn = finished
        try:
            await self._decide_store_act(self.clock())
        except BaseException:
            if not finished.done():
                finished.set_exception(_broken())
                finished.exception()
            raise
        finally:
            self._present_turn = None
        finished.set_result(None)

    def decide(self, now: float) -> Turn[_Event]:
        """Decides what is due, and takes it out of memory as what is to be stored and done."""
        raise NotImplementedError

    def act(self, event: _Event, now: float) -> None:
        """Does what follows from a decision. The decision is stored."""
        raise NotImplementedError

    async def _decide_store_act(self, now: float) -> None:
        """Takes a turn. The order is what makes a kill harmless: nobody hears of a decision that could be lost."""
        turn = self.decide(now)
        if turn.write is not None:
            await self.persist(turn.write)
        for mailbox, sequence in turn.acknowledgements:
            mailbox.acknowledge(sequence)
        for event in turn.events:
            self.act(event, now)
        for name in turn.changed:
            self.pulse.beat(name)

    def take_audit(self) -> list[dict[str, Any]]:
        """Returns the entries of the audit that are to be stored now."""
        audit, self._audit = self._audit, []
        return audit

    def reports_due(self, now: float) -> bool:
        """Returns whether reported progress is to be stored now; if so, the next is due REPORT_SECONDS later."""
        if now < self._report_time:
            return False
        self._report_time = now + REPORT_SECONDS
        return True

    def due_time(self) -> float | None:
        """Returns when there is something to decide, if nothing happens before."""
        raise NotImplementedError

    async def persist(self, write: Callable[[], Awaitable[None]]) -> None:
        """Stores, however long that takes: what is decided and not stored must not take effect."""
        attempt = 0
        while True:
            try:
                await write()
            except SQLAlchemyError as error:
                pause_seconds = _RETRY_SECONDS[min(attempt, len(_RETRY_SECONDS) - 1)]
                attempt += 1
                self._trouble = _not_stored(error)
                _logger.error("the database cannot be written, trying again in %g s: %s", pause_seconds, error)
                await asyncio.sleep(pause_seconds)
            else:
                self._trouble = None
                return

    async def _sleep(self) -> None:
        due_time = self.due_time()
        # Reports wake nobody, so the loop looks by itself once an interval.
        seconds = REPORT_SECONDS if due_time is None else min(REPORT_SECONDS, due_time - self.clock())
        if seconds > 0 and not self._wake.is_set():
            try:
                async with asyncio.timeout(seconds):
                    await self._wake.wait()
            except TimeoutError:
                return


def _not_stored(error: SQLAlchemyError) -> FleetcastError:
    failure = storage_failure(error)
    what = failure.message if failure else f"the server's database cannot be written: {error}"
    return UnavailableError(
        f"{what}; what was asked for is not lost and takes effect once that is mended: do not ask again",
        reason=failure.reason if failure else "DATABASE_UNAVAILABLE",
    )


def _broken() -> UnavailableError:
    return UnavailableError("the scheduler met an error of its own: its log says more; restart it", reason="BROKEN")
