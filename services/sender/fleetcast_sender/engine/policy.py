"""The times and shares by which a transmission decides."""

from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True)
class TransmissionPolicy:
    """What an operator could want otherwise. Times in seconds; those of WIRE.md are its defaults."""

    lead_seconds: float = 0.01
    """From a plan to the first symbol: the plan goes another way, and receivers keep few symbols of unknown passes."""
    lead_seconds_per_receiver: float = 0.0001
    """Added for each receiver: so long does it take to tell one."""
    gather_seconds: float = 0.03
    """How long reports on a round are gathered: longer than a LAN's round trip, shorter than a window takes."""
    hold_seconds: float = 0.15
    """How long a window stays open for reports on its last round: gathering, two marks lost, and a busy receiver."""
    mark_interval_seconds: float = 0.02
    silence_seconds: float = 5.0
    """A receiver not heard for so long is forgotten."""
    start_grace_seconds: float = 2.0
    """How long the first pass waits for machines that were admitted with the first and are not ready yet."""
    ready_grace_seconds: float = 0.5
    """How long a pass waits for receivers that have joined and do not hear the group yet."""
    pass_grace_seconds: float = 0.5
    """How long the next pass waits for the holdings of receivers that do not answer."""
    answer_seconds: float = 15.0
    """A receiver that lives and does not say for so long what it holds is served by unicast."""
    repair_share: float = 0.3
    """Most of the rate that repair may take while there is source to send."""
    unicast_receiver_count: int = 1
    """While no more receivers than that lack anything, each gets it by unicast; 0 sends everything by multicast."""
    unicast_total_bytes: int = 4 << 20
    """When all that everybody lacks adds up to so little, it goes by unicast: a pass would take longer."""
    unicast_slice_bytes: int = 128 << 20
    """Most that one offer holds: afterwards others may have joined, and a pass may be cheaper."""
    first_slice_bytes: int = 16 << 20
    """Most that the first offer to a receiver holds, when it is not known yet how fast it fetches."""
    slice_seconds: float = 0.3
    """Later offers hold what the receiver fetches in about this time; it has two at once."""
    slice_wait_seconds: float = 1.0
    """How long a pass waits at least for offers that are being fetched: what they bring need not be sent again."""
    offer_seconds: float = 30.0
    """A pass that runs anyway carries what was offered longer ago than that and has not come."""
    return_seconds: float = 30.0
    """When a receiver that left the group tries it again; twice as long after each time it left, 16 times at most."""
    stuck_offer_count: int = 4
    """After so many offers or passes that brought nothing a receiver is dismissed."""


class SlowAction(StrEnum):
    """What becomes of receivers that are slower than the threshold."""

    KEEP = "keep"
    """They bound the rate of all."""
    UNICAST = "unicast"
    """They get their chunks apart from the group."""
    SEPARATE = "separate"
    """They get a second, slower transmission together."""
    DISCONNECT = "disconnect"


@dataclass(frozen=True)
class SlowPolicy:
    """How slow receivers are told, and what becomes of them."""

    action: SlowAction = SlowAction.UNICAST
    threshold: float = 0.5
    """Share of the group's median rate."""
    bits_per_second: int = 0
    """Rate below which a receiver is slow, whatever the others take; 0 leaves it to the share."""
    seconds: float = 3.0
    """How long a receiver must be below it."""
