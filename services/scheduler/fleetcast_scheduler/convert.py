"""Sessions and participants of the API as domain objects, and back; fields are checked here."""

from __future__ import annotations

import re
from collections.abc import Iterable
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from fleetcast.scheduler.v1 import session_pb2
from fleetcast_kit.errors import InvalidArgumentError
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from fleetcast_scheduler.domain.operations import SessionEdit
from fleetcast_scheduler.domain.participant import Participant, ReceptionTotals
from fleetcast_scheduler.domain.policies import (
    AdmissionRules,
    DailyCeiling,
    EndPolicy,
    LatePolicy,
    RatePolicy,
    SlowAction,
    SlowPolicy,
)
from fleetcast_scheduler.domain.session import Session
from fleetcast_scheduler.domain.start_rules import Match, StartRules
from fleetcast_scheduler.domain.transmission import Transmission

MAX_CLIENTS = 100_000
MAX_DELAY_SECONDS = 30 * 86400
MAX_PRIORITY = 100
TOTALS = tuple(ReceptionTotals.__dataclass_fields__)
_IMAGE = re.compile(r"images/[A-Za-z0-9][A-Za-z0-9._-]{0,62}(@sha256:[0-9a-f]{64})?")
_SESSION = re.compile(r"sessions/[A-Za-z0-9-]{1,63}")
_PARTICIPANT = re.compile(r"(sessions/[A-Za-z0-9-]{1,63})/participants/([A-Za-z0-9-]{1,63})")


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
    return RatePolicy(
        message.fixed_bits_per_second,
        message.ceiling_bits_per_second,
        tuple(_daily_ceiling_of(daily) for daily in message.daily_ceilings),
    )


def admission_of(message: session_pb2.AdmissionRules) -> AdmissionRules:
    """Returns the admission rules in a request.

    Raises:
        InvalidArgumentError: the number is out of its range.
    """
    if not 0 <= message.max_participants <= MAX_CLIENTS:
        raise InvalidArgumentError(
            f"max_participants is {message.max_participants}: it must be between 0 and {MAX_CLIENTS}",
            field="admission.max_participants",
        )
    late = session_pb2.AdmissionRules.LatePolicy.Name(message.late_policy).removeprefix("LATE_POLICY_")
    end = session_pb2.AdmissionRules.EndPolicy.Name(message.end_policy).removeprefix("END_POLICY_")
    return AdmissionRules(
        until_time=message.until_time.ToMicroseconds() / 1e6 if message.HasField("until_time") else None,
        late_policy=LatePolicy.JOIN if late == "UNSPECIFIED" else LatePolicy(late),
        end_policy=EndPolicy.FINISH if end == "UNSPECIFIED" else EndPolicy(end),
        max_participants=message.max_participants,
    )


def priority_of(priority: int) -> int:
    """Returns the priority in a request.

    Raises:
        InvalidArgumentError: it is out of its range.
    """
    if abs(priority) > MAX_PRIORITY:
        raise InvalidArgumentError(
            f"priority is {priority}: it must be between -{MAX_PRIORITY} and {MAX_PRIORITY}", field="priority"
        )
    return priority


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
    action = session_pb2.SlowPolicy.Action.Name(message.action).removeprefix("ACTION_")
    return SlowPolicy(
        SlowAction.UNICAST if action == "UNSPECIFIED" else SlowAction(action), message.threshold_bits_per_second
    )


def edit_of(session: Session, message: session_pb2.Session, paths: Iterable[str]) -> SessionEdit:
    """Returns what a request changes: the fields of `message` that `paths` name, the rest as it is in `session`.

    Raises:
        InvalidArgumentError: a path names what cannot change, or a value is wrong.
    """
    present = session_message(session, None)
    chosen = {path.partition(".")[0] for path in paths}
    for path in paths:
        top, _, sub = path.partition(".")
        if top not in _EDITABLE or (sub and sub not in _subfields(top)):
            raise InvalidArgumentError(
                f"{path!r} cannot be changed: only {', '.join(_EDITABLE)} and their fields can", field="update_mask"
            )
        target, source = present, message
        if sub:
            target, source = getattr(present, top), getattr(message, top)
        _copy_field(target, source, sub or top)
    return SessionEdit(
        rules=start_rules_of(present.start_rules) if "start_rules" in chosen else None,
        rate=rate_of(present.rate) if "rate" in chosen else None,
        admission=admission_of(present.admission) if "admission" in chosen else None,
        priority=priority_of(present.priority) if "priority" in chosen else None,
        slow_policy=slow_policy_of(present.slow_policy) if "slow_policy" in chosen else None,
        etag=message.etag,
    )


def participant_name(name: str) -> tuple[str, str]:
    """Returns the session and the machine in the name of a participant.

    Raises:
        InvalidArgumentError: it is not such a name.
    """
    match = _PARTICIPANT.fullmatch(name)
    if match is None:
        raise InvalidArgumentError(
            f"{name!r} is not the name of a participant: write sessions/ID/participants/ID", field="name"
        )
    return match[1], f"machines/{match[2]}"


