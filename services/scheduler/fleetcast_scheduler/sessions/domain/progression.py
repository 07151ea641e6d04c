"""How a session moves on: from its rules, its machines, its sender and the time."""

from __future__ import annotations

from collections.abc import Iterable

from fleetcast_scheduler.senders.domain.outcomes import (
    CapacityChanged,
    MachinesAdmitted,
    Outcome,
    TransmissionLost,
    TransmissionResumed,
)
from fleetcast_scheduler.senders.domain.pool import SenderPool
from fleetcast_scheduler.senders.domain.transmission import Transmission
from fleetcast_scheduler.sessions.domain.admission import EndPolicy, LatePolicy
from fleetcast_scheduler.sessions.domain.events import (
    Assignment,
    Dismissal,
    DismissalReason,
    MachinesNotified,
    SessionEnded,
    SessionOpened,
    SessionStarted,
)
from fleetcast_scheduler.sessions.domain.ledger import Ledger, wake
from fleetcast_scheduler.sessions.domain.participant import Participant, ParticipantState
from fleetcast_scheduler.sessions.domain.queue import ESTIMATE_SECONDS, Precedence, describe, precedence
from fleetcast_scheduler.sessions.domain.session import (
    MAX_FAILURES,
    STEADY_SECONDS,
    Session,
    SessionMode,
    SessionState,
    Timing,
)
from fleetcast_scheduler.sessions.domain.start_rules import evaluate


