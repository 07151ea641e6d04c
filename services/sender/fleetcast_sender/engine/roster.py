"""Who takes part, and what was sent: the records of the engine."""

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from fleetcast_sender.engine.messages import ChunkMembers, Join, UnicastReason


@dataclass(frozen=True)
class Offer:
    """Chunks that a receiver was told to fetch by unicast."""

    chunks: ChunkMembers
    size_bytes: int
    offered_at: float
    reason: UnicastReason


@dataclass
class Participant:
    """One receiver that is heard."""

    seat: int
    join: Join
    heard_at: float
    ready: bool = False
    apart: UnicastReason | None = None
    """Why it takes nothing by multicast; None while it takes part in the group."""
    offers: deque[Offer] = field(default_factory=deque)
    """Those that it has not answered, in the order in which it fetches them."""
    offered_bytes: int = 0
    """Stored size of the chunks of `offers` that it lacks."""
    fetched: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=5))
    """When it answered its last offers, and the bytes fetched by then, since it has had some all the time."""
    fetch_seconds: float = 0.0
    """From the last offer that it answered to the answer."""
    slice_bytes: int = 0
    """How much the next offer to it holds."""
    lacking_bytes: int = 0
    asked_at: float | None = None
    """When it was asked for its holding and has not answered since."""
    served_pass: int = 0
    """The last pass that was planned for it, among others."""
    stuck_count: int = 0
    """Offers and passes in a row that were meant for it and brought it nothing."""
    return_at: float | None = None
    """When it takes part in the group again; None if it is not apart, or stays apart."""
    left_count: int = 0
    """How often it left the group."""

    @property
    def unicast(self) -> bool:
        """Whether it takes nothing by multicast."""
        return self.apart is not None

    @property
    def offered(self) -> ChunkMembers | None:
        """The chunks of all offers that it has not answered; None if there is none."""
        return np.logical_or.reduce([offer.chunks for offer in self.offers]) if self.offers else None

    @property
    def fetches_since(self) -> float:
        """When it began to fetch the first of its offers, as far as is known."""
        return max(self.offers[0].offered_at, self.fetched[-1][0])

    @property
    def rest_bytes(self) -> int:
        """What it lacks besides what it was offered."""
        return self.lacking_bytes - self.offered_bytes


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
