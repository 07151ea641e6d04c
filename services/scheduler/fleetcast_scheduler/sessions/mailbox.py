"""A machine's stream in a session: what it is to hear, until the handler of the stream sends it."""

from __future__ import annotations

from fleetcast_scheduler.loop.mailbox import Mailbox
from fleetcast_scheduler.sessions.domain.events import Assignment, Dismissal, Waiting

Message = Waiting | Assignment | Dismissal


class SessionMailbox(Mailbox[Message]):
    """Keeps the latest message alone, and nothing that comes after a dismissal."""

    def __init__(self, session: str, machine: str) -> None:
        super().__init__(machine)
        self.session = session
        self.finished = False
        """True once the machine reported its outcome."""

    def kept(self, waiting: list[Message], message: Message) -> list[Message]:
        """Returns what waits from now on."""
        return waiting if any(isinstance(one, Dismissal) for one in waiting) else [message]
