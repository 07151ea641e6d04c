"""SessionService: what an operator does with sessions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from fleetcast.scheduler.v1 import session_pb2, session_service_pb2
from fleetcast.scheduler.v1.session_service_pb2_grpc import (
    SessionServiceServicer,
    add_SessionServiceServicer_to_server,
)
from fleetcast_kit.errors import InvalidArgumentError
from fleetcast_kit.identity.peer import Role
from fleetcast_kit.rpc import paging
from fleetcast_kit.rpc.context import Context
from fleetcast_kit.rpc.fields import seconds_of
from fleetcast_kit.rpc.server import Service

from fleetcast_scheduler.names import image_name, session_name
from fleetcast_scheduler.senders.convert import rate_of, slow_policy_of
from fleetcast_scheduler.senders.domain.transmission import Transmission
from fleetcast_scheduler.sessions import convert, policy_convert
from fleetcast_scheduler.sessions.domain.operations import SessionEdit
from fleetcast_scheduler.sessions.domain.participant import Participant
from fleetcast_scheduler.sessions.domain.session import Session
from fleetcast_scheduler.sessions.pump import Pump
from fleetcast_scheduler.sessions.sessions import Sessions

_Operation = (
    session_service_pb2.StartSessionRequest
    | session_service_pb2.CancelSessionRequest
    | session_service_pb2.CloseSessionRequest
    | session_service_pb2.DrainSessionRequest
    | session_service_pb2.StopSessionRequest
    | session_service_pb2.ExtendSessionRequest
)


class SessionServicer(SessionServiceServicer):
    """Converts, calls, converts back."""

    def __init__(self, sessions: Sessions, pump: Pump) -> None:
        self._sessions = sessions
        self._operations = pump.dispatcher.operations
        self._pool = pump.pool
        self._clock = pump.clock

    async def CreateSession(
        self, request: session_service_pb2.CreateSessionRequest, context: Context
    ) -> session_service_pb2.CreateSessionResponse:
        """Opens a session."""
        session = await self._sessions.create(
            image_name(request.image),
            SessionEdit(
                rules=policy_convert.start_rules_of(request.start_rules),
                rate=rate_of(request.rate),
                admission=policy_convert.admission_of(request.admission),
                priority=policy_convert.priority_of(request.priority),
                slow_policy=slow_policy_of(request.slow_policy),
                site=request.site[: convert.MAX_SITE_LENGTH],
                any_site=request.any_site,
                collection=convert.awaited_of(request.collection),
                recurrence=request.recurrence,
                time_zone=policy_convert.time_zone_of(request.recurrence_time_zone, "recurrence_time_zone"),
            ),
            request.request_id,
        )
        return session_service_pb2.CreateSessionResponse(session=await self._message(session))

    async def GetSession(
        self, request: session_service_pb2.GetSessionRequest, context: Context
    ) -> session_service_pb2.GetSessionResponse:
        """Returns one session."""
        session = await self._sessions.get(session_name(request.name))
        return session_service_pb2.GetSessionResponse(session=await self._message(session))

    async def ListSessions(
        self, request: session_service_pb2.ListSessionsRequest, context: Context
    ) -> session_service_pb2.ListSessionsResponse:
        """Returns a page of sessions."""
        page = paging.by_time(request)
        found = await self._sessions.list(page.after, page.limit)
        shown, token = page.cut(found, lambda session: (session.create_time, session.name))
        return session_service_pb2.ListSessionsResponse(
            sessions=[await self._message(session) for session in shown], next_page_token=token
        )

    async def ListParticipants(
        self, request: session_service_pb2.ListParticipantsRequest, context: Context
    ) -> session_service_pb2.ListParticipantsResponse:
        """Returns a page of participants."""
        page = paging.by_number(request, default=1000, maximum=10000)
        session = await self._sessions.get(session_name(request.parent, "parent"))
        start = page.after or 0
        participants = list(session.participants.values())
        shown, token = page.cut(participants[start : start + page.limit], lambda _: start + page.size)
        return session_service_pb2.ListParticipantsResponse(
            participants=map(convert.participant_message, shown), next_page_token=token
        )

    async def WatchSession(
        self, request: session_service_pb2.WatchSessionRequest, context: Context
    ) -> AsyncIterator[session_service_pb2.WatchSessionResponse]:
        """Streams a session and its participants."""
        if request.after_revision < 0:
            raise InvalidArgumentError(
                f"after_revision is {request.after_revision}: it cannot be negative", field="after_revision"
            )
        async for view in self._sessions.watch(session_name(request.name), request.after_revision):
            yield session_service_pb2.WatchSessionResponse(
                session=self._shown(view.session, view.transmission),
                participants=map(convert.participant_message, view.participants),
                lost=view.lost,
            )

    async def StartSession(
        self, request: session_service_pb2.StartSessionRequest, context: Context
    ) -> session_service_pb2.StartSessionResponse:
        """Starts a session now."""
        session = await self._operate(request, "start", self._operations.start)
        return session_service_pb2.StartSessionResponse(session=session)

    async def CancelSession(
        self, request: session_service_pb2.CancelSessionRequest, context: Context
    ) -> session_service_pb2.CancelSessionResponse:
        """Ends a session."""
        session = await self._operate(
            request,
            "cancel",
            lambda session: self._operations.cancel(session, self._clock(), series=request.series),
            **({"series": True} if request.series else {}),
        )
        return session_service_pb2.CancelSessionResponse(session=session)

    async def CloseSession(
        self, request: session_service_pb2.CloseSessionRequest, context: Context
    ) -> session_service_pb2.CloseSessionResponse:
        """Admits no more machines."""
        session = await self._operate(request, "close", self._operations.close)
        return session_service_pb2.CloseSessionResponse(session=session)

    async def DrainSession(
        self, request: session_service_pb2.DrainSessionRequest, context: Context
    ) -> session_service_pb2.DrainSessionResponse:
        """Admits no more machines to a session, and lets those that receive finish."""
        session = await self._operate(request, "drain", lambda session: self._operations.drain(session, self._clock()))
        return session_service_pb2.DrainSessionResponse(session=session)

    async def StopSession(
        self, request: session_service_pb2.StopSessionRequest, context: Context
    ) -> session_service_pb2.StopSessionResponse:
        """Completes a session at once."""
        session = await self._operate(request, "stop", lambda session: self._operations.stop(session, self._clock()))
        return session_service_pb2.StopSessionResponse(session=session)

    async def ExtendSession(
        self, request: session_service_pb2.ExtendSessionRequest, context: Context
    ) -> session_service_pb2.ExtendSessionResponse:
        """Moves the end of a session to later."""
        seconds = seconds_of(request.extension, "extension")
        if not 0 < seconds <= policy_convert.MAX_DELAY_SECONDS:
            raise InvalidArgumentError(
                f"extension is {seconds:g} s: it must be positive, and 30 days at most", field="extension"
            )
        session = await self._operate(
            request, "extend", lambda session: self._operations.extend(session, seconds), extension_seconds=seconds
        )
        return session_service_pb2.ExtendSessionResponse(session=session)

    async def UpdateSession(
        self, request: session_service_pb2.UpdateSessionRequest, context: Context
    ) -> session_service_pb2.UpdateSessionResponse:
        """Changes a session."""
        paths = list(request.update_mask.paths)
        if not paths:
            raise InvalidArgumentError("update_mask is empty: name the fields to change", field="update_mask")

        def edit(session: Session) -> None:
            self._operations.edit(session, convert.edit_of(session, request.session, paths))

        session = await self._sessions.operate(
            session_name(request.session.name, "session.name"),
            "update",
            request.request_id,
            edit,
            **convert.values_of(request.session, paths),
        )
        return session_service_pb2.UpdateSessionResponse(session=await self._message(session))

    async def KickParticipant(
        self, request: session_service_pb2.KickParticipantRequest, context: Context
    ) -> session_service_pb2.KickParticipantResponse:
        """Takes a machine out."""
        name, machine = convert.participant_name(request.name)
        reason = request.reason[:255]
        apart = request.action == session_service_pb2.KickParticipantRequest.ACTION_UNICAST

        def kick(session: Session) -> None:
            if apart:
                self._operations.serve_apart(session, machine)
            else:
                self._operations.kick(session, machine, reason, self._clock())

        session = await self._sessions.operate(
            name,
            "kick",
            request.request_id,
            kick,
            machine=machine,
            reason=reason,
            becomes="unicast" if apart else "abort",
        )
        return session_service_pb2.KickParticipantResponse(
            participant=convert.participant_message(session.participants[machine])
        )

    async def RetryParticipants(
        self, request: session_service_pb2.RetryParticipantsRequest, context: Context
    ) -> session_service_pb2.RetryParticipantsResponse:
        """Gives machines another chance."""
        parent = session_name(request.parent, "parent")
        machines = []
        for name in request.names:
            session, machine = convert.participant_name(name)
            if session != parent:
                raise InvalidArgumentError(f"{name} does not take part in {parent}", field="names")
            machines.append(machine)
        retried: list[Participant] = []

        def retry(session: Session) -> None:
            retried.extend(self._operations.retry(session, machines, self._clock()))

        await self._sessions.operate(
            parent, "retry", request.request_id, retry, machines=" ".join(machines)[:4000] or "all that failed"
        )
        return session_service_pb2.RetryParticipantsResponse(participants=map(convert.participant_message, retried))

    async def _operate(
        self, request: _Operation, action: str, act: Callable[[Session], object], **detail: object
    ) -> session_pb2.Session:
        name = session_name(request.name)
        return await self._message(await self._sessions.operate(name, action, request.request_id, act, **detail))

    async def _message(self, session: Session) -> session_pb2.Session:
        return self._shown(session, await self._sessions.transmission(session))

    def _shown(self, session: Session, transmission: Transmission | None) -> session_pb2.Session:
        message = convert.session_message(session, transmission)
        if transmission is not None and session.transmission:
            message.multicast_warning = self._pool.multicast_warning(transmission)
        return message


def session_service(sessions: Sessions, pump: Pump) -> Service:
    """Returns the service, ready to be served."""
    methods = (
        "CreateSession",
        "GetSession",
        "ListSessions",
        "ListParticipants",
        "WatchSession",
        "StartSession",
        "CancelSession",
        "UpdateSession",
        "ExtendSession",
        "CloseSession",
        "DrainSession",
        "StopSession",
        "KickParticipant",
        "RetryParticipants",
    )
    return Service(
        add=add_SessionServiceServicer_to_server,
        servicer=SessionServicer(sessions, pump),
        full_name="fleetcast.scheduler.v1.SessionService",
        roles=dict.fromkeys(methods, frozenset({Role.ADMINISTRATOR})),
    )
