"""What an operator does with a session."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from fleetcast_kit.errors import AbortedError, FailedPreconditionError, InvalidArgumentError, NotFoundError

from fleetcast_scheduler.senders.domain.policies import RatePolicy, SlowPolicy
from fleetcast_scheduler.senders.domain.pool import SenderPool
from fleetcast_scheduler.sessions.domain.admission import AdmissionRules
from fleetcast_scheduler.sessions.domain.events import MachinesNotified
from fleetcast_scheduler.sessions.domain.ledger import Ledger
from fleetcast_scheduler.sessions.domain.participant import Participant, ParticipantState
from fleetcast_scheduler.sessions.domain.progression import Progression, farewell
from fleetcast_scheduler.sessions.domain.series import Series
from fleetcast_scheduler.sessions.domain.session import Session, SessionState
from fleetcast_scheduler.sessions.domain.start_rules import StartRules, format_time


@dataclass(frozen=True, slots=True)
class SessionEdit:
    """New values for a session; None leaves the present one."""

    rules: StartRules | None = None
    rate: RatePolicy | None = None
    admission: AdmissionRules | None = None
    priority: int | None = None
    slow_policy: SlowPolicy | None = None
    site: str | None = None
    any_site: bool | None = None
    collection: str | None = None
    recurrence: str | None = None
    """A rule of RFC 5545; empty for none."""
    time_zone: str | None = None
    """On whose clock it recurs."""
    etag: str = ""
    """If not empty, the edit is made only if nobody made another since."""


class Operations:
    """What operators do with sessions. An operation that ends something changes nothing when repeated."""

    def __init__(self, ledger: Ledger, pool: SenderPool, progression: Progression) -> None:
        self._ledger = ledger
        self._pool = pool
        self._progression = progression

    def start(self, session: Session) -> None:
        """Starts a session now, whatever its rules say.

        Raises:
            FailedPreconditionError: it has ended.
        """
        _check_open(session)
        if session.state is SessionState.WAITING:
            session.start_requested = True
            self._edited(session)

    def cancel(self, session: Session, now: float, *, series: bool = False) -> None:
        """Ends a session; its machines are dismissed. With `series` no later occurrence follows."""
        if not session.state.final:
            session.edit_count += 1
            session.series = None if series else session.series
            self._progression.finish(session, SessionState.CANCELLED, now, dismissal="the session was cancelled")

    def stop(self, session: Session, now: float) -> None:
        """Completes a session at once: machines that have not ended are dismissed."""
        if not session.state.final:
            session.edit_count += 1
            self._progression.finish(session, SessionState.COMPLETED, now, dismissal="an operator stopped the session")

    def close(self, session: Session) -> None:
        """Admits no more machines. A waiting session no longer waits for a number of machines."""
        if not session.state.final and not session.closed:
            session.closed = True
            self._edited(session)

    def drain(self, session: Session, now: float) -> None:
        """Admits no more machines, dismisses those that wait, and lets the others finish."""
        self.close(session)
        if session.queue:
            session.edit_count += 1
        for machine in list(session.queue):
            self._dismiss(session, session.participants[machine], "an operator drained the session", now)

    def kick(self, session: Session, machine: str, reason: str, now: float) -> Participant:
        """Takes a machine out, for good.

        Raises:
            NotFoundError: it does not take part.
            FailedPreconditionError: its part has ended.
        """
        participant = _participant(session, machine)
        if participant.state is ParticipantState.DISMISSED:
            return participant
        _check_taking_part(session, participant)
        session.edit_count += 1
        self._dismiss(session, participant, reason or "an operator took it out", now)
        return participant

    def serve_apart(self, session: Session, machine: str) -> Participant:
        """Has a machine served by unicast from now on; it goes on taking part.

        Raises:
            NotFoundError: it does not take part.
            FailedPreconditionError: its part has ended.
        """
        participant = _participant(session, machine)
        _check_taking_part(session, participant)
        if not participant.apart:
            participant.apart = True
            session.edit_count += 1
            self._pool.move_to_unicast(session.transmission, machine)
            self._ledger.record(session, participant)
        return participant

    def retry(self, session: Session, machines: Sequence[str], now: float) -> list[Participant]:
        """Lets machines that failed or were taken out come again: those named, or all that failed.

        Raises:
            NotFoundError: one of them has not joined.
            FailedPreconditionError: the session has ended.
        """
        _check_open(session)
        chosen = [_participant(session, one) for one in machines or session.machines(ParticipantState.FAILED)]
        for participant in chosen:
            if participant.state in (ParticipantState.FAILED, ParticipantState.DISMISSED):
                session.edit_count += 1
                session.move(participant, ParticipantState.LOST, now)
                self._ledger.record(session, participant)
        return chosen

    def extend(self, session: Session, seconds: float) -> None:
        """Moves `until_time`, and while it waits the start time, to later.

        Raises:
            FailedPreconditionError: it has neither, or has ended or closed.
        """
        _check_open(session)
        admission, rules = session.admission, session.rules
        waits = session.state is SessionState.WAITING and rules.start_time is not None
        if session.closed or not (waits or admission.until_time is not None):
            raise FailedPreconditionError(
                f"{session.name} has no end and no start time to move: "
                + ("it is closed" if session.closed else "set one first, by `fleetcast session update --until`"),
                reason="NOTHING_TO_EXTEND",
            )
        if admission.until_time is not None:
            session.admission = replace(admission, until_time=admission.until_time + seconds)
        if waits and rules.start_time is not None:
            session.rules = replace(rules, start_time=rules.start_time + seconds)
            session.series = _moved(session)
        self._edited(session)

    def edit(self, session: Session, edit: SessionEdit) -> None:
        """Changes a session: everything while it waits; rate, priority, site and admission until it ends.

        Raises:
            FailedPreconditionError: it is too late for this change.
            AbortedError: somebody else changed it since `edit.etag` was read.
        """
        _check_open(session)
        if edit.etag and edit.etag != str(session.edit_count):
            raise AbortedError(
                f"{session.name} was changed by somebody else: read it again, then change it", reason="ETAG_MISMATCH"
            )
        started = session.state is not SessionState.WAITING
        late = edit.admission is not None and edit.admission.late_policy is not session.admission.late_policy
        fixed = [
            name
            for name, changes in (
                ("start_rules", edit.rules not in (None, session.rules)),
                ("slow_policy", edit.slow_policy not in (None, session.slow_policy)),
                ("admission.late_policy", late),
            )
            if changes and started
        ]
        if session.series is None and edit.time_zone and not edit.recurrence:
            raise FailedPreconditionError(
                f"{session.name} does not recur: a recurrence_time_zone needs a recurrence", reason="NOT_RECURRING"
            )
        if fixed:
            raise FailedPreconditionError(
                f"{session.name} has started: {', '.join(fixed)} can change only while it waits",
                reason="SESSION_STARTED",
            )
        session.rules = session.rules if edit.rules is None else edit.rules
        session.rate = session.rate if edit.rate is None else edit.rate
        session.admission = session.admission if edit.admission is None else edit.admission
        session.priority = session.priority if edit.priority is None else edit.priority
        session.slow_policy = session.slow_policy if edit.slow_policy is None else edit.slow_policy
        session.site = session.site if edit.site is None else edit.site
        session.any_site = session.any_site if edit.any_site is None else edit.any_site
        if edit.collection is not None and edit.collection != session.collection:
            session.collection, session.expected = edit.collection, {}
        recurs_otherwise = edit.recurrence is not None or edit.time_zone is not None
        session.series = _series(session, edit) if recurs_otherwise else _moved(session)
        self._edited(session)

    def _dismiss(self, session: Session, participant: Participant, reason: str, now: float) -> None:
        session.move(participant, ParticipantState.DISMISSED, now, reason)
        self._pool.dismiss(session.transmission, participant.machine)
        self._ledger.record(session, participant)
        message = farewell(session, participant)
        self._ledger.events.append(MachinesNotified(session.name, (participant.machine,), message))

    def _edited(self, session: Session) -> None:
        session.edit_count += 1
        self._ledger.record(session)


def _participant(session: Session, machine: str) -> Participant:
    try:
        return session.participants[machine]
    except KeyError:
        raise NotFoundError(f"{machine} has not joined {session.name}", reason="PARTICIPANT_NOT_FOUND") from None


def _check_taking_part(session: Session, participant: Participant) -> None:
    if participant.state.final:
        raise FailedPreconditionError(
            f"{participant.machine} has ended in {session.name} ({participant.state}): there is nothing to take it "
            "out of",
            reason="PARTICIPANT_ENDED",
        )


def _series(session: Session, edit: SessionEdit) -> Series | None:
    """Returns how an edited session recurs."""
    present = session.series
    rule = present.recurrence.rule if edit.recurrence is None and present is not None else edit.recurrence
    zone = present.recurrence.time_zone if edit.time_zone is None and present is not None else edit.time_zone
    occurrence = 1 if present is None else present.occurrence
    return begin_series(rule or "", zone or "", session.rules, session.admission, occurrence)


def _moved(session: Session) -> Series | None:
    """Returns how a session recurs whose start time may have been moved."""
    start_time = session.rules.start_time
    return session.series if session.series is None or start_time is None else session.series.after(start_time)


def begin_series(
    rule: str, time_zone: str, rules: StartRules, admission: AdmissionRules, occurrence: int = 1
) -> Series | None:
    """Returns the series of a session with these rules; None without a recurrence rule.

    Raises:
        InvalidArgumentError: the text is not a recurrence rule, it never recurs, or there is no start time.
    """
    if not rule:
        return None
    if rules.start_time is None:
        raise InvalidArgumentError(
            "a session recurs at its start time and has none: set start_rules.start_time", field="recurrence"
        )
    series = Series.begin(rule, time_zone, rules.start_time, admission.until_time, occurrence)
    if series.next_time is None:
        raise InvalidArgumentError(
            f"{rule!r} never recurs after {format_time(rules.start_time)}: give another rule, or none",
            field="recurrence",
        )
    return series


def _check_open(session: Session) -> None:
    if session.state.final:
        raise ended(session)


def ended(session: Session) -> FailedPreconditionError:
    """Returns the error for what an ended session no longer does."""
    return FailedPreconditionError(
        f"{session.name} is {session.state}: join or create another one",
        reason="SESSION_ENDED",
        metadata={"session": session.name},
    )


def refusal(session: Session, machine: str) -> FailedPreconditionError | None:
    """Returns why an open session does not admit a machine; None if it does."""
    participant = session.participants.get(machine)
    if participant is not None:
        if participant.state is not ParticipantState.DISMISSED:
            return None
        reason, sentence = "PARTICIPANT_REMOVED", f"{machine} was taken out of {session.name}: {participant.error}"
    elif session.closed:
        reason, sentence = "SESSION_CLOSED", f"{session.name} is closed and takes no more machines: join another one"
    elif session.refuses_late:
        reason, sentence = "SESSION_STARTED", f"{session.name} has started and takes no late machines: join another one"
    elif session.collection and machine not in session.expected:
        reason = "NOT_A_MEMBER"
        sentence = (
            f"{session.name} is for the machines of {session.collection}, and {machine} is none of them: add it with "
            f"`fleetcast collection add {session.collection.partition('/')[2]} {machine.partition('/')[2]}`"
        )
    else:
        return None
    return FailedPreconditionError(sentence, reason=reason, metadata={"session": session.name, "machine": machine})
