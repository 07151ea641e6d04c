"""SenderService: what an operator does with senders."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import grpc
from fleetcast.scheduler.v1 import sender_service_pb2
from fleetcast.scheduler.v1.sender_service_pb2_grpc import SenderServiceServicer, add_SenderServiceServicer_to_server
from fleetcast_kit.errors import NotFoundError
from fleetcast_kit.identity.peer import Role
from fleetcast_kit.rpc.paging import decode_page_token, encode_page_token, page_size
from fleetcast_kit.rpc.server import Service

from fleetcast_scheduler.audit.audit import Audit
from fleetcast_scheduler.fields import timestamp
from fleetcast_scheduler.senders.desk import SenderDesk
from fleetcast_scheduler.senders.domain.sender import Sender

if TYPE_CHECKING:  # the class is generic in its stubs only
    _Context = grpc.aio.ServicerContext[Any, Any]


WATCH_SECONDS = 0.5
"""How often a watch looks for changes: senders report once a second, and people wait that long."""


class SenderServicer(SenderServiceServicer):
    """Shows senders, drains and resumes them."""

    def __init__(self, pump: SenderDesk, audit: Audit) -> None:
        self._pump = pump
        self._audit = audit

    async def GetSender(
        self, request: sender_service_pb2.GetSenderRequest, context: _Context
    ) -> sender_service_pb2.GetSenderResponse:
        """Returns one sender."""
        return sender_service_pb2.GetSenderResponse(sender=self._message(self._sender(request.name)))

    async def ListSenders(
        self, request: sender_service_pb2.ListSendersRequest, context: _Context
    ) -> sender_service_pb2.ListSendersResponse:
        """Returns a page of senders."""
        size = page_size(request.page_size)
        position = decode_page_token(request.page_token, str)
        after = str(position[0]) if position else ""
        names = sorted(name for name in self._pump.pool.senders if name > after)
        token = encode_page_token([names[size - 1]]) if len(names) > size else ""
        shown = [self._message(self._sender(name)) for name in names[:size]]
        return sender_service_pb2.ListSendersResponse(senders=shown, next_page_token=token)

    async def WatchSenders(
        self, request: sender_service_pb2.WatchSendersRequest, context: _Context
    ) -> AsyncIterator[sender_service_pb2.WatchSendersResponse]:
        """Streams every sender, then those that changed."""
        shown: dict[str, sender_service_pb2.Sender] = {}
        first = True
        while True:
            await self._pump.durable()
            present = {name: self._message(sender) for name, sender in self._pump.pool.senders.items()}
            changed = [name for name in sorted(present) if _changed(shown.get(name), present[name])]
            if changed or first:
                yield sender_service_pb2.WatchSendersResponse(senders=[present[name] for name in changed])
                shown |= {name: present[name] for name in changed}
                first = False
            await asyncio.sleep(WATCH_SECONDS)

    async def DrainSender(
        self, request: sender_service_pb2.DrainSenderRequest, context: _Context
    ) -> sender_service_pb2.DrainSenderResponse:
        """Gives a sender no more sessions."""
        sender = await self._drain(request.name, request.request_id, draining=True)
        return sender_service_pb2.DrainSenderResponse(sender=sender)

    async def ResumeSender(
        self, request: sender_service_pb2.ResumeSenderRequest, context: _Context
    ) -> sender_service_pb2.ResumeSenderResponse:
        """Gives a drained sender sessions again."""
        sender = await self._drain(request.name, request.request_id, draining=False)
        return sender_service_pb2.ResumeSenderResponse(sender=sender)

    async def _drain(self, name: str, request_id: str, *, draining: bool) -> sender_service_pb2.Sender:
        sender = self._sender(name)
        if sender.draining is not draining:
            self._pump.drain_sender(name, draining)
            self._audit.record("sender.drain" if draining else "sender.resume", name, request_id)
        await self._pump.durable()
        return self._message(sender)

    def _sender(self, name: str) -> Sender:
        try:
            return self._pump.pool.senders[name]
        except KeyError:
            raise NotFoundError(
                f"there is no sender {name.rpartition('/')[2]}: `fleetcast sender list` shows what there is",
                reason="SENDER_NOT_FOUND",
            ) from None

    def _message(self, sender: Sender) -> sender_service_pb2.Sender:
        offer = sender.registration
        running = [
            one for one in self._pump.pool.transmissions.values() if one.sender == sender.name and one.state.live
        ]
        return sender_service_pb2.Sender(
            name=sender.name,
            address=offer.address,
            interface=offer.interface,
            link_bits_per_second=offer.link_bits_per_second,
            first_group=offer.first_group,
            last_group=offer.last_group,
            first_port=offer.first_port,
            last_port=offer.last_port,
            max_concurrent=offer.max_concurrent,
            site=offer.site,
            connected=sender.connected,
            draining=sender.draining,
            transmissions=[one.name for one in running],
            rate_bits_per_second=sum(one.totals.rate_bits_per_second for one in running),
            receiver_count=sum(one.totals.receiver_count for one in running),
            subnets=offer.subnets,
            multicast_warning=next(filter(None, map(self._pump.pool.multicast_warning, running)), ""),
            register_time=timestamp(sender.register_time),
            contact_time=timestamp(self._pump.clock() if sender.connected else sender.contact_time),
        )


def _changed(shown: sender_service_pb2.Sender | None, present: sender_service_pb2.Sender) -> bool:
    """Returns whether there is more to tell than that the sender still lives."""
    if shown is None:
        return True
    told = sender_service_pb2.Sender()
    told.CopyFrom(shown)
    told.contact_time.CopyFrom(present.contact_time)
    return told != present


def sender_service(pump: SenderDesk, audit: Audit) -> Service:
    """Returns the service, ready to be served."""
    methods = ("GetSender", "ListSenders", "WatchSenders", "DrainSender", "ResumeSender")
    return Service(
        add=add_SenderServiceServicer_to_server,
        servicer=SenderServicer(pump, audit),
        full_name="fleetcast.scheduler.v1.SenderService",
        roles=dict.fromkeys(methods, frozenset({Role.ADMINISTRATOR})),
    )
