"""Messages of the API as domain objects, and back; fields are checked here."""

from __future__ import annotations

import re
from ipaddress import ip_address

from fleetcast.scheduler.v1 import participation_service_pb2 as participation
from fleetcast.scheduler.v1 import sender_registry_service_pb2 as registry
from fleetcast.scheduler.v1 import session_pb2
from fleetcast_kit.addresses import split_address
from fleetcast_kit.errors import InvalidArgumentError
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from fleetcast_scheduler.domain import events
from fleetcast_scheduler.domain.participant import Joiner, Participant, ReceptionTotals
from fleetcast_scheduler.domain.sender import Registration
from fleetcast_scheduler.domain.session import RatePolicy, Session
from fleetcast_scheduler.domain.start_rules import Match, StartRules
from fleetcast_scheduler.domain.transmission import ReportState, Transmission, TransmissionReport, TransmissionTotals
from fleetcast_scheduler.streams import Letter

MAX_CLIENTS = 100_000
MAX_DELAY_SECONDS = 30 * 86400
_TOTALS = tuple(ReceptionTotals.__dataclass_fields__)
_IMAGE = re.compile(r"images/[A-Za-z0-9][A-Za-z0-9._-]{0,62}(@sha256:[0-9a-f]{64})?")
_SESSION = re.compile(r"sessions/[A-Za-z0-9-]{1,63}")


# Names


def image_name(name: str, field: str = "image") -> str:
    """Returns `name` if it can be that of an image or an image version.

    Raises:
        InvalidArgumentError: it cannot.
    """
    if not _IMAGE.fullmatch(name):
        raise InvalidArgumentError(
            f"{name!r} is not the name of an image: write images/NAME or images/NAME@sha256:HEX", field=field
        )
    return name


def session_name(name: str, field: str = "name") -> str:
    """Returns `name` if it can be that of a session.

    Raises:
        InvalidArgumentError: it cannot.
    """
    if not _SESSION.fullmatch(name):
        raise InvalidArgumentError(f"{name!r} is not the name of a session: write sessions/ID", field=field)
    return name


# Sessions


def start_rules_of(message: session_pb2.StartRules) -> StartRules:
    """Returns the start rules in a request.

    Raises:
        InvalidArgumentError: a number is out of its range.
    """
    if not 0 <= message.min_clients <= MAX_CLIENTS:
        raise InvalidArgumentError(
            f"min_clients is {message.min_clients}: it must be between 0 and {MAX_CLIENTS}",
            field="start_rules.min_clients",
        )
    start_time = message.start_time.ToMicroseconds() / 1e6 if message.HasField("start_time") else None
    return StartRules(
        min_clients=message.min_clients,
        start_delay_seconds=_delay(message, "start_delay"),
        quiet_seconds=_delay(message, "quiet_time"),
        start_time=start_time,
        manual=message.manual,
        match=Match.ALL if message.match == session_pb2.StartRules.MATCH_ALL else Match.ANY,
    )


def rate_of(message: session_pb2.RatePolicy) -> RatePolicy:
    """Returns the rate policy in a request.

    Raises:
        InvalidArgumentError: a rate is negative.
    """
    for field in ("fixed_bits_per_second", "ceiling_bits_per_second"):
        value = getattr(message, field)
        if value < 0:
            raise InvalidArgumentError(f"{field} is {value}: it cannot be negative", field=f"rate.{field}")
    return RatePolicy(message.fixed_bits_per_second, message.ceiling_bits_per_second)


def session_message(session: Session, transmission: Transmission | None) -> session_pb2.Session:
    """Returns a session as the API shows it, with its latest transmission."""
    return session_pb2.Session(
        name=session.name,
        image=session.image,
        state=session_pb2.Session.State.Value(f"STATE_{session.state}"),
        mode=session_pb2.Session.Mode.Value(f"MODE_{session.mode}"),
        start_rules=_start_rules_message(session.rules),
        rate=_rate_message(session.rate),
        waiting_reason=session.waiting_reason,
        error=session.error,
        create_time=_timestamp(session.create_time),
        start_time=_timestamp(session.start_time),
        end_time=_timestamp(session.end_time),
        sender=transmission.sender if transmission is not None and session.transmission else "",
        transmission=None if transmission is None else _transmission_message(transmission),
        participant_count=session.participant_count,
        succeeded_count=session.succeeded_count,
        failed_count=session.failed_count,
        revision=session.revision,
        etag=str(session.edit_count),
        image_size_bytes=session.image_size_bytes,
    )


