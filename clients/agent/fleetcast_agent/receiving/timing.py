"""How long this machine waits for what, while it receives. Tests hand in shorter times."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Timing:
    """Times in seconds."""

    first_contact: float = 4.0
    """How long a server that was never reached is tried before that is an error: a mistyped address is said soon."""
    group_retry: float = 30.0
    """After so long by unicast alone the group is tried again, and after twice as long each time that this failed."""
    group_retry_most: float = 300.0
    settle: float = 0.25
    """How long a report of holdings waits for the writers; it must come within half a second of the pass's end."""
    goodbye: float = 2.0
    """How long the sender may take to end the stream of a machine that has everything."""
    announce: float = 60.0
    """Between reminders of the membership: switches that snoop forget a member after 260 s if nobody queries (RFC
    2236), so this is four chances to be heard."""
    chunk_table: float = 60.0
    """Within which the chunk table has to come."""
