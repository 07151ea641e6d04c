"""What is sent next, and which way: a pass to the group, or slices by unicast. Without any state.

Passes go round the image like a carousel. Each begins at the chunk after the last one that was sent, by pass or by
unicast, and goes to the end of the image; the next begins at the image's first chunk. So no chunk is sent again before
all others were, and a machine that joins at any place has everything after one round.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fleetcast_sender.engine.messages import ChunkMembers, UnicastReason
from fleetcast_sender.engine.policy import TransmissionPolicy
from fleetcast_sender.engine.receivers import Receivers
from fleetcast_sender.engine.roster import Participant

_MOST_PATIENCE_SECONDS = 5.0
_HOLES_SHARE = 0.05
"""Of what a pass sends, what it may send in vain so that machines that come meanwhile lack nothing afterwards."""


@dataclass(frozen=True)
class Slices:
    """Each of these receivers gets the next slice of what it lacks by unicast."""

    receivers: list[Participant]
    reason: UnicastReason


@dataclass(frozen=True)
class NextPass:
    """These chunks go to the group."""

    chunks: ChunkMembers
    receivers: list[Participant]
    """For whom it is."""
    not_before: float
    """When it may begin: what offers bring that are being fetched need not be sent again."""


def plan(
    receivers: Receivers,
    sizes_bytes: NDArray[np.int64],
    policy: TransmissionPolicy,
    now: float,
    *,
    position: int | None,
    window_bytes: int,
) -> Slices | NextPass | None:
    """Returns what to do for the members of the group, or None if all have been offered what they lack.

    Args:
        receivers: all of them.
        sizes_bytes: shape (chunk_count,): stored sizes.
        policy: what is few, and what is little.
        now: in seconds.
        position: the chunk after the last one that was sent; None if nothing was sent.
        window_bytes: of the pass's windows.
    """
    wanting = receivers.wanting
    if not wanting:
        return None
    counts = receivers.needs.counts.copy()
    fetching = [it for it in receivers.fetching if now - it.offers[0].offered_at <= policy.offer_seconds]
    for participant in fetching:
        offered = participant.offered
        if offered is not None and receivers.needs.counted(participant.seat):
            counts -= offered & receivers.needs.lacking(participant.seat)
    few = len(wanting) <= policy.unicast_receiver_count
    little = bool(policy.unicast_receiver_count) and int((sizes_bytes * counts).sum()) <= policy.unicast_total_bytes
    if few or little:
        reason = UnicastReason.ALONE if few else UnicastReason.SMALL_REST
        return Slices([it for it in wanting if receivers.takes_offer(it)], reason)
    chunks = counts > 0
    if not chunks.any():
        return None
    start = first_position(counts) if position is None else position
    if chunks[start:].any():
        chunks[:start] = False
    else:
        start = 0
    add_holes(chunks, sizes_bytes, window_bytes, start)
    not_before = max((it.fetches_since + patience_seconds(it, policy) for it in fetching), default=now)
    return NextPass(chunks, wanting, not_before)


def patience_seconds(participant: Participant, policy: TransmissionPolicy) -> float:
    """Returns how long a pass waits for an offer: longer for a receiver that took longer, as on a slow network."""
    return min(max(policy.slice_wait_seconds, participant.fetch_seconds), _MOST_PATIENCE_SECONDS)


def add_holes(chunks: ChunkMembers, sizes_bytes: NDArray[np.int64], window_bytes: int, start: int) -> None:
    """Add to a pass what nobody lacks now, as far as that costs little if nobody comes who lacks it.

    Whole windows that nobody lacks are left out anyway. So a hole between chunks that are lacked costs no more than its
    parts in the windows at its two ends, and what is lacked no more after a chunk to the image's end only in the first.
    """
    lacked = np.concatenate(([True], chunks[start:], [False]))
    begins = np.flatnonzero(lacked[:-1] & ~lacked[1:]) + start
    ends = np.flatnonzero(~lacked[:-1] & lacked[1:]) + start
    if len(ends) < len(begins):
        ends = np.append(ends, len(chunks))
    # Where the chunks lie in the pass if all holes are in it.
    offsets = np.concatenate(([0], np.cumsum(sizes_bytes[start:])))
    opens, closes = offsets[begins - start], offsets[ends - start]
    last_parts = np.where(ends < len(chunks), closes % window_bytes, 0)
    costs = np.minimum(closes - opens, -opens % window_bytes + last_parts)
    budget = _HOLES_SHARE * int(sizes_bytes[chunks].sum())
    order = np.argsort(costs, kind="stable")
    for hole in order[np.cumsum(costs[order]) <= budget].tolist():
        chunks[begins[hole] : ends[hole]] = sizes_bytes[begins[hole] : ends[hole]] > 0


def first_position(counts: NDArray[np.int32]) -> int:
    """Returns where to begin when nothing was sent yet: with what most receivers lack.

    After a restart of the sender that is where the pass before it broke off.
    """
    return int(np.argmax(counts))


def position_after(chunks: ChunkMembers, start: int) -> int:
    """Returns the chunk after the last of those that were sent from `start` on, round the image."""
    sent = np.flatnonzero(chunks)
    before = sent[sent < start]
    return int((before if len(before) else sent)[-1]) + 1
