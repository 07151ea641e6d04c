"""A machine's stream for deployments: what is to be said to it, until its handler says it."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field

from fleetcast_kit.errors import FleetcastError

from fleetcast_scheduler.deployments.domain.deployment import Content
from fleetcast_scheduler.deployments.domain.events import RunClosed, RunControlled, StandbyTold


@dataclass(frozen=True, slots=True)
class Order:
    """What a machine is to run."""

    run: str
    attempt: int
    display_name: str
    image: str
    """Empty if `content` has a task sequence."""
    content: Content
    collection_variables: dict[str, str] = field(default_factory=dict)
    machine_variables: dict[str, str] = field(default_factory=dict)
    deployment_variables: dict[str, str] = field(default_factory=dict)
    remaining_seconds: float = 0.0
    traceparent: str = ""
    upload_grant: str = ""
    catalog_address: str = ""
    """HOST:PORT; empty if the catalog is at the scheduler's own address."""


RunSaying = Order | RunControlled | RunClosed | StandbyTold


@dataclass(frozen=True, slots=True)
class RunLetter:
    """What a machine hears next."""

    acknowledged_sequence: int
    message: RunSaying | None


class RunMailbox:
    """One machine's stream. The rules keep its queue short; of standbys it keeps the latest alone."""

    def __init__(self, machine: str) -> None:
        self.machine = machine
        self.received_sequence = 0
        """The latest request."""
        self._acknowledged = self._told = 0
        self._queue: deque[RunSaying] = deque()
        self._last_standby: StandbyTold | None = None
        self._error: FleetcastError | None = None
        self._closed = False
        self._news = asyncio.Event()

    def post(self, message: RunSaying) -> None:
        """Says this after what was not said yet; a standby that says nothing new is left out."""
        if isinstance(message, StandbyTold):
            if message == self._last_standby:
                return
            if self._queue and isinstance(self._queue[-1], StandbyTold):
                self._queue.pop()
            self._last_standby = message
        elif isinstance(message, Order):
            self._last_standby = None
        self._queue.append(message)
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

    async def next(self) -> RunLetter | None:
        """Returns what to say next; None at the end.

        Raises:
            FleetcastError: the stream was closed with it.
        """
        while True:
            if self._error is not None:
                raise self._error
            if self._queue or self._acknowledged > self._told:
                self._told = self._acknowledged
                return RunLetter(self._told, self._queue.popleft() if self._queue else None)
            if self._closed:
                return None
            self._news.clear()
            await self._news.wait()
