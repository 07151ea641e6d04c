"""What machines and senders say and hear on their streams as domain objects, and back; fields are checked here."""

from __future__ import annotations

from fleetcast.scheduler.v1 import participation_service_pb2, session_pb2
from fleetcast_kit.errors import InvalidArgumentError

from fleetcast_scheduler.images import Medium
from fleetcast_scheduler.loop.mailbox import Outgoing
from fleetcast_scheduler.machines.domain.machine import Inventory
from fleetcast_scheduler.sessions import convert
from fleetcast_scheduler.sessions.domain import events
from fleetcast_scheduler.sessions.domain.participant import Joiner, ReceptionTotals
from fleetcast_scheduler.sessions.mailbox import Message

_MAX_IDENTIFIER_LENGTH, _MAX_ADAPTERS = 255, 64

# Machines


def joiner_of(machine: str, message: participation_service_pb2.Join, address: str = "") -> Joiner:
    """Returns who joins; `address` is where the stream comes from.

    Raises:
        InvalidArgumentError: the size is impossible.
    """
    if message.target_size_bytes < -1:
        raise InvalidArgumentError(
            f"target_size_bytes is {message.target_size_bytes}: it is the size in bytes, or -1 for a file that grows",
            field="join.target_size_bytes",
        )
    return Joiner(
        machine=machine,
        display_name=message.display_name[:255],
        unicast_only=message.unicast_only,
        no_multicast_reason=message.no_multicast_reason[:255],
        # proto3 cannot tell 0 from absent; no image fits into nothing, so nothing is said by it.
        target_size_bytes=message.target_size_bytes or -1,
        address=address,
        medium=_medium(message.medium),
        medium_sector_size_bytes=message.medium_sector_size_bytes,
        hardware=Inventory(
            smbios_uuid=message.hardware.smbios_uuid[:_MAX_IDENTIFIER_LENGTH],
            serial_number=message.hardware.serial_number[:_MAX_IDENTIFIER_LENGTH],
            mac_addresses=tuple(mac[:_MAX_IDENTIFIER_LENGTH] for mac in message.hardware.mac_addresses[:_MAX_ADAPTERS]),
        ),
    )


def _medium(value: participation_service_pb2.Join.Medium.ValueType) -> Medium:
    try:
        return Medium(participation_service_pb2.Join.Medium.Name(value).removeprefix("MEDIUM_"))
    except ValueError:
        return Medium.ANY  # of an agent that is newer than this


def totals_of(message: session_pb2.ReceptionTotals) -> ReceptionTotals:
    """Returns what a machine reports."""
    return ReceptionTotals(*[getattr(message, field) for field in convert.TOTALS])


def response_message(outgoing: Outgoing[Message]) -> participation_service_pb2.ParticipateResponse:
    """Returns what a machine hears."""
    response = participation_service_pb2.ParticipateResponse(acknowledged_sequence=outgoing.acknowledged_sequence)
    match outgoing.message:
        case events.Waiting() as waiting:
            response.waiting.session = waiting.session
            response.waiting.image = waiting.image
            response.waiting.reason = waiting.reason
            response.waiting.joined_count = waiting.joined_count
            response.waiting.min_clients = waiting.min_clients
        case events.Assignment() as assignment:
            response.assignment.session = assignment.session
            response.assignment.image = assignment.image
            response.assignment.size_bytes = assignment.size_bytes
            response.assignment.transmission = assignment.transmission
            response.assignment.sender_address = assignment.sender_address
            response.assignment.traceparent = assignment.traceparent
        case events.Dismissal(reason, detail):
            response.dismissal.reason = participation_service_pb2.Dismissal.Reason.Value(f"REASON_{reason}")
            response.dismissal.detail = detail
    return response


# Senders
