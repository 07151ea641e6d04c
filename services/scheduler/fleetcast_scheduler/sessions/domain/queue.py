"""The queue of sessions for which no sender has a place."""

from __future__ import annotations

from collections.abc import Iterable

from fleetcast_scheduler.sessions.domain.participant import ParticipantState
from fleetcast_scheduler.sessions.domain.session import Session

ESTIMATE_SECONDS = 15.0
"""Estimates are made again this often."""

Precedence = tuple[int, float, str]


def precedence(session: Session) -> Precedence:
    """Returns the sort key of the order in which sessions get what is scarce: priority, then age."""
    return -session.priority, session.create_time, session.name


def describe(session: Session, sessions: Iterable[Session]) -> str:
    """Returns why a session waits for a sender, at which place in the queue, and for how long that is expected.

    The first in the queue gets the place of the transmission that ends first, the second that of the next, and so on.
    """
    sessions = list(sessions)
    key = precedence(session)
    position = 1 + sum(other.starved and precedence(other) < key for other in sessions)
    ends = sorted(
        seconds for other in sessions if other.transmission and (seconds := _remaining_seconds(other)) is not None
    )
    text = f"waits for a sender: all are busy, drained or have no free group and port; number {position} in the queue"
    if position <= len(ends):
        text += f", a place is expected in about {max(1, round(ends[position - 1] / 60))} min"
    return text


def _remaining_seconds(session: Session) -> int | None:
    """Returns when the last of its machines is expected to end; None if that is not known of one of them."""
    left = [
        participant.remaining_seconds
        for participant in session.participants.values()
        if participant.state is ParticipantState.RECEIVING
    ]
    return max(left) if left and min(left) >= 0 else None
