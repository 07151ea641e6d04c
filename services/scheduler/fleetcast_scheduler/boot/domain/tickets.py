"""Tickets: what gives a known machine its own identity again after a start that left it nothing but its memory."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from enum import Enum

LIFETIME_SECONDS = 600.0
"""Ten minutes from the boot loader's menu to the agent's enrolment; a slow machine takes two."""

_BYTES = 20
_MAX_LIVE = 10_000


class Use(Enum):
    """What the use of a ticket comes to."""

    FIRST = "first"
    AGAIN = "again"
    """The key that used it before uses it again, such as after an answer that was lost."""
    SECOND = "second"
    """Another key has used it: one of the two is not the machine."""
    UNKNOWN = "unknown"


@dataclass(slots=True)
class _Ticket:
    machine: str
    end_time: float
    key_digest: str = ""
    """Of the key that used it."""


class Tickets:
    """The tickets that work. They are not stored: a machine that meets another scheduler asks for a new one."""

    def __init__(self) -> None:
        self._tickets: dict[str, _Ticket] = {}
        self._texts: dict[str, tuple[str, float]] = {}

    def issue(self, machine: str, now: float) -> tuple[str, bool]:
        """Returns a ticket for a machine, and whether it is new: else it is the one that it has and has not used.

        A boot loader may ask twice for one menu, and must read the same.
        """
        self._forget(now)
        text, end_time = self._texts.get(machine, ("", 0.0))
        ticket = self._tickets.get(_digest(text)) if text else None
        if ticket is not None and not ticket.key_digest and end_time - now > LIFETIME_SECONDS / 2:
            return text, False
        text = secrets.token_hex(_BYTES)
        self._texts[machine] = (text, now + LIFETIME_SECONDS)
        self._tickets[_digest(text)] = _Ticket(machine, now + LIFETIME_SECONDS)
        return text, True

    def use(self, text: str, key_digest: str, now: float) -> tuple[Use, str]:
        """Returns what the use of a ticket by a key comes to, and the machine whose ticket it is."""
        ticket = self._tickets.get(_digest(text))
        if ticket is None or ticket.end_time <= now:
            return Use.UNKNOWN, ""
        if not ticket.key_digest:
            ticket.key_digest = key_digest
            return Use.FIRST, ticket.machine
        return (Use.AGAIN if ticket.key_digest == key_digest else Use.SECOND), ticket.machine

    def _forget(self, now: float) -> None:
        if len(self._tickets) < _MAX_LIVE // 2:
            return
        self._tickets = {key: ticket for key, ticket in self._tickets.items() if ticket.end_time > now}
        self._texts = {machine: kept for machine, kept in self._texts.items() if kept[1] > now}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
