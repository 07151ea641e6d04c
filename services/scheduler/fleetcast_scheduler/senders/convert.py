"""What senders say and hear as domain objects, and back; fields are checked here."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address, ip_network

from fleetcast.scheduler.v1 import sender_registry_service_pb2, sender_service_pb2, session_pb2
from fleetcast_kit.errors import InvalidArgumentError
from fleetcast_kit.network.reach import is_loopback
from fleetcast_kit.rpc.fields import enum_name, timestamp
from fleetcast_kit.values.addresses import join_address, split_address

from fleetcast_scheduler.calendar.local_time import time_zone
from fleetcast_scheduler.senders.domain import commands
from fleetcast_scheduler.senders.domain.policies import DailyCeiling, RatePolicy, SlowAction, SlowPolicy
from fleetcast_scheduler.senders.domain.sender import Registration
from fleetcast_scheduler.senders.domain.transmission import (
    ReportState,
    TransmissionReport,
    TransmissionTotals,
    UnicastReason,
)
from fleetcast_scheduler.senders.senders import SenderView

MAX_SUBNETS = 64


def registration_of(message: sender_registry_service_pb2.SenderRegistration, peer_address: str = "") -> Registration:
    """Returns what a sender offers; `peer_address` is where its stream comes from, empty if not known.

    A sender on another host that gives a loopback address is reached where it calls from: by that address a
    machine would dial itself.

    Raises:
        InvalidArgumentError: its address or ranges are impossible.
    """
    host, port = split_address(message.address, field="registration.address")
    if peer_address and is_loopback(host) and not is_loopback(peer_address):
        host = peer_address
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
        address=join_address(host, port),
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


def _subnets_of(message: sender_registry_service_pb2.SenderRegistration) -> tuple[str, ...]:
    if len(message.subnets) > MAX_SUBNETS:
        raise InvalidArgumentError(
            f"a sender is in {len(message.subnets)} subnets: it may name {MAX_SUBNETS}", field="registration.subnets"
        )
    try:
        return tuple(str(ip_network(subnet, strict=False)) for subnet in message.subnets)
    except ValueError as error:
        raise InvalidArgumentError(
            f"a subnet is not valid, write 192.0.2.0/24: {error}", field="registration.subnets"
        ) from error


def report_of(message: sender_registry_service_pb2.TransmissionReport) -> TransmissionReport:
    """Returns what a sender says about a transmission.

    Raises:
        InvalidArgumentError: it says no state.
    """
    if message.state == sender_registry_service_pb2.TransmissionReport.STATE_UNSPECIFIED:
        raise InvalidArgumentError("a transmission report must have a state", field="report.state")
    name = enum_name(sender_registry_service_pb2.TransmissionReport.State, message.state, "STATE_", "report.state")
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
    return TransmissionReport(sent.name, ReportState(name), totals, message.error, _unicast_of(message.unicast))


def _unicast_of(groups: Iterable[session_pb2.UnicastMachines]) -> dict[str, UnicastReason]:
    """Returns why machines are served by unicast; a reason that only a newer sender knows is left out."""
    known = {unicast_reason_value(reason): reason for reason in UnicastReason}
    return {machine: known[group.reason] for group in groups if group.reason in known for machine in group.machines}


def unicast_reason_value(reason: UnicastReason | None) -> session_pb2.UnicastReason.ValueType:
    """Returns a reason as the API shows it."""
    return session_pb2.UnicastReason.Value(f"UNICAST_REASON_{reason or 'UNSPECIFIED'}")


def command_message(command_id: int, command: commands.Command) -> sender_registry_service_pb2.ServeSenderResponse:
    """Returns what a sender is to do."""
    response = sender_registry_service_pb2.ServeSenderResponse(command_id=command_id)
    match command:
        case commands.StartTransmission():
            response.start.transmission = command.transmission
            response.start.image = command.image
            response.start.group = command.group
            response.start.port = command.port
            response.start.rate.CopyFrom(rate_message(command.rate))
            response.start.machines.extend(command.machines)
            response.start.traceparent = command.traceparent
            response.start.slow_policy.CopyFrom(slow_policy_message(command.slow_policy))
        case commands.AdmitParticipants(transmission, machines):
            response.admit.transmission = transmission
            response.admit.machines.extend(machines)
        case commands.DismissParticipants(transmission, machines):
            response.dismiss.transmission = transmission
            response.dismiss.machines.extend(machines)
        case commands.MoveToUnicast(transmission, machines):
            response.move_to_unicast.transmission = transmission
            response.move_to_unicast.machines.extend(machines)
        case commands.SetTransmissionRate(transmission, rate):
            response.set_rate.transmission = transmission
            response.set_rate.rate.CopyFrom(rate_message(rate))
        case commands.StopTransmission(transmission):
            response.stop.transmission = transmission
        case commands.WakeMachines(mac_addresses):
            response.wake.mac_addresses.extend(mac_addresses)
    return response


def rate_of(message: session_pb2.RatePolicy) -> RatePolicy:
    """Returns the rate policy in a request.

    Raises:
        InvalidArgumentError: a rate is negative.
    """
    for field in ("fixed_bits_per_second", "ceiling_bits_per_second"):
        value = getattr(message, field)
        if value < 0:
            raise InvalidArgumentError(f"{field} is {value}: it cannot be negative", field=f"rate.{field}")
    return RatePolicy(
        message.fixed_bits_per_second,
        message.ceiling_bits_per_second,
        tuple(_daily_ceiling_of(daily) for daily in message.daily_ceilings),
    )


def slow_policy_of(message: session_pb2.SlowPolicy) -> SlowPolicy:
    """Returns the slow policy in a request.

    Raises:
        InvalidArgumentError: the threshold is negative.
    """
    if message.threshold_bits_per_second < 0:
        raise InvalidArgumentError(
            f"threshold_bits_per_second is {message.threshold_bits_per_second}: it cannot be negative",
            field="slow_policy.threshold_bits_per_second",
        )
    action = enum_name(session_pb2.SlowPolicy.Action, message.action, "ACTION_", "slow_policy.action")
    return SlowPolicy(
        SlowAction.UNICAST if action == "UNSPECIFIED" else SlowAction(action), message.threshold_bits_per_second
    )


def slow_policy_message(policy: SlowPolicy) -> session_pb2.SlowPolicy:
    """Returns a slow policy as the API shows it."""
    return session_pb2.SlowPolicy(
        action=session_pb2.SlowPolicy.Action.Value(f"ACTION_{policy.action}"),
        threshold_bits_per_second=policy.threshold_bits_per_second,
    )


def rate_message(rate: RatePolicy) -> session_pb2.RatePolicy:
    """Returns a rate policy as the API shows it."""
    return session_pb2.RatePolicy(
        fixed_bits_per_second=rate.fixed_bits_per_second,
        ceiling_bits_per_second=rate.ceiling_bits_per_second,
        daily_ceilings=[
            session_pb2.DailyCeiling(
                start_minute=daily.start_minute,
                end_minute=daily.end_minute,
                time_zone=daily.time_zone,
                ceiling_bits_per_second=daily.ceiling_bits_per_second,
            )
            for daily in rate.daily_ceilings
        ],
    )


def _daily_ceiling_of(message: session_pb2.DailyCeiling) -> DailyCeiling:
    field = "rate.daily_ceilings"
    if not 0 <= message.start_minute < 1440 or not 0 <= message.end_minute <= 1440:
        raise InvalidArgumentError(
            f"a daily ceiling is from minute {message.start_minute} to minute {message.end_minute}: "
            "a day has the minutes 0 to 1440",
            field=field,
        )
    if message.start_minute == message.end_minute:
        raise InvalidArgumentError(
            f"a daily ceiling begins and ends at minute {message.start_minute}: for the whole day write 0 to 1440",
            field=field,
        )
    if message.ceiling_bits_per_second <= 0:
        raise InvalidArgumentError(
            f"a daily ceiling is {message.ceiling_bits_per_second} bit/s: it must be positive", field=field
        )
    zone = message.time_zone or "UTC"
    time_zone(zone, field)
    return DailyCeiling(message.start_minute, message.end_minute, zone, message.ceiling_bits_per_second)


def sender_message(view: SenderView) -> sender_service_pb2.Sender:
    """Returns a sender as the API shows it."""
    offer = view.registration
    return sender_service_pb2.Sender(
        name=view.name,
        address=offer.address,
        interface=offer.interface,
        link_bits_per_second=offer.link_bits_per_second,
        first_group=offer.first_group,
        last_group=offer.last_group,
        first_port=offer.first_port,
        last_port=offer.last_port,
        max_concurrent=offer.max_concurrent,
        site=offer.site,
        connected=view.connected,
        draining=view.draining,
        transmissions=view.transmissions,
        rate_bits_per_second=view.rate_bits_per_second,
        receiver_count=view.receiver_count,
        subnets=offer.subnets,
        multicast_warning=view.multicast_warning,
        unicast=[
            session_pb2.UnicastMachines(reason=unicast_reason_value(reason), machine_count=count)
            for reason, count in view.unicast
        ],
        register_time=timestamp(view.register_time),
        contact_time=timestamp(view.contact_time),
    )
