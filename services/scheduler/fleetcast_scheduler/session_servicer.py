"""SessionService: what an operator does with sessions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import grpc
from fleetcast.scheduler.v1 import session_pb2
from fleetcast.scheduler.v1 import session_service_pb2 as messages
from fleetcast.scheduler.v1.session_service_pb2_grpc import (
    SessionServiceServicer,
    add_SessionServiceServicer_to_server,
)
from fleetcast_kit.errors import InvalidArgumentError
from fleetcast_kit.identity import Role
from fleetcast_kit.paging import decode_page_token, encode_page_token, page_size
from fleetcast_kit.server import Service

from fleetcast_scheduler import convert
from fleetcast_scheduler.domain.session import Session
from fleetcast_scheduler.sessions import Sessions

if TYPE_CHECKING:  # the class is generic in its stubs only
    _Context = grpc.aio.ServicerContext[Any, Any]


class SessionServicer(SessionServiceServicer):
    """Converts, calls, converts back."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    async def CreateSession(  # noqa: N802
        self, request: messages.CreateSessionRequest, context: _Context
    ) -> messages.CreateSessionResponse:
        """Opens a session."""
        session = await self._sessions.create(
            convert.image_name(request.image),
            convert.start_rules_of(request.start_rules),
            convert.rate_of(request.rate),
            request.request_id,
        )
        return messages.CreateSessionResponse(session=await self._message(session))

    async def GetSession(  # noqa: N802
        self, request: messages.GetSessionRequest, context: _Context
    ) -> messages.GetSessionResponse:
        """Returns one session."""
        session = await self._sessions.get(convert.session_name(request.name))
        return messages.GetSessionResponse(session=await self._message(session))

    async def ListSessions(  # noqa: N802
        self, request: messages.ListSessionsRequest, context: _Context
    ) -> messages.ListSessionsResponse:
        """Returns a page of sessions."""
        size = page_size(request.page_size)
        position = decode_page_token(request.page_token, str, str)
        after = None if position is None else (_time_in(str(position[0])), str(position[1]))
        found = await self._sessions.list(after, size + 1)
        token = ""
        if len(found) > size:
            last = found[size - 1]
            token = encode_page_token([repr(last.create_time), last.name])
        shown = [await self._message(session) for session in found[:size]]
        return messages.ListSessionsResponse(sessions=shown, next_page_token=token)

    async def ListParticipants(  # noqa: N802
        self, request: messages.ListParticipantsRequest, context: _Context
    ) -> messages.ListParticipantsResponse:
        """Returns a page of participants."""
        size = page_size(request.page_size, default=1000, maximum=10000)
        position = decode_page_token(request.page_token, int)
        session = await self._sessions.get(convert.session_name(request.parent, "parent"))
        start = int(position[0]) if position else 0
        participants = list(session.participants.values())
        shown = participants[start : start + size]
        token = encode_page_token([start + size]) if start + size < len(participants) else ""
        return messages.ListParticipantsResponse(
            participants=map(convert.participant_message, shown), next_page_token=token
        )

    async def WatchSession(  # noqa: N802
        self, request: messages.WatchSessionRequest, context: _Context
    ) -> AsyncIterator[messages.WatchSessionResponse]:
        """Streams a session and its participants."""
        if request.after_revision < 0:
            raise InvalidArgumentError(
                f"after_revision is {request.after_revision}: it cannot be negative", field="after_revision"
            )
        async for view in self._sessions.watch(convert.session_name(request.name), request.after_revision):
            yield messages.WatchSessionResponse(
                session=convert.session_message(view.session, view.transmission),
                participants=map(convert.participant_message, view.participants),
                lost=view.lost,
            )

    async def StartSession(  # noqa: N802
        self, request: messages.StartSessionRequest, context: _Context
    ) -> messages.StartSessionResponse:
        """Starts a session now."""
        session = await self._sessions.start(convert.session_name(request.name))
        return messages.StartSessionResponse(session=await self._message(session))

    async def CancelSession(  # noqa: N802
        self, request: messages.CancelSessionRequest, context: _Context
    ) -> messages.CancelSessionResponse:
        """Ends a session."""
        session = await self._sessions.cancel(convert.session_name(request.name))
        return messages.CancelSessionResponse(session=await self._message(session))

    async def _message(self, session: Session) -> session_pb2.Session:
        return convert.session_message(session, await self._sessions.transmission(session))


def _time_in(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InvalidArgumentError(
            "page_token is not one that this list returned: start again without it", field="page_token"
        ) from None


def session_service(sessions: Sessions) -> Service:
    """Returns the service, ready to be served."""
    methods = (
        "CreateSession",
        "GetSession",
        "ListSessions",
        "ListParticipants",
        "WatchSession",
        "StartSession",
        "CancelSession",
    )
    return Service(
        add=add_SessionServiceServicer_to_server,
        servicer=SessionServicer(sessions),
        full_name="fleetcast.scheduler.v1.SessionService",
        roles=dict.fromkeys(methods, frozenset({Role.ADMINISTRATOR})),
    )
