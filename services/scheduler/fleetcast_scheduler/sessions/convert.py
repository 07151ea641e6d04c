"""Sessions and participants of the API as domain objects, and back; fields are checked here."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from fleetcast.scheduler.v1 import session_pb2
from fleetcast_kit.errors import InvalidArgumentError
from fleetcast_kit.rpc.fields import timestamp
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from fleetcast_scheduler.names import collection_name
from fleetcast_scheduler.senders.convert import (
    rate_message,
    rate_of,
    slow_policy_message,
    slow_policy_of,
    unicast_reason_value,
)
from fleetcast_scheduler.senders.domain.transmission import Transmission
from fleetcast_scheduler.sessions import policy_convert
from fleetcast_scheduler.sessions.domain.operations import SessionEdit
from fleetcast_scheduler.sessions.domain.participant import Participant, ReceptionTotals
from fleetcast_scheduler.sessions.domain.session import Session

MAX_SITE_LENGTH = 255
MAX_MISSING = 100
TOTALS = tuple(ReceptionTotals.__dataclass_fields__)
_PARTICIPANT = re.compile(r"(sessions/[A-Za-z0-9-]{1,63})/participants/([A-Za-z0-9-]{1,63})")


# Names


def awaited_of(collection: str) -> str:
    """Returns the collection that is awaited; empty for none.

    Raises:
        InvalidArgumentError: it cannot be the name of one.
    """
    return collection and collection_name(collection, "collection")


# Sessions


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
        rules=policy_convert.start_rules_of(present.start_rules) if "start_rules" in chosen else None,
        rate=rate_of(present.rate) if "rate" in chosen else None,
        admission=policy_convert.admission_of(present.admission) if "admission" in chosen else None,
        priority=policy_convert.priority_of(present.priority) if "priority" in chosen else None,
        slow_policy=slow_policy_of(present.slow_policy) if "slow_policy" in chosen else None,
        site=present.site[:MAX_SITE_LENGTH] if "site" in chosen else None,
        any_site=present.any_site if "any_site" in chosen else None,
        collection=awaited_of(present.collection) if "collection" in chosen else None,
        recurrence=present.recurrence if "recurrence" in chosen else None,
        time_zone=policy_convert.time_zone_of(present.recurrence_time_zone, "recurrence_time_zone")
        if "recurrence_time_zone" in chosen
        else None,
        etag=message.etag,
    )


def values_of(message: Message, paths: Iterable[str]) -> dict[str, str]:
    """Returns what fields of a message say, by path, for the record."""
    plain = MessageToDict(message, preserving_proto_field_name=True)

    def value(path: str) -> str:
        found: Any = plain
        for name in path.split("."):
            found = found.get(name, {}) if isinstance(found, dict) else {}
        return str(found or "none")

    return {path: value(path) for path in paths}


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
    series = session.series
    return session_pb2.Session(
        name=session.name,
        image=session.image,
        state=session_pb2.Session.State.Value(f"STATE_{session.state}"),
        mode=session_pb2.Session.Mode.Value(f"MODE_{session.mode}"),
        start_rules=policy_convert.start_rules_message(session.rules),
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
        site=session.site,
        any_site=session.any_site,
        deployment=session.deployment,
        collection=session.collection,
        expected_count=len(session.expected),
        missing_machines=[] if session.state.final else session.missing[:MAX_MISSING],
        recurrence="" if series is None else series.recurrence.rule,
        recurrence_time_zone="" if series is None else series.recurrence.time_zone,
        occurrence=0 if series is None else series.occurrence,
        next_time=None if series is None else timestamp(series.next_time),
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
        unicast=participant.unicast_only or participant.apart,
        no_multicast_reason=participant.no_multicast_reason,
        unicast_reason=unicast_reason_value(participant.unicast_reason if participant.state.present else None),
    )


def totals_message(totals: ReceptionTotals) -> session_pb2.ReceptionTotals:
    """Returns totals as the API shows them."""
    return session_pb2.ReceptionTotals(**{field: getattr(totals, field) for field in TOTALS})


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


_EDITABLE = (
    "start_rules",
    "rate",
    "admission",
    "priority",
    "slow_policy",
    "site",
    "any_site",
    "collection",
    "recurrence",
    "recurrence_time_zone",
)


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
