"""A sender's stream: commands in order, and those that wait for their answers."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

from fleetcast_kit.errors import FleetcastError
from opentelemetry.trace import Span

from fleetcast_scheduler.senders.domain.commands import Command


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