def participant_message(participant: Participant) -> session_pb2.Participant:
    """Returns a participant as the API shows it."""
    return session_pb2.Participant(
        name=participant.name,
        machine=participant.machine,
        display_name=participant.display_name,
        state=session_pb2.Participant.State.Value(f"STATE_{participant.state}"),
        totals=_totals_message(participant.totals),
        rate_bytes_per_second=round(participant.rate_bytes_per_second),
        remaining_seconds=participant.remaining_seconds,
        error=participant.error,
        join_time=_timestamp(participant.join_time),
        contact_time=_timestamp(participant.contact_time),
        end_time=_timestamp(participant.end_time),
        revision=participant.revision,
    )


# Machines


def joiner_of(machine: str, message: participation.Join) -> Joiner:
    """Returns who joins.

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
    )


def totals_of(message: session_pb2.ReceptionTotals) -> ReceptionTotals:
    """Returns what a machine reports."""
    return ReceptionTotals(*[getattr(message, field) for field in _TOTALS])


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
    )


def report_of(message: registry.TransmissionReport) -> TransmissionReport:
    """Returns what a sender says about a transmission.

    Raises:
        InvalidArgumentError: it says no state.
    """
    if message.state == registry.TransmissionReport.STATE_UNSPECIFIED:
        raise InvalidArgumentError("a transmission report must have a state", field="report.state")
    name = registry.TransmissionReport.State.Name(message.state).removeprefix("STATE_")
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
            response.start.rate.CopyFrom(_rate_message(command.rate))
            response.start.machines.extend(command.machines)
            response.start.traceparent = command.traceparent
        case events.AdmitParticipants(transmission, machines):
            response.admit.transmission = transmission
            response.admit.machines.extend(machines)
        case events.DismissParticipants(transmission, machines):
            response.dismiss.transmission = transmission
            response.dismiss.machines.extend(machines)
        case events.SetTransmissionRate(transmission, rate):
            response.set_rate.transmission = transmission
            response.set_rate.rate.CopyFrom(_rate_message(rate))
        case events.StopTransmission(transmission):
            response.stop.transmission = transmission
    return response


def _totals_message(totals: ReceptionTotals) -> session_pb2.ReceptionTotals:
    return session_pb2.ReceptionTotals(**{field: getattr(totals, field) for field in _TOTALS})


def _start_rules_message(rules: StartRules) -> session_pb2.StartRules:
    return session_pb2.StartRules(
        min_clients=rules.min_clients,
        start_delay=_duration(rules.start_delay_seconds),
        match=session_pb2.StartRules.Match.Value(f"MATCH_{rules.match}"),
        quiet_time=_duration(rules.quiet_seconds),
        start_time=_timestamp(rules.start_time),
        manual=rules.manual,
    )


def _rate_message(rate: RatePolicy) -> session_pb2.RatePolicy:
    return session_pb2.RatePolicy(
        fixed_bits_per_second=rate.fixed_bits_per_second, ceiling_bits_per_second=rate.ceiling_bits_per_second
    )


def _transmission_message(transmission: Transmission) -> session_pb2.Transmission:
    totals = transmission.totals
    message = session_pb2.Transmission(
        name=transmission.name,
        group=transmission.group,
        port=transmission.port,
        sent_source_bytes=totals.sent_source_bytes,
        sent_repair_bytes=totals.sent_repair_bytes,
        sent_unicast_bytes=totals.sent_unicast_bytes,
        rate_bits_per_second=totals.rate_bits_per_second if transmission.state.live else 0,
        sent_chunk_count=totals.sent_chunk_count,
        receiver_count=totals.receiver_count if transmission.state.live else 0,
    )
    setattr(message, "pass", totals.pass_)
    return message


def _delay(message: session_pb2.StartRules, field: str) -> float | None:
    if not message.HasField(field):  # type: ignore[arg-type]  # the stub lists the fields one by one
        return None
    seconds = getattr(message, field).ToMicroseconds() / 1e6
    if not 0 <= seconds <= MAX_DELAY_SECONDS:
        raise InvalidArgumentError(
            f"{field} is {seconds:g} s: it must be between 0 and {MAX_DELAY_SECONDS} s (30 days)",
            field=f"start_rules.{field}",
        )
    return float(seconds)


def _duration(seconds: float | None) -> Duration | None:
    if seconds is None:
        return None
    duration = Duration()
    duration.FromMicroseconds(round(seconds * 1e6))
    return duration


def _timestamp(time: float | None) -> Timestamp | None:
    if time is None:
        return None
    timestamp = Timestamp()
    timestamp.FromMicroseconds(round(time * 1e6))
    return timestamp
