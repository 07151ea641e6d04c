"""How long senders are waited for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SenderTiming:
    """How long the scheduler waits for senders, in seconds."""

    sender_grace: float = 5.0
    """A sender whose stream broke may come back within this; then its sessions move."""
    command: float = 30.0
    """A sender that does not answer a command within this is taken for dead."""
    quarantine: float = 30.0
    """A group and port rest for this long after their transmission ended."""
    abandoned: float = 3600.0
    """A group and port of a sender that never came back rest for this long."""
