"""Who takes part, and what was sent: the records of the engine."""

from dataclasses import dataclass

from fleetcast_sender.engine.messages import Join


@dataclass
class Participant:
    """One receiver that is heard."""

    seat: int
    join: Join
    heard_at: float
    ready: bool = False
    unicast: bool = False
    """Takes nothing by multicast: it said so, or it was moved."""
    offered: bool = False
    """Has an offer that it has not answered."""
    lacking_bytes: int = 0
    asked_at: float | None = None
    """When it was asked for its holding and has not answered since."""
    stuck_count: int = 0
    """Offers and passes in a row after which it lacked as much as before."""


@dataclass
class Totals:
    """What a transmission has sent."""

    source_symbol_count: int = 0
    repair_symbol_count: int = 0
    report_count: int = 0
    chunk_count: int = 0
    """Chunks that passes sent, counted each time."""
    pass_count: int = 0
    window_count: int = 0
