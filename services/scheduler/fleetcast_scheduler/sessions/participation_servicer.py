"""ParticipationService: a machine's side of sessions."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from fleetcast.scheduler.v1 import participation_service_pb2
from fleetcast.scheduler.v1.participation_service_pb2_grpc import (
    ParticipationServiceServicer,
    add_ParticipationServiceServicer_to_server,
)
from fleetcast_kit.errors import FleetcastError, InvalidArgumentError
from fleetcast_kit.identity.peer import Peer, Role, current_peer
from fleetcast_kit.rpc.context import Context
from fleetcast_kit.rpc.server import Service

from fleetcast_scheduler.names import image_name, run_name, session_name
from fleetcast_scheduler.sessions import participation_convert as stream_convert
from fleetcast_scheduler.sessions.domain.events import Dismissal
from fleetcast_scheduler.sessions.domain.participant import Joiner
from fleetcast_scheduler.sessions.domain.session import Session
from fleetcast_scheduler.sessions.mailbox import SessionMailbox
from fleetcast_scheduler.sessions.pump import Pump
from fleetcast_scheduler.sessions.sessions import Sessions

_logger = logging.getLogger(__name__)


class RunSessions(Protocol):
    """The sessions that send the images that runs need."""

    async def join(self, run: str, image: str, joiner: Joiner) -> SessionMailbox:
        """A machine joins the open session for an image of its run, or opens it."""

    def check(self, machine: str, session: Session) -> None:
        """Lets a machine join a session of a deployment by the session's name, or raises."""


class ParticipationServicer(ParticipationServiceServicer):
    """Passes a machine's messages to the rules, and sends what waits in its mailbox."""

    def __init__(
        self, sessions: Sessions, deployments: RunSessions, pump: Pump, told_address: Callable[[str, str], str]
    ) -> None:
        self._told_address = told_address
        self._sessions = sessions
        self._deployments = deployments
        self._pump = pump

    async def Participate(
        self, request_iterator: AsyncIterator[participation_service_pb2.ParticipateRequest], context: Context
    ) -> AsyncIterator[participation_service_pb2.ParticipateResponse]:
        """Serves one machine in one session until its part is over."""
        first = await anext(request_iterator, None)
        if first is None or first.WhichOneof("message") != "join":
            raise InvalidArgumentError("the first message of the stream must be a join", field="join")
        caller = current_peer()
        mailbox = await self._join(first.join, caller)
        mailbox.received_sequence = first.sequence
        reader = asyncio.create_task(self._read(request_iterator, mailbox))
        try:
            while (outgoing := await mailbox.next()) is not None:
                response = stream_convert.response_message(outgoing)
                if sender_address := response.assignment.sender_address:
                    response.assignment.sender_address = self._told_address(sender_address, caller.address)
                yield response
                if isinstance(outgoing.message, Dismissal):
                    return
        finally:
            self._pump.leave(mailbox)
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)

    async def _join(self, join: participation_service_pb2.Join, caller: Peer) -> SessionMailbox:
        joiner = stream_convert.joiner_of(caller.identity.name, join, caller.address)
        if join.run and join.WhichOneof("target") == "image":
            return await self._deployments.join(
                run_name(join.run, "join.run"), image_name(join.image, "join.image"), joiner
            )
        match join.WhichOneof("target"):
            case "session":
                session = await self._sessions.get(session_name(join.session, "join.session"))
                if session.deployment:
                    self._deployments.check(joiner.machine, session)
                return await self._sessions.join_session(session.name, joiner)
            case "image":
                return await self._sessions.join_image(image_name(join.image, "join.image"), joiner)
            case _:
                raise InvalidArgumentError("a join must name a session or an image", field="join.target")

    async def _read(
        self, requests: AsyncIterator[participation_service_pb2.ParticipateRequest], mailbox: SessionMailbox
    ) -> None:
        """Reads the machine's messages; ends the stream with an error if one is not valid."""
        try:
            async for request in requests:
                if not self._pump.attached(mailbox):
                    return
                mailbox.receive(request.sequence)
                self._take(request, mailbox)
            if self._pump.attached(mailbox):
                self._half_closed(mailbox)
        except FleetcastError as error:
            mailbox.close(error)

    def _take(self, request: participation_service_pb2.ParticipateRequest, mailbox: SessionMailbox) -> None:
        dispatcher, now = self._pump.dispatcher, self._pump.clock()
        key = (mailbox.session, mailbox.machine)
        match request.WhichOneof("message"):
            case "progress":
                dispatcher.progress(*key, stream_convert.totals_of(request.progress), now)
                self._pump.pulse.beat(mailbox.session)
            case "outcome":
                outcome = request.outcome
                error = None if outcome.succeeded else outcome.error or "the machine did not say why"
                dispatcher.finish(*key, stream_convert.totals_of(outcome.totals), error, now)
                if error is not None:
                    _logger.warning("%s failed in %s: %s", mailbox.machine, mailbox.session, error)
                mailbox.finished = True
                self._pump.wake()
            case "sender_unreachable":
                dispatcher.sender_unreachable(*key, now)
                self._pump.wake()
            case other:
                raise InvalidArgumentError(
                    f"a message of the stream is {other or 'empty'}: only progress, an outcome or sender_unreachable "
                    "may follow the join",
                    field="message",
                )

    def _half_closed(self, mailbox: SessionMailbox) -> None:
        """The machine has closed its side of the stream: right after its outcome, otherwise it has left."""
        if not mailbox.finished:
            mailbox.close()


def participation_service(
    sessions: Sessions, deployments: RunSessions, pump: Pump, told_address: Callable[[str, str], str]
) -> Service:
    """Returns the service, ready to be served; `told_address` is explained at `open_scheduler`."""
    return Service(
        add=add_ParticipationServiceServicer_to_server,
        servicer=ParticipationServicer(sessions, deployments, pump, told_address),
        full_name="fleetcast.scheduler.v1.ParticipationService",
        roles={"Participate": frozenset({Role.MACHINE})},
    )