def session_message(session: Session, transmission: Transmission | None) -> session_pb2.Session:
    """Returns a session as the API shows it, with its latest transmission."""
    return session_pb2.Session(
        name=session.name,
        image=session.image,
        state=session_pb2.Session.State.Value(f"STATE_{session.state}"),
        mode=session_pb2.Session.Mode.Value(f"MODE_{session.mode}"),
        start_rules=_start_rules_message(session.rules),
        rate=rate_message(session.rate),
        waiting_reason=session.waiting_reason,
        error=session.error,
        create_time=timestamp(session.create_time),
        start_time=timestamp(session.start_time),
        end_time=timestamp(session.end_time),
        sender=transmission.sender if transmission is not None and session.transmission else "",
        transmission=None if transmission is None else _transmission_message(transmission),
        participant_count=session.participant_count,
        succeeded_count=session.succeeded_count,
        failed_count=session.failed_count,
        revision=session.revision,
        etag=str(session.edit_count),
        image_size_bytes=session.image_size_bytes,
        admission=session_pb2.AdmissionRules(
            until_time=timestamp(session.admission.until_time),
            late_policy=session_pb2.AdmissionRules.LatePolicy.Value(f"LATE_POLICY_{session.admission.late_policy}"),
            end_policy=session_pb2.AdmissionRules.EndPolicy.Value(f"END_POLICY_{session.admission.end_policy}"),
            max_participants=session.admission.max_participants,
        ),
        priority=session.priority,
        slow_policy=slow_policy_message(session.slow_policy),
        closed=session.closed,
    )


def slow_policy_message(policy: SlowPolicy) -> session_pb2.SlowPolicy:
    """Returns a slow policy as the API shows it."""
    return session_pb2.SlowPolicy(
        action=session_pb2.SlowPolicy.Action.Value(f"ACTION_{policy.action}"),
        threshold_bits_per_second=policy.threshold_bits_per_second,
    )


def participant_message(participant: Participant) -> session_pb2.Participant:
    """Returns a participant as the API shows it."""
    return session_pb2.Participant(
        name=participant.name,
        machine=participant.machine,
        display_name=participant.display_name,
        state=session_pb2.Participant.State.Value(f"STATE_{participant.state}"),
        totals=totals_message(participant.totals),
        rate_bytes_per_second=round(participant.rate_bytes_per_second),
        remaining_seconds=participant.remaining_seconds,
        error=participant.error,
        join_time=timestamp(participant.join_time),
        contact_time=timestamp(participant.contact_time),
        end_time=timestamp(participant.end_time),
        revision=participant.revision,
    )


def totals_message(totals: ReceptionTotals) -> session_pb2.ReceptionTotals:
    """Returns totals as the API shows them."""
    return session_pb2.ReceptionTotals(**{field: getattr(totals, field) for field in TOTALS})


def _start_rules_message(rules: StartRules) -> session_pb2.StartRules:
    return session_pb2.StartRules(
        min_clients=rules.min_clients,
        start_delay=duration(rules.start_delay_seconds),
        match=session_pb2.StartRules.Match.Value(f"MATCH_{rules.match}"),
        quiet_time=duration(rules.quiet_seconds),
        start_time=timestamp(rules.start_time),
        manual=rules.manual,
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


def duration(seconds: float | None) -> Duration | None:
    """Returns a duration as the API shows it."""
    if seconds is None:
        return None
    message = Duration()
    message.FromMicroseconds(round(seconds * 1e6))
    return message


def timestamp(time: float | None) -> Timestamp | None:
    """Returns an instant as the API shows it."""
    if time is None:
        return None
    message = Timestamp()
    message.FromMicroseconds(round(time * 1e6))
    return message


_EDITABLE = ("start_rules", "rate", "admission", "priority", "slow_policy")


def _subfields(top: str) -> list[str]:
    field = session_pb2.Session.DESCRIPTOR.fields_by_name[top]
    return [] if field.message_type is None else [sub.name for sub in field.message_type.fields]


def _copy_field(target: Message, source: Message, name: str) -> None:
    """Makes a field of `target` what it is in `source`, absent included."""
    target.ClearField(name)
    value = getattr(source, name)
    if isinstance(value, Message):
        if source.HasField(name):
            getattr(target, name).CopyFrom(value)
    elif target.DESCRIPTOR.fields_by_name[name].is_repeated:
        getattr(target, name).extend(value)
    else:
        setattr(target, name, value)


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
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InvalidArgumentError(
            f"{zone!r} is not a time zone: write a name like Europe/Berlin", field=field
        ) from None
    return DailyCeiling(message.start_minute, message.end_minute, zone, message.ceiling_bits_per_second)
