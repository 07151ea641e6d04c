"""The sending end of a machine's long stream: what the machine is to hear, until the handler of the stream sends it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Generic, TypeVar

from fleetcast_kit.errors import FleetcastError, InvalidArgumentError

_Message = TypeVar("_Message")


@dataclass(frozen=True, slots=True)
class Outgoing(Generic[_Message]):
    """What a machine hears next."""

    acknowledged_sequence: int
    """Every request up to this one is stored."""
    message: _Message | None
    """None if there is only an acknowledgement to send."""


class Mailbox(Generic[_Message]):
    """The messages that wait for one stream, and the latest acknowledgement.

    A stream that nobody reads must not fill the memory: each kind of mailbox has a rule, `kept`, for what still waits
    once a new message comes.
    """

    def __init__(self, machine: str) -> None:
        self.machine = machine
        self.received_sequence = 0
        """Number of the latest request."""
        self._waiting: list[_Message] = []
        self._acknowledged = self._told = 0
        self._error: FleetcastError | None = None
        self._closed = False
        self._news = asyncio.Event()

    def kept(self, waiting: list[_Message], message: _Message) -> list[_Message]:
        """Returns what waits from now on, in order, if `message` comes while `waiting` is not sent yet."""
        raise NotImplementedError

    def post(self, message: _Message) -> None:
        """Has a message sent, as far as the rule of this mailbox keeps it."""
        self._waiting = self.kept(self._waiting, message)
        self._news.set()

    def receive(self, sequence: int) -> None:
        """Notes the number of a request that came in.

        Raises:
            InvalidArgumentError: it is not greater than that of the request before.
        """
        if sequence <= self.received_sequence:
            raise InvalidArgumentError(
                f"sequence is {sequence} after {self.received_sequence}: it must grow", field="sequence"
            )
        self.received_sequence = sequence

    def acknowledge(self, sequence: int) -> None:
        """Has the machine told that every request up to `sequence` is stored."""
        if sequence > self._acknowledged:
            self._acknowledged = sequence
            self._news.set()

    def close(self, error: FleetcastError | None = None) -> None:
        """Ends the stream: with an error at once, without one after all that waits is sent."""
        self._error, self._closed = error, True
        self._news.set()

    async def next(self) -> Outgoing[_Message] | None:
        """Returns what to send next; None at the end.

        Raises:
            FleetcastError: the stream was closed with it.
        """
        while True:
            if self._error is not None:
                raise self._error
            if self._waiting or self._acknowledged > self._told:
                self._told = self._acknowledged
                return Outgoing(self._told, self._waiting.pop(0) if self._waiting else None)
            if self._closed:
                return None
            self._news.clear()
            await self._news.wait()
