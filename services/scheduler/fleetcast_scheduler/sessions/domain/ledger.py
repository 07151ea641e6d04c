"""What has changed and is not stored yet, and what is to be done once it is."""

from __future__ import annotations

from collections.abc import Iterable

from fleetcast_scheduler.sessions.domain.events import Event, MachinesNotified, Waiting
from fleetcast_scheduler.sessions.domain.participant import Participant
from fleetcast_scheduler.sessions.domain.session import Session

ParticipantKey = tuple[str, str]
"""A session and a machine."""


class Ledger:
    """The sessions in memory, what is new about them, and the events that follow."""

    def __init__(self, sessions: Iterable[Session] = ()) -> None:
        self.sessions = {session.name: session for session in sessions}
        """The open ones, and those that ended lately, by name."""
        self.changed_sessions: set[str] = set()
        self.changed_participants: set[ParticipantKey] = set()
        self.reported: set[ParticipantKey] = set()
        """Participants of which only the byte counts have changed since they were stored."""
        self.unsettled: set[str] = set()
        """Sessions that the rules must look at again."""
        self.events: list[Event] = []

    def record(self, session: Session, participant: Participant | None = None) -> None:
        """Notes a change of a session, and of one participant."""
        session.touch()
        self.changed_sessions.add(session.name)
        if participant is not None:
            self.changed_participants.add((session.name, participant.machine))
        if not session.state.final:
            self.unsettled.add(session.name)

    def explain(self, session: Session, reason: str) -> None:
        """Says why a session waits; an empty reason says that it does not."""
        if session.waiting_reason != reason:
            session.waiting_reason = reason
            self.record(session)

    def notify(self, session: Session, machines: Iterable[str], reason: str) -> None:
        """Tells machines why they wait."""
        message = Waiting(session.name, session.image, reason, session.present_count, session.rules.min_clients)
        self.events.append(MachinesNotified(session.name, tuple(machines), message))

    def touch_starved(self) -> None:
        """A sender, or a group of one, became free: every session that waits for that may go on."""
        for session in self.sessions.values():
            if not session.state.final and not session.transmission and session.present_count:
                self.unsettled.add(session.name)

    def touch_running(self) -> None:
        """A sender came or went: what a session with a sender shows may have to change."""
        self.unsettled.update(session.name for session in self.sessions.values() if session.transmission)


def wake(session: Session, time: float | None) -> None:
    """Has the session looked at again at `time`, or earlier if that was due already."""
    if time is not None and (session.wake_time is None or time < session.wake_time):
        session.wake_time = time