class Progression:
    """Decides what sessions do next, and writes it into the ledger."""

    def __init__(self, ledger: Ledger, pool: SenderPool, timing: Timing) -> None:
        self._ledger = ledger
        self._pool = pool
        self._timing = timing

    def settle(self, now: float) -> None:
        """Decides everything that is due at `now`."""
        ledger = self._ledger
        ledger.unsettled.update(
            session.name
            for session in ledger.sessions.values()
            if session.wake_time is not None and session.wake_time <= now
        )
        self.follow(self._pool.settle(now), now)
        while ledger.unsettled:
            for name in sorted(ledger.unsettled, key=self._precedence):
                ledger.unsettled.discard(name)
                self._step(ledger.sessions[name], now)
            self.follow(self._pool.settle(now), now)

    def _precedence(self, name: str) -> Precedence:
        return precedence(self._ledger.sessions[name])

    def follow(self, outcomes: Iterable[Outcome], now: float) -> None:
        """Decides what follows from what happened to transmissions."""
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

    def finish(self, session: Session, state: SessionState, now: float, dismissal: str = "") -> None:
        """Puts a session in a final state: everybody is told, the sender stops, the image is to be released.

        Machines that have not ended are dismissed for the reason `dismissal`; without one they failed.
        """
        self._stop(session, now)
        session.state, session.end_time = state, now
        session.idle_time = session.wake_time = None
        session.starved = False
        session.waiting_reason = ""
        told = session.machines(ParticipantState.WAITING) + session.machines(ParticipantState.RECEIVING)
        outcome = ParticipantState.DISMISSED if dismissal else ParticipantState.FAILED
        error = dismissal or session.error or "contact was lost and the machine did not come back"
        for participant in session.participants.values():
            if not participant.state.final:
                session.move(participant, outcome, now, error)
                self._ledger.record(session, participant)
        if told:
            message = farewell(session, session.participants[told[0]])
            self._ledger.events.append(MachinesNotified(session.name, tuple(told), message))
        self._ledger.record(session)
        self._ledger.unsettled.discard(session.name)
        following = session.successor(now)
        if following is not None:
            self._ledger.sessions[following.name] = following
            self._ledger.record(following)
            self._ledger.events.append(SessionOpened(following.name, following.image))
        self._ledger.events.append(SessionEnded(session.name, session.image))

    def fail(self, session: Session, error: str, now: float) -> None:
        """A session cannot go on. If it is one of a series, the next occurrence tries again."""
        if not session.state.final:
            session.error = error
            self.finish(session, SessionState.FAILED, now)

    def _step(self, session: Session, now: float) -> None:
        """Moves one session on as far as it goes at `now`, and sets when to look again."""
        session.wake_time = None
        self._step_series(session, now)
        if session.state.final:
            return
        self._step_until(session, now)
        if session.state is SessionState.WAITING:
            self._step_waiting(session, now)
        if session.state in (SessionState.RUNNING, SessionState.IDLE):
            self._step_started(session, now)
        if not session.state.final:
            self._notify_waiting(session, now)

    def _step_series(self, session: Session, now: float) -> None:
        """Makes way for the next occurrence: a session that still waits becomes it, one that is idle ends."""
        if session.series is None or session.series.next_time is None:
            return
        if now < session.series.next_time:
            wake(session, session.series.next_time)
        elif session.state is SessionState.WAITING and not session.closed:
            session.miss(now)
            self._ledger.record(session)
        elif session.state is SessionState.IDLE:
            self.finish(session, SessionState.COMPLETED, now)

    def _step_until(self, session: Session, now: float) -> None:
        """Closes a session whose time is over."""
        until_time = session.admission.until_time
        if session.closed or until_time is None:
            return
        if now < until_time:
            wake(session, until_time)
            return
        session.closed = session.start_requested = True
        self._ledger.record(session)
        if session.admission.end_policy is EndPolicy.STOP:
            self.finish(session, SessionState.COMPLETED, now, dismissal="the session's time is over")

    def _step_waiting(self, session: Session, now: float) -> None:
        verdict = evaluate(session.effective_rules, session.present_machines, now)
        if session.closed and not session.open_count:
            self.finish(session, SessionState.COMPLETED, now)
        elif session.start_requested or verdict.met:
            self._begin(session, now)
        else:
            self._ledger.explain(session, verdict.reason + _absent(session) + _missed(session))
            wake(session, verdict.due_time)
        deserted = not session.present_count and (session.mode is SessionMode.AUTO or session.closed)
        if deserted and session.state is SessionState.WAITING:
            self._expire(session, session.lost_time or session.create_time, now)

    def _step_started(self, session: Session, now: float) -> None:
        for machine in session.promotable():
            self._ledger.record(session, session.promote(machine, now))
            if session.transmission:
                self._admit(session, machine)
        receiving_count = session.counts[ParticipantState.RECEIVING]
        lost_until = session.lost_until(self._timing)
        if session.complete:
            self.finish(session, SessionState.COMPLETED, now)
        elif receiving_count or now < lost_until:
            self._keep_running(session, receiving_count, lost_until, now)
        elif session.queue:
            self._stop(session, now)
            session.idle_time = None
            session.begin_again()
            self._ledger.record(session)
        else:
            self._idle(session, now)

    def _keep_running(self, session: Session, receiving_count: int, lost_until: float, now: float) -> None:
        if session.state is SessionState.IDLE:
            session.state, session.idle_time = SessionState.RUNNING, None
            self._ledger.record(session)
        if session.transmission:
            self._ledger.explain(session, self._sender_trouble(session))
            self._pool.set_rate(session.transmission, session.rate.at(now))
            wake(session, session.rate.next_change(now))
        elif receiving_count:
            self._transmit(session, session.machines(ParticipantState.RECEIVING), now)
        if not receiving_count:
            wake(session, lost_until)

    def _idle(self, session: Session, now: float) -> None:
        if session.state is SessionState.RUNNING:
            self._stop(session, now)
            session.state, session.idle_time = SessionState.IDLE, now
            self._ledger.record(session)
            self._ledger.explain(session, "")
        if session.closed:
            self.finish(session, SessionState.COMPLETED, now)
        else:
            self._expire(session, session.idle_time or now, now)

    def _begin(self, session: Session, now: float) -> None:
        """Starts a waiting session, unless its machines have no sender yet."""
        machines = session.promotable()
        if machines and not self._transmit(session, machines, now):
            return
        session.state, session.run = SessionState.RUNNING, session.run + 1
        session.start_time = session.start_time or now
        for machine in machines:
            self._ledger.record(session, session.promote(machine, now))
        self._ledger.events.append(SessionStarted(session.name, session.image, len(machines)))
        self._ledger.explain(session, "")
        self._ledger.record(session)

    def _transmit(self, session: Session, machines: list[str], now: float) -> bool:
        """Gives machines a transmission; False, with the reason in the session, if that is not possible now."""
        if session.retry_time is not None and now < session.retry_time:
            wake(session, session.retry_time)
            return False
        transmission = self._pool.open(session, machines, now)
        if transmission is None:
            self._starve(session, now)
            return False
        session.transmission, session.retry_time, session.starved = transmission.name, None, False
        self._ledger.explain(session, "")
        self._ledger.record(session)
        return True

    def _starve(self, session: Session, now: float) -> None:
        """Says that no sender takes a session now, and how long that may last."""
        if not session.starved:
            session.starved = True
            self._ledger.touch_starved()  # those behind it have another place now
        site = "" if session.any_site else session.site
        if not self._pool.connected(site):
            elsewhere = "; those of other sites serve it with --any-site" if self._pool.connected() else ""
            of_site = f" of the site {site}" if site else ""
            self._ledger.explain(session, f"waits for a sender{of_site}: none is connected{elsewhere}")
            return
        self._ledger.explain(session, describe(session, self._ledger.sessions.values()))
        wake(session, now + ESTIMATE_SECONDS)

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
        transmission.addresses |= {machine: session.participants[machine].address for machine in receiving}
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
            session.avoided_sender = lost.transmission.sender
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
                self._admit(session, machine)
            self._ledger.record(session)

    def _admit(self, session: Session, machine: str) -> None:
        self._pool.admit(session.transmission, machine)
        if session.participants[machine].apart:
            self._pool.move_to_unicast(session.transmission, machine)

    def _sender_trouble(self, session: Session) -> str:
        sender = self._pool.senders[self._pool.transmissions[session.transmission].sender]
        return "" if sender.connected else f"waits for {sender.name}: its stream is broken"

    def _notify_waiting(self, session: Session, now: float) -> None:
        """Tells newcomers at once why they wait, and everybody what changed, at most once a `notice` interval."""
        newcomers, session.newcomers = session.newcomers, {}
        if session.state is not SessionState.WAITING and not session.waiting_reason and not session.queue:
            return
        due_time = session.notice_time + self._timing.notice
        notice = (session.waiting_reason, session.present_count, len(session.queue))
        if notice != session.notice and now >= due_time:
            session.notice, session.notice_time = notice, now
            newcomers = dict.fromkeys(session.queue)
            if session.waiting_reason:
                newcomers |= dict.fromkeys(session.machines(ParticipantState.RECEIVING))
        elif notice != session.notice:
            wake(session, due_time)
        self._tell(session, [machine for machine in newcomers if session.participants[machine].state.present])

    def _tell(self, session: Session, machines: list[str]) -> None:
        """Tells machines that wait why they do."""
        if session.waiting_reason:
            if machines:
                self._ledger.notify(session, machines, session.waiting_reason)
            return
        positions = {machine: number for number, machine in enumerate(session.queue, 1)}
        for machine in machines:
            if machine in positions:
                self._ledger.notify(session, [machine], _queued(session, positions[machine]))


