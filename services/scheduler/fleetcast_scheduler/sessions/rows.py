"""Domain objects as rows, and back."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from datetime import datetime
from typing import Any

from fleetcast_scheduler.calendar.recurrence import Recurrence
from fleetcast_scheduler.senders.domain.policies import DailyCeiling, RatePolicy, SlowAction, SlowPolicy
from fleetcast_scheduler.senders.domain.sender import Registration, Sender
from fleetcast_scheduler.senders.domain.transmission import Transmission, TransmissionState, TransmissionTotals
from fleetcast_scheduler.sessions.domain.admission import AdmissionRules, EndPolicy, LatePolicy
from fleetcast_scheduler.sessions.domain.participant import Participant, ParticipantState, ReceptionTotals
from fleetcast_scheduler.sessions.domain.series import Series
from fleetcast_scheduler.sessions.domain.session import Session, SessionMode, SessionState
from fleetcast_scheduler.sessions.domain.start_rules import Match, StartRules
from fleetcast_scheduler.sessions.tables import ParticipantRow, SenderRow, SessionRow, TransmissionRow

Row = dict[str, Any]

_SESSION_COLUMNS = tuple(SessionRow.model_fields)
_PARTICIPANT_COLUMNS = tuple(ParticipantRow.model_fields)
_TOTALS = tuple(ReceptionTotals.__dataclass_fields__)
_TRANSMISSION_COLUMNS = tuple(TransmissionRow.model_fields)


def session_row(session: Session) -> Row:
    """Returns the row of a session."""
    row = {column: getattr(session, column) for column in _SESSION_COLUMNS}
    return row | {
        "rules": asdict(session.rules),
        "rate": asdict(session.rate),
        "admission": asdict(session.admission),
        "slow_policy": asdict(session.slow_policy),
        "series": None if session.series is None else _series_row(session.series),
        "counts": dict(session.counts),
    }


def session_of(row: SessionRow) -> Session:
    """Returns the session of a row, without participants but with their counts."""
    values = {column: getattr(row, column) for column in _SESSION_COLUMNS}
    return Session(
        **values
        | {
            "mode": SessionMode(row.mode),
            "state": SessionState(row.state),
            "rules": rules_of(row.rules),
            "rate": rate_of(row.rate),
            "admission": admission_of(row.admission),
            "slow_policy": slow_policy_of(row.slow_policy),
            "series": None if row.series is None else _series_of(row.series),
            "counts": Counter({ParticipantState(state): count for state, count in row.counts.items()}),
        }
    )


def _series_row(series: Series) -> Row:
    recurrence = series.recurrence
    return asdict(series) | {"recurrence": asdict(recurrence) | {"first": recurrence.first.isoformat()}}


def _series_of(values: Row) -> Series:
    recurrence = values["recurrence"]
    first = datetime.fromisoformat(recurrence["first"])
    return Series(**values | {"recurrence": Recurrence(**recurrence | {"first": first})})


def rules_of(values: Row) -> StartRules:
    """Returns the start rules that were stored."""
    return StartRules(**values | {"match": Match(values["match"])})


def admission_of(values: Row) -> AdmissionRules:
    """Returns the admission rules that were stored."""
    late_policy, end_policy = LatePolicy(values["late_policy"]), EndPolicy(values["end_policy"])
    return AdmissionRules(**values | {"late_policy": late_policy, "end_policy": end_policy})


def slow_policy_of(values: Row) -> SlowPolicy:
    """Returns the slow policy that was stored."""
    return SlowPolicy(**values | {"action": SlowAction(values["action"])})


def rate_of(values: Row) -> RatePolicy:
    """Returns the rate policy that was stored."""
    ceilings = tuple(DailyCeiling(**ceiling) for ceiling in values.get("daily_ceilings", ()))
    return RatePolicy(**values | {"daily_ceilings": ceilings})


def participant_row(participant: Participant) -> Row:
    """Returns the row of a participant."""
    row = {column: getattr(participant, column) for column in _PARTICIPANT_COLUMNS}
    totals = participant.totals
    row["totals"] = {field: getattr(totals, field) for field in _TOTALS}  # asdict would copy deeply: ten times slower
    return row


def participant_of(row: ParticipantRow) -> Participant:
    """Returns the participant of a row."""
    values = {column: getattr(row, column) for column in _PARTICIPANT_COLUMNS}
    return Participant(**values | {"state": ParticipantState(row.state), "totals": ReceptionTotals(**row.totals)})


def sender_row(sender: Sender) -> Row:
    """Returns the row of a sender."""
    return {
        "name": sender.name,
        "registration": asdict(sender.registration),
        "register_time": sender.register_time,
        "contact_time": sender.contact_time,
        "draining": sender.draining,
    }


def sender_of(row: SenderRow) -> Sender:
    """Returns the sender of a row, without a stream."""
    return Sender(
        name=row.name,
        registration=Registration(**row.registration | {"subnets": tuple(row.registration.get("subnets", ()))}),
        register_time=row.register_time,
        contact_time=row.contact_time,
        draining=row.draining,
    )


def transmission_row(transmission: Transmission) -> Row:
    """Returns the row of a transmission."""
    row = {column: getattr(transmission, column) for column in _TRANSMISSION_COLUMNS}
    row["totals"] = asdict(transmission.totals)
    return row


def transmission_of(row: TransmissionRow) -> Transmission:
    """Returns the transmission of a row."""
    values = {column: getattr(row, column) for column in _TRANSMISSION_COLUMNS}
    return Transmission(**values | {"state": TransmissionState(row.state), "totals": TransmissionTotals(**row.totals)})
