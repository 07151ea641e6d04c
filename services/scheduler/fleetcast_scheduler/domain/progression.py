"""How a session moves on: from its rules, its machines, its sender and the time."""

from __future__ import annotations

from collections.abc import Iterable

from fleetcast_scheduler.domain.events import (
    Assignment,
    Dismissal,
    DismissalReason,
    MachinesNotified,
    SessionEnded,
)
from fleetcast_scheduler.domain.ledger import Ledger, wake
from fleetcast_scheduler.domain.participant import Participant, ParticipantState
from fleetcast_scheduler.domain.session import (
    MAX_FAILURES,
    STEADY_SECONDS,
    Session,
    SessionMode,
    SessionState,
    Timing,
)
from fleetcast_scheduler.domain.start_rules import evaluate
from fleetcast_scheduler.domain.transmission import Transmission
from fleetcast_scheduler.domain.transmissions import (
    CapacityChanged,
    MachinesAdmitted,
    Outcome,
    TransmissionLost,
    TransmissionResumed,
    Transmissions,
)


class Progression:
    """Draws conclusions about sessions and writes them in the ledger."""

    def __init__(self, ledger: Ledger, pool: Transmissions, timing: Timing) -> None:
        self._ledger = ledger
        self._pool = pool
        self._timing = timing

    def settle(self, now: float) -> None:
        """Draws every conclusion that is due at `now`."""
        ledger = self._ledger
        ledger.unsettled.update(
            session.name
            for session in ledger.sessions.values()
            if session.wake_time is not None and session.wake_time <= now
        )
        self.follow(self._pool.settle(now), now)
        while ledger.unsettled:
            for name in sorted(ledger.unsettled, key=lambda name: (ledger.sessions[name].create_time, name)):
                ledger.unsettled.discard(name)
                self._step(ledger.sessions[name], now)
            self.follow(self._pool.settle(now), now)

    def follow(self, outcomes: Iterable[Outcome], now: float) -> None:
        """Draws the conclusions from what happened to transmissions."""
        for outcome in outcomes:
            match outcome:
                case MachinesAdmitted(transmission, machines):
                    self._assign(transmission, machines)
                case TransmissionLost():
                    self._replace(outcome, now)
                case TransmissionResumed(name):
                    self._readmit(name)
                case CapacityChanged():
                    self._ledger.touch_starved()
                    self._ledger.touch_running()

    def finish(self, session: Session, state: SessionState, now: float) -> None:
        """Puts a session in a final state: everybody is told, the sender stops, the image is to be released."""
        self._stop(session, now)
        session.state, session.end_time = state, now
        session.idle_time = session.wake_time = None
        session.waiting_reason = ""
        told = session.machines(ParticipantState.WAITING) + session.machines(ParticipantState.RECEIVING)
        outcome, error = {
            SessionState.CANCELLED: (ParticipantState.DISMISSED, "the session was cancelled"),
            SessionState.FAILED: (ParticipantState.FAILED, session.error),
        }.get(state, (ParticipantState.FAILED, "contact was lost and the machine did not come back"))
        for participant in session.participants.values():
            if not participant.state.final:
                session.move(participant, outcome, now, error)
                self._ledger.record(session, participant)
        if told:
            message = farewell(session, session.participants[told[0]])
            self._ledger.events.append(MachinesNotified(session.name, tuple(told), message))
        self._ledger.record(session)
        self._ledger.unsettled.discard(session.name)
        self._ledger.events.append(SessionEnded(session.name, session.image))

    def fail(self, session: Session, error: str, now: float) -> None:
        """A session cannot go on."""
        if not session.state.final:
            session.error = error
            self.finish(session, SessionState.FAILED, now)

    def _step(self, session: Session, now: float) -> None:
        """Moves one session on as far as it goes at `now`, and sets when to look again."""
        session.wake_time = None
        if session.state is SessionState.WAITING:
            self._step_waiting(session, now)
        if session.state in (SessionState.RUNNING, SessionState.IDLE):
            self._step_started(session, now)
        if not session.state.final:
            self._notify_waiting(session, now)

    def _step_waiting(self, session: Session, now: float) -> None:
        verdict = evaluate(session.rules, session.attendance, now)
        if session.start_requested or verdict.met:
            self._begin(session, now)
        else:
            self._ledger.explain(session, verdict.reason)
            wake(session, verdict.due_time)
        deserted = session.mode is SessionMode.AUTO and not session.present_count
        if deserted and session.state is SessionState.WAITING:
            self._expire(session, session.lost_time or session.create_time, now)

    def _step_started(self, session: Session, now: float) -> None:
        receiving_count = session.counts[ParticipantState.RECEIVING]
        lost_until = session.lost_until(self._timing)
        if session.complete:
            self.finish(session, SessionState.COMPLETED, now)
        elif receiving_count or now < lost_until:
            if session.state is SessionState.IDLE:
                session.state, session.idle_time = SessionState.RUNNING, None
                self._ledger.record(session)
            if session.transmission:
                self._ledger.explain(session, self._sender_trouble(session))
            elif receiving_count:
                self._transmit(session, now)
            if not receiving_count:
                wake(session, lost_until)
        else:
            if session.state is SessionState.RUNNING:
                self._stop(session, now)
                session.state, session.idle_time = SessionState.IDLE, now
                self._ledger.record(session)
                self._ledger.explain(session, "")
            self._expire(session, session.idle_time or now, now)

    def _begin(self, session: Session, now: float) -> None:
        """Starts a waiting session, unless its machines have no sender yet."""
        if session.present_count and not self._transmit(session, now):
            return
        session.state, session.start_time = SessionState.RUNNING, now
        for machine in session.machines(ParticipantState.WAITING):
            participant = session.participants[machine]
            session.move(participant, ParticipantState.RECEIVING, now)
            self._ledger.record(session, participant)
        self._ledger.explain(session, "")
        self._ledger.record(session)

    def _transmit(self, session: Session, now: float) -> bool:
        """Gives a session a transmission; False, with the reason in the session, if that is not possible now."""
        if session.retry_time is not None and now < session.retry_time:
            wake(session, session.retry_time)
            return False
        machines = [machine for machine, participant in session.participants.items() if participant.state.present]
        transmission = self._pool.open(session, machines, now)
        if transmission is None:
            self._ledger.explain(session, self._pool.refusal())
            return False
        session.transmission, session.retry_time = transmission.name, None
        self._ledger.explain(session, "")
        self._ledger.record(session)
        return True

    def _stop(self, session: Session, now: float) -> None:
        if session.transmission:
            self._pool.close(session.transmission, now)
            session.transmission = ""

    def _expire(self, session: Session, since: float, now: float) -> None:
        """Completes a session that nobody has needed for long enough."""
        due_time = since + self._timing.idle
        if now >= due_time:
            self.finish(session, SessionState.COMPLETED, now)
        else:
            wake(session, due_time)

    def _assign(self, transmission: Transmission, machines: Iterable[str]) -> None:
        session = self._ledger.sessions.get(transmission.session)
        if session is None or session.transmission != transmission.name:
            return
        receiving = tuple(
            machine for machine in machines if session.participants[machine].state is ParticipantState.RECEIVING
        )
        address = self._pool.senders[transmission.sender].registration.address
        assignment = Assignment(
            session=session.name,
            image=session.image,
            size_bytes=session.image_size_bytes,
            transmission=transmission.name,
            sender_address=address,
            traceparent=session.traceparent,
        )
        self._ledger.events.append(MachinesNotified(session.name, receiving, assignment))
        for machine in receiving:
            session.newcomers.pop(machine, None)

    def _replace(self, lost: TransmissionLost, now: float) -> None:
        """A session's transmission is gone: it gets another one, after a pause if the last one failed."""
        session = self._ledger.sessions.get(lost.session)
        if session is None or session.transmission != lost.transmission.name:
            return
        session.transmission = ""
        if lost.error:
            if now - lost.transmission.create_time > STEADY_SECONDS:
                session.failure_count = 0
            session.failure_count += 1
            session.retry_time = now + self._timing.retry * 2 ** (session.failure_count - 1)
            if session.failure_count >= MAX_FAILURES:
                error = f"{session.failure_count} transmissions in a row failed; the last one: {lost.error}"
                self.fail(session, error, now)
                return
            self._ledger.explain(session, f"tries again after a transmission failed: {lost.error}")
        self._ledger.record(session)

    def _readmit(self, name: str) -> None:
        session = self._ledger.sessions.get(name)
        if session is not None and session.transmission:
            for machine in session.machines(ParticipantState.RECEIVING):
                self._pool.admit(session.transmission, machine)
            self._ledger.record(session)

    def _sender_trouble(self, session: Session) -> str:
        sender = self._pool.senders[self._pool.transmissions[session.transmission].sender]
        return "" if sender.connected else f"waits for {sender.name}: its stream is broken"

    def _notify_waiting(self, session: Session, now: float) -> None:
        """Tells newcomers at once why they wait, and everybody what changed, at most once a `notice` interval."""
        if session.state is not SessionState.WAITING and not session.waiting_reason:
            session.newcomers.clear()
            return
        due_time = session.notice_time + self._timing.notice
        notice = (session.waiting_reason, session.present_count)
        if notice != session.notice and now >= due_time:
            session.notice, session.notice_time = notice, now
            machines = [machine for machine, participant in session.participants.items() if participant.state.present]
        else:
            machines = [machine for machine in session.newcomers if session.participants[machine].state.present]
            if notice != session.notice:
                wake(session, due_time)
        session.newcomers.clear()
        if machines:
            self._ledger.notify(session, machines)


def farewell(session: Session, participant: Participant) -> Dismissal:
    """Returns what a machine hears whose part in a session is over."""
    if participant.state is ParticipantState.DISMISSED:
        if session.state is SessionState.CANCELLED:
            return Dismissal(DismissalReason.CANCELLED, f"{session.name} was cancelled")
        return Dismissal(DismissalReason.REMOVED, participant.error)
    if session.state is SessionState.FAILED and participant.state is ParticipantState.FAILED:
        return Dismissal(DismissalReason.SESSION_FAILED, f"{session.name} failed: {session.error}")
    return Dismissal(DismissalReason.DONE, f"recorded as {participant.state}")
