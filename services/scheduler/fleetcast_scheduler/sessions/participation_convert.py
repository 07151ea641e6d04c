"""What machines and senders say and hear on their streams as domain objects, and back; fields are checked here."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from fleetcast.scheduler.v1 import participation_service_pb2 as participation
from fleetcast.scheduler.v1 import sender_registry_service_pb2 as registry
from fleetcast.scheduler.v1 import session_pb2
from fleetcast_kit.errors import InvalidArgumentError
from fleetcast_kit.values.addresses import split_address

from fleetcast_scheduler.fields import enum_name
from fleetcast_scheduler.senders.domain.sender import Registration
from fleetcast_scheduler.senders.domain.transmission import ReportState, TransmissionReport, TransmissionTotals
from fleetcast_scheduler.sessions import convert, policy_convert
from fleetcast_scheduler.sessions.domain import events
from fleetcast_scheduler.sessions.domain.participant import Joiner, ReceptionTotals
from fleetcast_scheduler.sessions.mailbox import Letter

MAX_SUBNETS = 64

# Machines


def joiner_of(machine: str, message: participation.Join, address: str = "") -> Joiner:
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
    )


def totals_of(message: session_pb2.ReceptionTotals) -> ReceptionTotals:
    """Returns what a machine reports."""
    return ReceptionTotals(*[getattr(message, field) for field in convert.TOTALS])


def letter_message(letter: Letter) -> participation.ParticipateResponse:
    """Returns what a machine hears."""
    response = participation.ParticipateResponse(acknowledged_sequence=letter.acknowledged_sequence)
    match letter.message:
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
            response.dismissal.reason = participation.Dismissal.Reason.Value(f"REASON_{reason}")
            response.dismissal.detail = detail
    return response


# Senders


def registration_of(message: registry.SenderRegistration) -> Registration:
    """Returns what a sender offers.

    Raises:
        InvalidArgumentError: its address or ranges are impossible.
    """
    split_address(message.address, field="registration.address")
    try:
        first, last = ip_address(message.first_group), ip_address(message.last_group)
    except ValueError as error:
        raise InvalidArgumentError(f"a group is no address: {error}", field="registration.first_group") from error
    local_control = first.version == 4 and int(first) < int(ip_address("224.0.1.0"))  # RFC 5771, section 4
    if not (first.is_multicast and last.is_multicast) or local_control:
        raise InvalidArgumentError(
            f"{first} to {last} is not a range of multicast groups outside 224.0.0.0/24: use one in 239.192.0.0/14",
            field="registration.first_group",
        )
    if first.version != last.version or int(first) > int(last):
        raise InvalidArgumentError(
            f"the groups from {first} to {last} are no range: the first comes after the last",
            field="registration.last_group",
        )
    if not 1 <= message.first_port <= message.last_port <= 65535:
        raise InvalidArgumentError(
            f"the ports from {message.first_port} to {message.last_port} are no range between 1 and 65535",
            field="registration.first_port",
        )
    if message.max_concurrent < 0:
        raise InvalidArgumentError(
            f"max_concurrent is {message.max_concurrent}: it cannot be negative", field="registration.max_concurrent"
        )
    return Registration(
        address=message.address,
        first_group=str(first),
        last_group=str(last),
        first_port=message.first_port,
        last_port=message.last_port,
        interface=message.interface,
        link_bits_per_second=message.link_bits_per_second,
        max_concurrent=message.max_concurrent,
        site=message.site,
        subnets=_subnets_of(message),
    )


def _subnets_of(message: registry.SenderRegistration) -> tuple[str, ...]:
    if len(message.subnets) > MAX_SUBNETS:
        raise InvalidArgumentError(
            f"a sender is in {len(message.subnets)} subnets: it may name {MAX_SUBNETS}", field="registration.subnets"
        )
    try:
        return tuple(str(ip_network(subnet, strict=False)) for subnet in message.subnets)
    except ValueError as error:
        raise InvalidArgumentError(f"a subnet is none: {error}", field="registration.subnets") from error


def report_of(message: registry.TransmissionReport) -> TransmissionReport:
    """Returns what a sender says about a transmission.

    Raises:
        InvalidArgumentError: it says no state.
    """
    if message.state == registry.TransmissionReport.STATE_UNSPECIFIED:
        raise InvalidArgumentError("a transmission report must have a state", field="report.state")
    name = enum_name(registry.TransmissionReport.State, message.state, "STATE_", "report.state")
    sent = message.transmission
    totals = TransmissionTotals(
        pass_=getattr(sent, "pass"),
        sent_source_bytes=sent.sent_source_bytes,
        sent_repair_bytes=sent.sent_repair_bytes,
        sent_unicast_bytes=sent.sent_unicast_bytes,
        rate_bits_per_second=sent.rate_bits_per_second,
        sent_chunk_count=sent.sent_chunk_count,
        receiver_count=sent.receiver_count,
    )
    return TransmissionReport(sent.name, ReportState(name), totals, message.error)


def command_message(command_id: int, command: events.Command) -> registry.ServeSenderResponse:
    """Returns what a sender is to do."""
    response = registry.ServeSenderResponse(command_id=command_id)
    match command:
        case events.StartTransmission():
            response.start.transmission = command.transmission
            response.start.image = command.image
            response.start.group = command.group
            response.start.port = command.port
            response.start.rate.CopyFrom(policy_convert.rate_message(command.rate))
            response.start.machines.extend(command.machines)
            response.start.traceparent = command.traceparent
            response.start.slow_policy.CopyFrom(policy_convert.slow_policy_message(command.slow_policy))
        case events.AdmitParticipants(transmission, machines):
            response.admit.transmission = transmission
            response.admit.machines.extend(machines)
        case events.DismissParticipants(transmission, machines):
            response.dismiss.transmission = transmission
            response.dismiss.machines.extend(machines)
        case events.MoveToUnicast(transmission, machines):
            response.move_to_unicast.transmission = transmission
            response.move_to_unicast.machines.extend(machines)
        case events.SetTransmissionRate(transmission, rate):
            response.set_rate.transmission = transmission
            response.set_rate.rate.CopyFrom(policy_convert.rate_message(rate))
        case events.StopTransmission(transmission):
            response.stop.transmission = transmission
        case events.WakeMachines(mac_addresses):
            response.wake.mac_addresses.extend(mac_addresses)
    return response