def _absent(session: Session) -> str:
    """Returns the machines that never joined, and those that joined and left, as the end of a sentence."""
    lost = [session.participants[machine] for machine in session.machines(ParticipantState.LOST)]
    missing = [session.expected[machine] or machine for machine in session.missing]
    gone = [participant.display_name or participant.machine for participant in lost]
    return _enumerated("; missing: ", missing) + _enumerated("; gone again: ", gone)


def _enumerated(beginning: str, names: list[str]) -> str:
    """Returns at most three of the names, and how many more there are; empty without names."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return beginning + ", ".join(names[:3]) + more if names else ""


def _missed(session: Session) -> str:
    """Returns how often a session's time came again before it could start, as the end of a sentence."""
    count = 0 if session.series is None else session.series.missed_count
    return f"; could not start at its last {count} times" if count > 1 else "; could not start last time" * count


def _queued(session: Session, position: int) -> str:
    """Returns why a machine does not receive in a session that runs."""
    if session.admission.late_policy is LatePolicy.NEXT_RUN:
        return "waits for the next run: this one has begun"
    receiving_count = session.counts[ParticipantState.RECEIVING]
    return f"waits for a place: {receiving_count} machines receive, which is the most; this one is number {position}"


def farewell(session: Session, participant: Participant) -> Dismissal:
    """Returns the last message to a machine: why it no longer takes part in the session."""
    if participant.state is ParticipantState.DISMISSED:
        if session.state is SessionState.CANCELLED and participant.end_time == session.end_time:
            return Dismissal(DismissalReason.CANCELLED, f"{session.name} was cancelled")
        return Dismissal(DismissalReason.REMOVED, participant.error)
    if session.state is SessionState.FAILED and participant.state is ParticipantState.FAILED:
        return Dismissal(DismissalReason.SESSION_FAILED, f"{session.name} failed: {session.error}")
    return Dismissal(DismissalReason.DONE, f"recorded as {participant.state}")
