"""Every open session in memory, and what machines, senders, operators and time change in it."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from fleetcast_kit.errors import FailedPreconditionError, NotFoundError

from fleetcast_scheduler.machines.domain.machine import Inventory
from fleetcast_scheduler.senders.domain.commands import Command
from fleetcast_scheduler.senders.domain.pool import SenderPool
from fleetcast_scheduler.senders.domain.sender import Registration, Sender
from fleetcast_scheduler.senders.domain.transmission import Transmission, TransmissionReport
from fleetcast_scheduler.sessions.domain.events import Dismissal, DismissalReason, Event, MachinesNotified
from fleetcast_scheduler.sessions.domain.ledger import Ledger
from fleetcast_scheduler.sessions.domain.operations import Operations, ended, refusal
from fleetcast_scheduler.sessions.domain.participant import Joiner, Participant, ParticipantState, ReceptionTotals
from fleetcast_scheduler.sessions.domain.progression import Progression, farewell
from fleetcast_scheduler.sessions.domain.session import Session, SessionState, Timing

REVISION_LEAP = 1_000_000
"""What a restart adds to a session's revision: beyond whatever a watcher saw and the store did not. At 2,000 reports a
second and a loss of two seconds at most, 250 times enough."""


class Dispatcher:
    """Every open session.

    Each verb takes what happened and `now`. What must be stored gathers in `ledger` and `pool`, and what must be done
    in `take_events()`; nothing may be done before everything gathered so far is stored.
    """

    def __init__(
        self,
        timing: Timing | None = None,
        *,
        sessions: Iterable[Session] = (),
        senders: Iterable[Sender] = (),
        transmissions: Iterable[Transmission] = (),
    ) -> None:
        self.timing = timing or Timing()
        self.ledger = Ledger(sessions)
        self.pool = SenderPool(self.timing, senders=senders, transmissions=transmissions)
        self._progression = Progression(self.ledger, self.pool, self.timing)
        self.operations = Operations(self.ledger, self.pool, self._progression)

    def recover(self, now: float) -> None:
        """Call once after a restart: every stream is broken, nothing else is different."""
        self.pool.recover(now)
        for session in self.ledger.sessions.values():
            session.revision += REVISION_LEAP
            if transmission := self.pool.transmissions.get(session.transmission):
                transmission.site = "" if session.any_site else session.site
            for participant in session.participants.values():
                participant.revision = session.revision
                if participant.state.present:
                    self._lose(session, participant, now)
            self.ledger.record(session)

    # Sessions

    def add(self, session: Session) -> None:
        """A session was opened; its image is held."""
        self.ledger.sessions[session.name] = session
        self.ledger.record(session)

    def recall(self, session: Session) -> None:
        """Takes a session that ended before back into memory; the next turn drops it again."""
        self.ledger.sessions.setdefault(session.name, session)

    def session(self, name: str) -> Session:
        """Returns a session that is open or ended lately.

        Raises:
            NotFoundError: there is none of that name.
        """
        try:
            return self.ledger.sessions[name]
        except KeyError:
            raise NotFoundError(f"there is no session {name!r}", reason="SESSION_NOT_FOUND") from None

    def find_open(self, machine: str, image: str) -> Session | None:
        """Returns the open session that a machine which asks for `image` joins, if there is one.

        `image` is a pinned version or a series. A session that the machine has not finished, or was taken out of,
        comes first; otherwise the oldest with the pinned version that admits it.
        """
        candidates = [session for session in self.ledger.sessions.values() if not session.state.final]
        for session in candidates:
            participant = session.participants.get(machine)
            if participant is None or image not in (session.image, session.image.partition("@")[0]):
                continue
            if not participant.state.final or participant.state is ParticipantState.DISMISSED:
                return session
        exact = [
            session
            for session in candidates
            if session.image == image and not session.deployment and refusal(session, machine) is None
        ]
        return min(exact, key=lambda session: session.create_time, default=None)

    def find_deployed(self, machine: str, deployment: str, image: str) -> Session | None:
        """Returns the open session of a deployment for a pinned image that admits a machine, if there is one."""
        for session in self.ledger.sessions.values():
            if session.deployment == deployment and session.image == image and not session.state.final:
                participant = session.participants.get(machine)
                known = participant is not None and not participant.state.final
                if known or refusal(session, machine) is None:
                    return session
        return None

    def fail(self, name: str, error: str, now: float) -> None:
        """A session cannot go on, and no later session of its series could."""
        session = self.session(name)
        session.series = None
        self._progression.fail(session, error, now)

    def expect(self, name: str, machines: dict[str, str]) -> None:
        """Machines are awaited in a session, those that joined included: names for display by machine."""
        session = self.ledger.sessions.get(name)
        if session is not None and session.expected != machines:
            session.expected = machines
            self.ledger.record(session)

    def hold_released(self, name: str) -> None:
        """The catalog no longer holds the image for an ended session."""
        session = self.ledger.sessions.get(name)
        if session is not None:
            session.hold_released = True
            self.ledger.record(session)

    # Machines

    def join(self, name: str, joiner: Joiner, now: float) -> Participant:
        """A machine joined, came back, or starts over. In an ended session it is told again what it became there.

        Raises:
            FailedPreconditionError: the session has ended without it, or the image does not fit.
        """
        session = self.session(name)
        if session.state.final:
            participant = session.participants.get(joiner.machine)
            if participant is None or not _recalled(session, participant):
                raise ended(session)
            self.ledger.events.append(MachinesNotified(name, (joiner.machine,), farewell(session, participant)))
            self.ledger.record(session, participant)
            return participant
        if 0 <= joiner.target_size_bytes < session.image_size_bytes:
            raise FailedPreconditionError(
                f"the target has {joiner.target_size_bytes} bytes and {session.image} needs "
                f"{session.image_size_bytes}: choose a larger one",
                reason="TARGET_TOO_SMALL",
                metadata={"session": name, "image": session.image},
            )
        if (error := refusal(session, joiner.machine)) is not None:
            raise error
        participant = session.enqueue(joiner, now)
        self.ledger.record(session, participant)
        return participant

    def leave(self, name: str, machine: str, now: float) -> None:
        """A machine's stream broke."""
        session = self.ledger.sessions.get(name)
        participant = session.participants.get(machine) if session else None
        if session is not None and participant is not None and participant.state.present:
            self._lose(session, participant, now)

    def hardware_of(self, machine: str) -> list[Inventory]:
        """Returns the hardware from which a machine takes part in sessions now."""
        parts = [session.participants.get(machine) for session in self.ledger.sessions.values()]
        return [part.hardware for part in parts if part is not None and part.state.present]

    def remove_machine(self, machine: str, error: str, now: float) -> None:
        """A machine was removed or is held: its part in every session failed. It may come back once it is admitted."""
        for session in self.ledger.sessions.values():
            participant = session.participants.get(machine)
            if participant is not None and not participant.state.final:
                session.move(participant, ParticipantState.FAILED, now, error)
                self.pool.dismiss(session.transmission, machine)
                self.ledger.record(session, participant)
                told = Dismissal(DismissalReason.REMOVED, error)
                self.ledger.events.append(MachinesNotified(session.name, (machine,), told))

    def progress(self, name: str, machine: str, totals: ReceptionTotals, now: float) -> None:
        """A machine reported its totals."""
        session = self.ledger.sessions[name]
        participant = session.participants[machine]
        if participant.state.present:
            participant.receive_totals(totals, now)
            session.touch(participant)
            if totals.datagram_count and session.transmission:
                self.pool.transmissions[session.transmission].heard = True
        self.ledger.reported.add((name, machine))

    def finish(self, name: str, machine: str, totals: ReceptionTotals, error: str | None, now: float) -> None:
        """A machine's part has ended: it has the verified image if `error` is None. A dismissal follows."""
        session = self.ledger.sessions[name]
        participant = session.participants[machine]
        if not participant.state.final:
            participant.receive_totals(totals, now)
            if error is None:
                session.move(participant, ParticipantState.SUCCEEDED, now)
                session.failure_count = 0
                self.pool.forget_admission(session.transmission, machine)
            else:
                session.move(participant, ParticipantState.FAILED, now, error)
                self.pool.dismiss(session.transmission, machine)
        self.ledger.record(session, participant)
        self.ledger.events.append(MachinesNotified(name, (machine,), farewell(session, participant)))

    def sender_unreachable(self, name: str, machine: str, now: float) -> None:
        """A machine could not reach its sender: it is assigned again, to another sender if most machines cannot."""
        session = self.ledger.sessions[name]
        participant = session.participants[machine]
        participant.contact_time = now
        self.ledger.record(session, participant)
        if participant.state is not ParticipantState.RECEIVING or not session.transmission:
            return
        receiving_count = session.counts[ParticipantState.RECEIVING]
        self._progression.follow(self.pool.unreachable(session.transmission, machine, receiving_count, now), now)
        if session.transmission:
            self.pool.admit(session.transmission, machine)

    # Senders

    def register_sender(self, name: str, registration: Registration, running: Collection[str], now: float) -> int:
        """A sender opened its stream; `running` are the transmissions it still runs. Returns the stream's epoch."""
        self._progression.follow(self.pool.register(name, registration, running, now), now)
        return self.pool.senders[name].epoch

    def disconnect_sender(self, name: str, epoch: int, now: float) -> None:
        """A sender's stream broke. Nothing happens if the sender has a newer one."""
        self.pool.disconnect(name, epoch, now)
        self.ledger.touch_running()

    def drain_sender(self, name: str, draining: bool) -> None:
        """An operator gives a sender no more sessions, or again some."""
        self.pool.drain(name, draining)
        self.ledger.touch_starved()

    def answer_command(self, sender: str, command: Command, error: str, now: float) -> None:
        """A sender answered a command; `error` is empty when it succeeded."""
        self._progression.follow(self.pool.answer(sender, command, error, now), now)

    def report_transmission(self, sender: str, report: TransmissionReport, now: float) -> None:
        """A sender reported on a transmission."""
        self._progression.follow(self.pool.report(sender, report, now), now)
        transmission = self.pool.transmissions.get(report.transmission)
        session = self.ledger.sessions.get(transmission.session) if transmission else None
        if session is None or transmission is None:
            return
        session.touch()
        if session.transmission == transmission.name:
            for participant in session.participants.values():
                reason = transmission.unicast.get(participant.machine)
                if participant.unicast_reason is not reason:
                    participant.unicast_reason = reason
                    session.touch(participant)

    # Time

    def settle(self, now: float) -> None:
        """Decides everything that is due at `now`."""
        self._progression.settle(now)

    def wake_time(self) -> float | None:
        """Returns when `settle` has something to do, if nothing happens before."""
        times = [session.wake_time for session in self.ledger.sessions.values() if session.wake_time is not None]
        pool_time = self.pool.wake_time()
        return min(times if pool_time is None else [*times, pool_time], default=None)

    def take_events(self) -> list[Event]:
        """Returns what is to be done, in order, and forgets it."""
        events = [*self.ledger.events, *self.pool.commands]
        self.ledger.events, self.pool.commands = [], []
        return events

    def forget_ended(self, now: float) -> None:
        """Drops the sessions that ended a while ago and whose image is released."""
        for session in list(self.ledger.sessions.values()):
            if session.end_time is not None and session.hold_released and now > session.end_time + self.timing.forget:
                del self.ledger.sessions[session.name]

    def _lose(self, session: Session, participant: Participant, now: float) -> None:
        session.move(participant, ParticipantState.LOST, now)
        self.pool.forget_admission(session.transmission, participant.machine)
        self.ledger.record(session, participant)


def _recalled(session: Session, participant: Participant) -> bool:
    """True if a machine that comes back to an ended session is told what it became, instead of being refused.

    One that succeeded may not have heard so; one that failed by itself has nothing to gain from hearing it again.
    """
    return participant.state is not ParticipantState.FAILED or session.state is SessionState.FAILED
