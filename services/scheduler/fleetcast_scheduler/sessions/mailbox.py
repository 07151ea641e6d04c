"""The ends of the long streams: what is to be said to a machine or a sender, until its handler says it."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

from fleetcast_kit.errors import FleetcastError
from opentelemetry.trace import Span

from fleetcast_scheduler.sessions.domain.events import Assignment, Command, Dismissal, Waiting

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


@dataclass(slots=True)
class PendingCommand:
    """A command that a sender has not answered."""

    command: Command
    due_time: float
    span: Span


class SenderStream:
    """One sender's stream: commands in order, and those that wait for their answers."""

    def __init__(self, sender: str, epoch: int) -> None:
        self.sender = sender
        self.epoch = epoch
        self.pending: dict[int, PendingCommand] = {}
        self._queue: deque[tuple[int, Command]] = deque()
        self._count = 0
        self._error: FleetcastError | None = None
        self._closed = False
        self._news = asyncio.Event()

    def post(self, command: Command, due_time: float, span: Span) -> None:
        """Queues a command. The rules keep the queue short: per transmission one of each kind waits at most."""
        self._count += 1
        self.pending[self._count] = PendingCommand(command, due_time, span)
        self._queue.append((self._count, command))
        self._news.set()

    def close(self, error: FleetcastError | None = None) -> None:
        """Ends the stream, with an error or quietly."""
        self._error, self._closed = error, True
        self._news.set()

    async def next(self) -> tuple[int, Command] | None:
        """Returns the next command with its number, from 1; None at the end.

        Raises:
            FleetcastError: the stream was closed with it.
        """
        while True:
            if self._error is not None:
                raise self._error
            if self._closed:
                return None
            if self._queue:
                return self._queue.popleft()
            self._news.clear()
            await self._news.wait()
