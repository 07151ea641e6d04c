"""Start rules, rates and policies of the API as domain objects, and back; fields are checked here."""

from __future__ import annotations

from fleetcast.scheduler.v1 import session_pb2
from fleetcast_kit.errors import InvalidArgumentError
from fleetcast_kit.rpc.fields import duration, enum_name, seconds_of, timestamp

from fleetcast_scheduler.calendar.local_time import time_zone
from fleetcast_scheduler.sessions.domain.admission import AdmissionRules, EndPolicy, LatePolicy
from fleetcast_scheduler.sessions.domain.start_rules import Match, StartRules

MAX_CLIENTS = 100_000
MAX_DELAY_SECONDS = 30 * 86400
MAX_PRIORITY = 100


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
    start_time = seconds_of(message.start_time, "start_rules.start_time") if message.HasField("start_time") else None
    return StartRules(
        min_clients=message.min_clients,
        start_delay_seconds=_delay(message, "start_delay"),
        quiet_seconds=_delay(message, "quiet_time"),
        start_time=start_time,
        manual=message.manual,
        match=Match.ALL if message.match == session_pb2.StartRules.MATCH_ALL else Match.ANY,
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
    late = enum_name(
        session_pb2.AdmissionRules.LatePolicy, message.late_policy, "LATE_POLICY_", "admission.late_policy"
    )
    end = enum_name(session_pb2.AdmissionRules.EndPolicy, message.end_policy, "END_POLICY_", "admission.end_policy")
    return AdmissionRules(
        until_time=seconds_of(message.until_time, "admission.until_time") if message.HasField("until_time") else None,
        late_policy=LatePolicy.JOIN if late == "UNSPECIFIED" else LatePolicy(late),
        end_policy=EndPolicy.FINISH if end == "UNSPECIFIED" else EndPolicy(end),
        max_participants=message.max_participants,
    )


def time_zone_of(name: str, field: str) -> str:
    """Returns `name` if it is that of a time zone, or is empty.

    Raises:
        InvalidArgumentError: it is not.
    """
    if name:
        time_zone(name, field)
    return name


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


def start_rules_message(rules: StartRules) -> session_pb2.StartRules:
    """Returns start rules as the API shows them."""
    return session_pb2.StartRules(
        min_clients=rules.min_clients,
        start_delay=duration(rules.start_delay_seconds),
        match=session_pb2.StartRules.Match.Value(f"MATCH_{rules.match}"),
        quiet_time=duration(rules.quiet_seconds),
        start_time=timestamp(rules.start_time),
        manual=rules.manual,
    )


def _delay(message: session_pb2.StartRules, field: str) -> float | None:
    if not message.HasField(field):  # type: ignore[arg-type]  # the stub lists the fields one by one
        return None
    seconds = seconds_of(getattr(message, field), f"start_rules.{field}")
    if not 0 <= seconds <= MAX_DELAY_SECONDS:
        raise InvalidArgumentError(
            f"{field} is {seconds:g} s: it must be between 0 and {MAX_DELAY_SECONDS} s (30 days)",
            field=f"start_rules.{field}",
        )
    return seconds
