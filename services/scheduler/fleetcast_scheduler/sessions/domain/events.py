"""What is to be done once a decision is stored: messages for machines, commands for senders."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from fleetcast_scheduler.senders.domain.commands import CommandIssued


@dataclass(frozen=True, slots=True)
class Waiting:
    """The session has not started, or has no sender now."""

    session: str
    image: str
    reason: str
    joined_count: int
    min_clients: int


@dataclass(frozen=True, slots=True)
class Assignment:
    """Where to receive."""

    session: str
    image: str
    size_bytes: int
    transmission: str
    sender_address: str
    traceparent: str


class DismissalReason(StrEnum):
    """Why a machine's part is over."""

    DONE = "DONE"
    CANCELLED = "CANCELLED"
    SESSION_FAILED = "SESSION_FAILED"
    REMOVED = "REMOVED"


@dataclass(frozen=True, slots=True)
class Dismissal:
    """A machine's part is over."""

    reason: DismissalReason
    detail: str


@dataclass(frozen=True, slots=True)
class MachinesNotified:
    """Machines of a session are to hear this."""

    session: str
    machines: tuple[str, ...]
    message: Waiting | Assignment | Dismissal


@dataclass(frozen=True, slots=True)
class SessionEnded:
    """A session reached a final state: its hold on the image is to be released."""

    session: str
    image: str


@dataclass(frozen=True, slots=True)
class SessionStarted:
    """The start rules of a session were met: its machines receive."""

    session: str
    image: str
    machine_count: int


@dataclass(frozen=True, slots=True)
class SessionOpened:
    """A session came by itself, as the next of its series: it has to hold its image."""

    session: str
    image: str


Event = MachinesNotified | CommandIssued | SessionStarted | SessionEnded | SessionOpened
