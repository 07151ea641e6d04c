"""The ends of the long streams: what is to be said to a machine or a sender, until its handler says it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from fleetcast_kit.errors import FleetcastError

from fleetcast_scheduler.sessions.domain.events import Assignment, Dismissal, Waiting

Message = Waiting | Assignment | Dismissal


@dataclass(frozen=True, slots=True)
class Letter:
    """What a machine hears next."""

    acknowledged_sequence: int
    message: Message | None


class Mailbox:
    """One machine's stream. It keeps the latest message and the latest acknowledgement, so it cannot grow."""

    def __init__(self, session: str, machine: str) -> None:
        self.session = session
        self.machine = machine
        self.received_sequence = 0
        """The latest request."""
        self.finished = False
        """True once the machine reported its outcome."""
        self._acknowledged = self._told = 0
        self._message: Message | None = None
        self._error: FleetcastError | None = None
        self._closed = False
        self._news = asyncio.Event()

    def post(self, message: Message) -> None:
        """Says this next, instead of what was not said yet. Nothing comes after a dismissal."""
        if not isinstance(self._message, Dismissal):
            self._message = message
            self._news.set()

    def acknowledge(self, sequence: int) -> None:
        """Says that every request up to `sequence` is stored."""
        if sequence > self._acknowledged:
            self._acknowledged = sequence
            self._news.set()

    def close(self, error: FleetcastError | None = None) -> None:
        """Ends the stream, with an error or quietly, after what is to be said."""
        self._error, self._closed = error, True
        self._news.set()

    async def next(self) -> Letter | None:
        """Returns what to say next; None at the end.

        Raises:
            FleetcastError: the stream was closed with it.
        """
        while True:
            await self._news.wait()
            self._news.clear()
            if self._error is not None:
                raise self._error
            if self._message is not None or self._acknowledged > self._told:
                letter = Letter(self._acknowledged, self._message)
                self._told, self._message = self._acknowledged, None
                if self._closed:
                    self._news.set()
                return letter
            if self._closed:
                return None
