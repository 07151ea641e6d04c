"""This machine's stream to the scheduler: opened again whenever it breaks, without losing a message."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from fleetcast.scheduler.v1.machine_service_pb2_grpc import MachineServiceStub
from fleetcast.scheduler.v1.run_service_pb2_grpc import RunServiceStub
from fleetcast_kit.errors import FleetcastError, UnavailableError, from_rpc_error
from fleetcast_kit.identity.certificates import public_key_der
from fleetcast_kit.identity.key_code import key_code
from fleetcast_kit.joining.enrolment import renew_if_due
from fleetcast_kit.rpc.channel import open_channel

from fleetcast_agent.deployments import convert
from fleetcast_agent.deployments.convert import Word
from fleetcast_agent.deployments.orders import Arrival, RunProgress
from fleetcast_agent.deployments.registering import MachineDescription
from fleetcast_agent.retrying import backoff_seconds

_logger = logging.getLogger(__name__)

_CALL_SECONDS = 30.0
_RENEW_SECONDS = 12 * 3600.0
"""How often to look whether the certificate is to be renewed, while the stream lasts."""
_UNREGISTERED_CODES = frozenset({grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.NOT_FOUND})
"""After these the machine registers again: an operator may have removed it."""
_FINAL_CODES = _UNREGISTERED_CODES | {
    grpc.StatusCode.ABORTED,  # another agent with this identity has its stream open
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.UNIMPLEMENTED,
}
"""After these trying again does not help."""

Message = Callable[[int], Any]
"""Makes the message with this sequence number."""


@dataclass(eq=False)
class _Told:
    """Something that must reach the scheduler."""

    message: Message
    sequence: int = 0
    """Its number on the present stream; 0 while it was not sent there."""


class SchedulerStream:
    """Registers the machine, opens its stream, and opens it again whenever it breaks.

    What the scheduler says is passed on. What it must know is said again on each new stream, until it has stored it.

    Args:
        server: HOST:PORT.
        state_dir: where the credentials are; renewed there when it is time.
        describe: returns what to register; may block.
        arrival: returns what to say first on each stream.
        notice: called with a sentence for people.
        registered: called with the machine's name once it takes part.
        held_seconds: how often a machine asks again while an operator has not approved it.
    """

    def __init__(
        self,
        server: str,
        state_dir: Path,
        *,
        describe: Callable[[], MachineDescription],
        arrival: Callable[[], Arrival],
        notice: Callable[[str], None],
        registered: Callable[[str], None],
        held_seconds: float,
    ) -> None:
        self._server = server
        self._state_dir = state_dir
        self._describe = describe
        self._arrival = arrival
        self._notice = notice
        self._registered = registered
        self._held_seconds = held_seconds
        self._heard: asyncio.Queue[Word | FleetcastError] = asyncio.Queue()
        self._told: list[_Told] = []
        self._progress: RunProgress | None = None
        self._something_to_say = asyncio.Event()
        self._all_known = asyncio.Event()
        self._all_known.set()
        self._call: grpc.aio.StreamStreamCall[Any, Any] | None = None
        self._reopening = False
        self._is_registered = False
        self._tasks = [
            asyncio.create_task(self._run(), name="scheduler stream"),
            asyncio.create_task(self._renew_regularly(), name="renewal"),
        ]

    async def next(self) -> Word:
        """Returns the next word of the scheduler.

        Raises:
            FleetcastError: the machine may not take part; the sentence says what to do.
        """
        word = await self._heard.get()
        if isinstance(word, FleetcastError):
            raise word
        return word

    def tell(self, message: Message) -> None:
        """Send a message, and again on each new stream until the scheduler has stored it."""
        self._told.append(_Told(message))
        self._all_known.clear()
        self._something_to_say.set()

    def forget(self) -> None:
        """Drop the messages that the scheduler has not stored: it has ended the run."""
        self._told.clear()
        self._progress = None
        self._all_known.set()

    def report(self, progress: RunProgress) -> None:
        """Send how far the run is; a newer report replaces one that is not sent yet."""
        self._progress = progress
        self._something_to_say.set()

    @property
    def all_known(self) -> bool:
        """Whether the scheduler has stored every message."""
        return self._all_known.is_set()

    async def known(self, timeout_seconds: float) -> bool:
        """Waits until the scheduler has stored every message, or for the time-out; returns whether it has."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._all_known.wait(), timeout_seconds)
        return self._all_known.is_set()

    def reopen(self) -> None:
        """Open the stream again: what the machine says first has changed."""
        if self._call is not None:
            self._reopening = True
            self._call.cancel()

    async def close(self) -> None:
        """End the stream."""
        self._reopening = False  # else the cancellation would be taken for that of the stream that is opened anew
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self) -> None:
        attempt, lost = 0, ""
        while True:
            failure: FleetcastError = UnavailableError(f"the server at {self._server} ended the stream")
            try:
                async for word in self._attend():
                    if lost:
                        self._notice(f"the server at {self._server} is back")
                    attempt, lost = 0, ""
                    if word is not None:
                        self._heard.put_nowait(word)
            except asyncio.CancelledError:
                if not self._reopening:
                    raise
            except grpc.aio.AioRpcError as error:
                failure = from_rpc_error(error, address=self._server)
                if error.code() in _UNREGISTERED_CODES and self._is_registered:
                    self._is_registered = False
                elif error.code() in _FINAL_CODES and not self._reopening:
                    self._heard.put_nowait(failure)
                    return
            except FleetcastError as error:
                failure = error
            if self._reopening:
                self._reopening = False
                continue
            if failure.message != lost:
                lost = failure.message
                self._notice(f"waiting for the server at {self._server}: {lost}")
            await asyncio.sleep(backoff_seconds(attempt))
            attempt += 1

    async def _renew_regularly(self) -> None:
        """Keeps the certificate fresh, for what opens connections later."""
        while True:
            await asyncio.sleep(_RENEW_SECONDS)
            try:
                await renew_if_due(self._server, self._state_dir)
            except FleetcastError as error:
                _logger.warning("the certificate is not renewed yet: %s", error.message)

    async def _attend(self) -> AsyncIterator[Word | None]:
        credentials = await renew_if_due(self._server, self._state_dir)
        async with open_channel(self._server, credentials) as channel:
            if not self._is_registered:
                await self._register(channel, public_key_der(credentials.private_key.public_key()))
            for told in self._told:
                told.sequence = 0
            something_to_say = self._something_to_say = asyncio.Event()
            something_to_say.set()
            call = self._call = RunServiceStub(channel).Attend(self._requests(something_to_say))
            try:
                async for response in call:
                    self._acknowledge(response.acknowledged_sequence)
                    yield convert.from_scheduler(response)
            finally:
                self._call = None
                call.cancel()
                # gRPC leaves the requests of a broken stream waiting: another event tells them that they are over.
                self._something_to_say = asyncio.Event()
                something_to_say.set()

    async def _register(self, channel: grpc.aio.Channel, own_key: bytes) -> None:
        """Registers this machine, whose public key is `own_key`, and waits as long as it is held."""
        stub = MachineServiceStub(channel)
        request = convert.register_request(await asyncio.to_thread(self._describe))
        said = ""
        while True:
            response = await stub.RegisterMachine(request, timeout=_CALL_SECONDS)
            reason = convert.held_reason(response)
            if reason is None:
                self._is_registered = True
                self._registered(response.machine.name)
                return
            if reason != said:
                said = reason
                name = response.machine.name.removeprefix("machines/")
                code = key_code(own_key) if response.machine.code else ""
                self._notice(f"held: {reason}; waiting for: fleetcast machine approve {code or name}")
            await asyncio.sleep(self._held_seconds)

    async def _requests(self, something_to_say: asyncio.Event) -> AsyncIterator[Any]:
        sequence = 1
        yield convert.arrival_message(self._arrival(), sequence)
        while True:
            await something_to_say.wait()
            if something_to_say is not self._something_to_say:
                return
            something_to_say.clear()
            while (told := next((each for each in self._told if not each.sequence), None)) is not None:
                sequence += 1
                told.sequence = sequence
                yield told.message(sequence)
            if self._progress is not None:
                progress, self._progress = self._progress, None
                sequence += 1
                yield convert.progress_message(progress, sequence)

    def _acknowledge(self, sequence: int) -> None:
        self._told = [told for told in self._told if not 0 < told.sequence <= sequence]
        if not self._told:
            self._all_known.set()
