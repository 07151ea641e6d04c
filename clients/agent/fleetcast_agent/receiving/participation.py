"""This machine's seat in a session: one stream to the scheduler, opened anew whenever it breaks."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import grpc
from fleetcast.scheduler.v1.participation_service_pb2_grpc import ParticipationServiceStub
from fleetcast_kit.errors import FleetcastError, UnavailableError, from_rpc_error

from fleetcast_agent.receiving import convert
from fleetcast_agent.receiving.messages import Assignment, Dismissal, JoinRequest, Totals, Waiting
from fleetcast_agent.retrying import TRANSIENT_CODES, backoff_seconds

_logger = logging.getLogger(__name__)


_OUTCOME_SECONDS = 300.0
"""How long to try to say how it ended: longer than a restart of the server."""
_QUEUED_MESSAGES = 64
_Outbox = asyncio.Queue[Callable[[int], Any] | None]
"""What is said on one stream; None ends it."""


class Participation:
    """Joins a session, and passes on what the scheduler says.

    Args:
        channel: to the scheduler.
        patience_seconds: how long to try to reach it at first; once it was reached, trying has no end.
        join: what to say at joining, also after the stream broke.
        address: of the scheduler, for sentences.
        notice: called with a sentence for people when contact is lost or found again.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        join: JoinRequest,
        *,
        address: str,
        patience_seconds: float,
        notice: Callable[[str], None],
    ) -> None:
        self._stub = ParticipationServiceStub(channel)
        self._join = join
        self._address = address
        self._notice = notice
        self._heard: asyncio.Queue[Waiting | Assignment | Dismissal | FleetcastError] = asyncio.Queue()
        self._outbox = _Outbox(_QUEUED_MESSAGES)
        self._totals: Totals | None = None
        self._outcome: tuple[Totals, str] | None = None
        self._sequence = 0
        self._outcome_sequence: int | None = None
        self._acknowledged = asyncio.Event()
        self._patient_until = time.monotonic() + patience_seconds
        self._rejoining = False
        self._call: grpc.aio.StreamStreamCall[Any, Any] | None = None
        self._task = asyncio.create_task(self._run(), name="participation")

    async def next(self) -> Waiting | Assignment | Dismissal:
        """Returns the next word of the scheduler.

        Raises:
            FleetcastError: the scheduler refuses, or could not be reached at first.
        """
        word = await self._heard.get()
        if isinstance(word, FleetcastError):
            raise word
        return word

    def report(self, totals: Totals) -> None:
        """Report progress."""
        self._put(lambda sequence: convert.progress_message(totals, sequence))

    def sender_unreachable(self, transmission: str, detail: str) -> None:
        """Ask for another assignment."""
        self._put(lambda sequence: convert.sender_unreachable_message(transmission, detail, sequence))

    def rejoin(self, join: JoinRequest) -> None:
        """Say another join from now on: the stream is opened anew."""
        self._join = join
        if self._call is not None:
            self._rejoining = True
            self._call.cancel()

    async def finish(self, totals: Totals, error: str = "") -> bool:
        """Say how the reception ended; return whether the scheduler knows it durably."""
        self._outcome = (totals, error)
        self._put(self._outcome_message)
        try:
            await asyncio.wait_for(self._acknowledged.wait(), _OUTCOME_SECONDS if not error else 10.0)
        except TimeoutError:
            return False
        return True

    async def close(self) -> None:
        """End the stream."""
        self._rejoining = False  # else the cancellation would be taken for that of the stream that is opened anew
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def _put(self, message: Callable[[int], Any]) -> None:
        _put(self._outbox, message)

    def _outcome_message(self, sequence: int) -> Any:
        self._outcome_sequence = sequence
        totals, error = self._outcome or (Totals(), "")
        return convert.outcome_message(totals, error, sequence)

    async def _run(self) -> None:
        attempt = 0
        while True:
            connected = False
            try:
                async with aclosing(self._converse()) as words:
                    async for word in words:
                        if attempt and not connected:
                            self._notice(f"the server at {self._address} is back")
                        connected, attempt = True, 0
                        if word is not None:
                            self._heard.put_nowait(word)
                        if isinstance(word, Dismissal):
                            self._acknowledged.set()
                            return
                failure: FleetcastError = UnavailableError(f"the server at {self._address} ended the stream")
            except asyncio.CancelledError:
                if not self._rejoining:
                    raise
                self._rejoining = False
                continue
            except grpc.aio.AioRpcError as error:
                failure = from_rpc_error(error, address=self._address)
                if error.code() not in TRANSIENT_CODES or time.monotonic() > self._patient_until:
                    self._heard.put_nowait(failure)
                    return
            if attempt == 0:
                self._notice(f"waiting for the server at {self._address}: {failure.message}")
            await asyncio.sleep(backoff_seconds(attempt))
            attempt += 1

    async def _converse(self) -> AsyncGenerator[Waiting | Assignment | Dismissal | None, None]:
        outbox = self._outbox = _Outbox(_QUEUED_MESSAGES)
        self._sequence = 0
        self._outcome_sequence = None
        if self._outcome is not None:
            self._put(self._outcome_message)
        call = self._call = self._stub.Participate(self._requests(outbox))
        try:
            async for response in call:
                self._patient_until = math.inf
                sequence = self._outcome_sequence
                if sequence is not None and response.acknowledged_sequence >= sequence:
                    self._acknowledged.set()
                yield convert.from_scheduler(response)
        finally:
            call.cancel()
            _put(outbox, None)  # gRPC leaves the requests of a broken stream waiting

    async def _requests(self, outbox: _Outbox) -> AsyncIterator[Any]:
        self._sequence += 1
        yield convert.join_message(self._join, self._sequence)
        while (message := await outbox.get()) is not None:
            self._sequence += 1
            yield message(self._sequence)


def _put(outbox: _Outbox, message: Callable[[int], Any] | None) -> None:
    if outbox.full():  # the stream stalls: totals are not deltas, the oldest says least
        outbox.get_nowait()
    outbox.put_nowait(message)
