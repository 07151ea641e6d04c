"""SenderService: what an operator does with senders."""

from __future__ import annotations

from collections.abc import AsyncIterator

from fleetcast.scheduler.v1 import sender_service_pb2
from fleetcast.scheduler.v1.sender_service_pb2_grpc import SenderServiceServicer, add_SenderServiceServicer_to_server
from fleetcast_kit.identity.peer import Role
from fleetcast_kit.rpc import paging
from fleetcast_kit.rpc.context import Context
from fleetcast_kit.rpc.server import Service

from fleetcast_scheduler.senders.convert import sender_message
from fleetcast_scheduler.senders.senders import Senders


class SenderServicer(SenderServiceServicer):
    """Shows senders, drains and resumes them."""

    def __init__(self, senders: Senders) -> None:
        self._senders = senders

    async def GetSender(
        self, request: sender_service_pb2.GetSenderRequest, context: Context
    ) -> sender_service_pb2.GetSenderResponse:
        """Returns one sender."""
        return sender_service_pb2.GetSenderResponse(sender=sender_message(self._senders.get(request.name)))

    async def ListSenders(
        self, request: sender_service_pb2.ListSendersRequest, context: Context
    ) -> sender_service_pb2.ListSendersResponse:
        """Returns a page of senders."""
        page = paging.by_name(request)
        shown, token = page.cut(self._senders.list_senders(page.after or ""), lambda view: view.name)
        return sender_service_pb2.ListSendersResponse(senders=map(sender_message, shown), next_page_token=token)

    async def WatchSenders(
        self, request: sender_service_pb2.WatchSendersRequest, context: Context
    ) -> AsyncIterator[sender_service_pb2.WatchSendersResponse]:
        """Streams every sender, then those that changed."""
        async for changed in self._senders.watch():
            yield sender_service_pb2.WatchSendersResponse(senders=map(sender_message, changed))

    async def DrainSender(
        self, request: sender_service_pb2.DrainSenderRequest, context: Context
    ) -> sender_service_pb2.DrainSenderResponse:
        """Gives a sender no more sessions."""
        sender = await self._senders.drain(request.name, request.request_id, draining=True)
        return sender_service_pb2.DrainSenderResponse(sender=sender_message(sender))

    async def ResumeSender(
        self, request: sender_service_pb2.ResumeSenderRequest, context: Context
    ) -> sender_service_pb2.ResumeSenderResponse:
        """Gives a drained sender sessions again."""
        sender = await self._senders.drain(request.name, request.request_id, draining=False)
        return sender_service_pb2.ResumeSenderResponse(sender=sender_message(sender))


def sender_service(senders: Senders) -> Service:
    """Returns the service, ready to be served."""
    methods = ("GetSender", "ListSenders", "WatchSenders", "DrainSender", "ResumeSender")
    return Service(
        add=add_SenderServiceServicer_to_server,
        servicer=SenderServicer(senders),
        full_name="fleetcast.scheduler.v1.SenderService",
        roles=dict.fromkeys(methods, frozenset({Role.ADMINISTRATOR})),
    )
