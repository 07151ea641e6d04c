"""TransmissionService: the streams of receivers, and chunks by unicast."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, suppress
from typing import Any

import grpc
import numpy as np
from fleetcast.sender.v1 import transmission_service_pb2
from fleetcast.sender.v1.transmission_service_pb2_grpc import (
    TransmissionServiceServicer,
    add_TransmissionServiceServicer_to_server,
)
from fleetcast_kit.errors import InvalidArgumentError, NotFoundError, ResourceExhaustedError
from fleetcast_kit.identity.peer import Role, current_identity
from fleetcast_kit.process import semconv
from fleetcast_kit.rpc.server import Service
from opentelemetry import trace

from fleetcast_sender import convert
from fleetcast_sender.engine.messages import Dismissed
from fleetcast_sender.sending.claims import Allowance
from fleetcast_sender.sending.transmission import Seat, Transmission
from fleetcast_sender.unicast import UnicastReader

_FETCHES_AT_ONCE = 4
"""Of one machine: an agent has one, and may have broken off others that this side has not seen the end of."""
_APPEARANCE_SECONDS = 5.0
"""How long a machine waits for a transmission that the scheduler has told it of and not yet told the sender."""


class Transmissions:
    """The transmissions of this sender, by name."""

    def __init__(self) -> None:
        self._running: dict[str, Transmission] = {}
        self._appeared = asyncio.Event()

    @property
    def running(self) -> Mapping[str, Transmission]:
        """Those that run."""
        return self._running

    def add(self, transmission: Transmission) -> None:
        """Let machines find it."""
        self._running[transmission.name] = transmission
        self._appeared.set()
        self._appeared = asyncio.Event()

    def remove(self, name: str) -> Transmission | None:
        """Let nobody find it any more."""
        return self._running.pop(name, None)

    async def find(self, name: str) -> Transmission:
        """Returns a transmission, waiting a little for it to appear.

        Raises:
            NotFoundError: it does not run here.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(_APPEARANCE_SECONDS):
                while name not in self._running:
                    await self._appeared.wait()
        if name not in self._running:
            raise NotFoundError(f"no transmission {name!r} runs here: join the session again")
        return self._running[name]


class TransmissionServicer(TransmissionServiceServicer):
    """Checks who asks, converts, and hands on."""

    def __init__(self, transmissions: Transmissions, unicast: UnicastReader) -> None:
        self._transmissions = transmissions
        self._unicast = unicast
        self._fetching = Counter[str]()

    async def Receive(
        self,
        request_iterator: AsyncIterator[transmission_service_pb2.ReceiveRequest],
        context: "grpc.aio.ServicerContext[Any, Any]",
    ) -> AsyncIterator[transmission_service_pb2.ReceiveResponse]:
        """Serves one receiver as long as its stream lives."""
        first = await anext(request_iterator, None)
        if first is None or first.WhichOneof("message") != "join":
            raise InvalidArgumentError("the first message of the stream must be a join", field="join")
        machine, transmission = await self._admitted(first.join.transmission)
        join = convert.join_of(first.join, machine, transmission.table.manifest.chunk_count)
        seat = await transmission.enter(join)
        reader = asyncio.create_task(self._read(request_iterator, transmission, seat))
        try:
            async with aclosing(self._messages(seat, reader)) as messages:
                async for response in messages:
                    yield response
        finally:
            transmission.leave(seat)
            reader.cancel()
            with suppress(asyncio.CancelledError):
                await reader

    async def _messages(
        self, seat: Seat, reader: asyncio.Task[None]
    ) -> AsyncGenerator[transmission_service_pb2.ReceiveResponse]:
        """Yield what the receiver is told until it is dismissed or ends its stream."""
        while True:
            told = asyncio.create_task(seat.messages.get())
            try:
                await asyncio.wait((told, reader), return_when=asyncio.FIRST_COMPLETED)
                if not told.done():
                    reader.result()
                    return
            finally:
                told.cancel()
            lane, message = told.result()
            yield lane.message(message)
            if isinstance(message, Dismissed):
                return

    async def GetChunkTable(
        self,
        request: transmission_service_pb2.GetChunkTableRequest,
        context: "grpc.aio.ServicerContext[Any, Any]",
    ) -> AsyncIterator[transmission_service_pb2.GetChunkTableResponse]:
        """Streams the chunk table of the transmission's image."""
        _, transmission = await self._admitted(request.transmission)
        for message in convert.chunk_table_messages(transmission.table):
            yield message

    async def FetchChunks(
        self,
        request: transmission_service_pb2.FetchChunksRequest,
        context: "grpc.aio.ServicerContext[Any, Any]",
    ) -> AsyncIterator[transmission_service_pb2.FetchChunksResponse]:
        """Streams stored chunks by unicast, taking turns with other readers chunk by chunk."""
        machine, transmission = await self._admitted(request.transmission)
        table = transmission.table
        wanted = convert.members_of(request.chunks, table.manifest.chunk_count, "chunks")
        if self._fetching[machine] >= _FETCHES_AT_ONCE:
            raise ResourceExhaustedError(
                f"{machine} fetches {_FETCHES_AT_ONCE} sets of chunks already: wait until one of them has ended"
            )
        self._fetching[machine] += 1
        try:
            for chunk in np.flatnonzero(wanted & ~table.manifest.zero).tolist():
                yield transmission_service_pb2.FetchChunksResponse(
                    chunk=chunk, stored=await self._unicast.read(transmission, chunk)
                )
        finally:
            self._fetching[machine] -= 1
            self._fetching += Counter()  # forgets those that fetch nothing

    async def _admitted(self, name: str) -> tuple[str, Transmission]:
        """Returns who calls and the transmission it may take part in.

        Raises:
            NotFoundError: there is no such transmission.
            PermissionDeniedError: the caller is not admitted.
        """
        machine = current_identity().name
        trace.get_current_span().set_attributes({semconv.MACHINE: machine, semconv.TRANSMISSION: name})
        transmission = await self._transmissions.find(name)
        await transmission.require_admission(machine)
        return machine, transmission

    async def _read(
        self, requests: AsyncIterator[transmission_service_pb2.ReceiveRequest], transmission: Transmission, seat: Seat
    ) -> None:
        """Hand on what the receiver says until it ends its side.

        Raises:
            InvalidArgumentError: a message makes no sense.
        """
        chunk_count = transmission.table.manifest.chunk_count
        allowance, loop = Allowance(), asyncio.get_running_loop()
        async for request in requests:
            if (delay := allowance.delay(request.ByteSize(), loop.time())) > 0:
                await asyncio.sleep(delay)
            match request.WhichOneof("message"):
                case "report":
                    transmission.report(seat, convert.reception_of(request.report))
                case "deficits":
                    transmission.deficits(seat, convert.deficits_of(request.deficits))
                case "ready":
                    transmission.ready(seat)
                case "holding":
                    transmission.holding(seat, convert.holding_of(request.holding, chunk_count))
                case "done":
                    transmission.done(seat)
                case other:
                    raise InvalidArgumentError(
                        f"a message of the stream is {other or 'empty'}: a join comes once, first", field="message"
                    )


def transmission_service(transmissions: Transmissions, unicast: UnicastReader) -> Service:
    """Returns the service, ready to be served."""
    machine = frozenset({Role.MACHINE})
    return Service(
        add=add_TransmissionServiceServicer_to_server,
        servicer=TransmissionServicer(transmissions, unicast),
        full_name="fleetcast.sender.v1.TransmissionService",
        roles={"Receive": machine, "GetChunkTable": machine, "FetchChunks": machine},
    )
