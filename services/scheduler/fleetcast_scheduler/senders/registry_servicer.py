"""SenderRegistryService: how senders offer themselves and take orders."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from fleetcast.scheduler.v1 import sender_registry_service_pb2
from fleetcast.scheduler.v1.sender_registry_service_pb2_grpc import (
    SenderRegistryServiceServicer,
    add_SenderRegistryServiceServicer_to_server,
)
from fleetcast_kit.errors import FleetcastError, InvalidArgumentError
from fleetcast_kit.identity.peer import Role, current_identity, current_peer
from fleetcast_kit.rpc.context import Context
from fleetcast_kit.rpc.server import Service

from fleetcast_scheduler.senders import convert
from fleetcast_scheduler.senders.desk import SenderDesk
from fleetcast_scheduler.senders.streams import SenderStream


class SenderRegistryServicer(SenderRegistryServiceServicer):
    """Passes a sender's messages to the rules, and sends the commands for it."""

    def __init__(self, pump: SenderDesk, catalog_address: str) -> None:
        self._pump = pump
        self._catalog_address = catalog_address

    async def ServeSender(
        self, request_iterator: AsyncIterator[sender_registry_service_pb2.ServeSenderRequest], context: Context
    ) -> AsyncIterator[sender_registry_service_pb2.ServeSenderResponse]:
        """Serves one sender as long as its stream lives."""
        first = await anext(request_iterator, None)
        if first is None or first.WhichOneof("message") != "registration":
            raise InvalidArgumentError("the first message of the stream must be a registration", field="registration")
        name = current_identity().name
        registration = convert.registration_of(first.registration, current_peer().address)
        stream = self._pump.connect_sender(name, registration, first.registration.transmissions)
        reader = asyncio.create_task(self._read(request_iterator, stream))
        try:
            await self._pump.durable()
            registered = sender_registry_service_pb2.SenderRegistered(name=name, catalog_address=self._catalog_address)
            yield sender_registry_service_pb2.ServeSenderResponse(registered=registered)
            while (numbered := await stream.next()) is not None:
                yield convert.command_message(*numbered)
        finally:
            self._pump.disconnect_sender(stream)
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)

    async def _read(
        self, requests: AsyncIterator[sender_registry_service_pb2.ServeSenderRequest], stream: SenderStream
    ) -> None:
        """Reads the sender's messages; ends the stream with an error if one is not valid."""
        try:
            async for request in requests:
                match request.WhichOneof("message"):
                    case "result":
                        self._pump.answer_command(stream, request.result.command_id, request.result.error)
                    case "report":
                        self._pump.report_transmission(stream, convert.report_of(request.report))
                    case other:
                        raise InvalidArgumentError(
                            f"a message of the stream is {other or 'empty'}: only results and reports may follow the "
                            "registration",
                            field="message",
                        )
            stream.close()
        except FleetcastError as error:
            stream.close(error)


def sender_registry_service(pump: SenderDesk, catalog_address: str) -> Service:
    """Returns the service, ready to be served; senders are told where the catalog is, empty meaning here."""
    return Service(
        add=add_SenderRegistryServiceServicer_to_server,
        servicer=SenderRegistryServicer(pump, catalog_address),
        full_name="fleetcast.scheduler.v1.SenderRegistryService",
        roles={"ServeSender": frozenset({Role.SENDER})},
    )
