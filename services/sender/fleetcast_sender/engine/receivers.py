"""The receivers of a transmission: who is heard, what each lacks, what each is told.

Pure. The engine decides about passes; here is what it decides from.
"""

from collections import deque
from collections.abc import Iterator, Sequence

import numpy as np
from fleetcast_wire.geometry import Geometry
from fleetcast_wire.packet import datagram_bytes
from numpy.typing import NDArray

from fleetcast_sender.engine.messages import ChunkMembers, Dismissed, Join, Offered, Told, UnicastReason, Welcomed
from fleetcast_sender.engine.needs import Needs
from fleetcast_sender.engine.policy import TransmissionPolicy
from fleetcast_sender.engine.roster import Offer, Participant

_FEW_MEMBERS = ((2, 0.05), (4, 0.1))
_SLICE_SHARE = 1 / 32
"""Of the image, the first offer at most: machines that come soon after would have to get it once more."""
_LONG_FETCH_SECONDS = 0.05
"""A receiver that fetches an offer for so long has a second one, to fetch while its answer is under way. Shorter offers
are followed by larger ones."""
_SLICE_GROWTH = 4
_LEAST_SLICE_BYTES = 1 << 20
_MOST_DOUBLINGS = 4
_REPORT_SECONDS = 0.2


class Receivers:
    """Everybody who is heard, by seat.

    Args:
        geometry: of the transmission's windows.
        stored_size_bytes: shape (chunk_count,), 0 for zero chunks.
        policy: times and shares.
    """

    def __init__(self, geometry: Geometry, stored_size_bytes: NDArray[np.int64], policy: TransmissionPolicy) -> None:
        self.needs = Needs(stored_size_bytes)
        self.needs_changed = False
        """Whether what receivers lack has changed since the engine looked last."""
        self.lacking: set[int] = set()
        """Seats of those that lack anything."""
        self.members: set[int] = set()
        """Seats of those that take the multicast, are ready and lack something."""
        self.awaited: set[int] = set()
        """Seats of those that were asked at the end of the pass what they hold, and have not answered."""
        self.heard_at = 0.0
        """When any receiver was heard last."""
        self._geometry = geometry
        self._policy = policy
        self._sizes = stored_size_bytes
        share_bytes = int(stored_size_bytes.sum() * _SLICE_SHARE)
        self._first_slice_bytes = min(policy.first_slice_bytes, policy.unicast_slice_bytes, share_bytes)
        self._leavers: set[int] = set()
        self._returned: list[tuple[int, Join]] = []
        self._chunk_count = len(stored_size_bytes)
        self._participants: dict[int, Participant] = {}
        self._expected: dict[str, float] = {}
        self._told: deque[tuple[int, Told]] = deque()

    def __len__(self) -> int:
        return len(self._participants)

    def __iter__(self) -> Iterator[Participant]:
        """Go through a copy: receivers may be removed meanwhile."""
        return iter(list(self._participants.values()))

    @property
    def expecting(self) -> bool:
        """Whether machines that were admitted may still come."""
        return bool(self._expected)

    @property
    def group(self) -> list[Participant]:
        """Those that take the multicast, ready or not."""
        return [participant for participant in self._participants.values() if not participant.unicast]

    @property
    def unready(self) -> bool:
        """Whether a receiver has joined the group and does not hear it yet."""
        return any(not it.ready for it in self.group)

    @property
    def wanting(self) -> list[Participant]:
        """Members whose needs are known, and that lack more than they were offered."""
        members = (self._participants[seat] for seat in self.members)
        return [it for it in members if it.rest_bytes and self.needs.counted(it.seat)]

    @property
    def fetching(self) -> list[Participant]:
        """Members that have an offer which they have not answered."""
        members = (self._participants[seat] for seat in self.members)
        return [it for it in members if it.offers]

    def unicast_machines(self) -> dict[UnicastReason, list[str]]:
        """Returns the machines that are served by unicast now, by the reason."""
        machines: dict[UnicastReason, list[str]] = {}
        for participant in self._participants.values():
            reason = participant.apart or (participant.offers[0].reason if participant.offers else None)
            if reason and participant.lacking_bytes:
                machines.setdefault(reason, []).append(participant.join.machine)
        return machines

    @property
    def report_interval_seconds(self) -> float:
        """How often receivers are to report: at most 1,000 reports a second in all, each at least every 2 s.

        Five a second say enough of one receiver, unless its buffer fills faster, as where few share all of a fast host.
        """
        members = len(self._participants) + len(self._expected)
        usual = next((seconds for most, seconds in _FEW_MEMBERS if members <= most), _REPORT_SECONDS)
        return min(2.0, max(usual, members / 1000))

    def unheard(self, now: float) -> bool:
        """Returns whether no receiver was heard for so long that nothing more is sent until one is."""
        return now - self.heard_at > 1 + 2 * self.report_interval_seconds

    # Who is there

    def expect(self, machines: Sequence[str], until: float) -> None:
        """Note that these machines were admitted, and how long to wait for them."""
        for machine in machines:
            self._expected[machine] = until

    def get(self, seat: int) -> Participant | None:
        """Returns the receiver at a seat, or None if it is gone."""
        return self._participants.get(seat)

    def hear(self, seat: int, now: float) -> Participant | None:
        """Note that a receiver lives, and return it; None if it is gone."""
        participant = self._participants.get(seat)
        if participant:
            participant.heard_at = self.heard_at = now
        return participant

    def add(self, seat: int, join: Join, now: float) -> Participant:
        """Let a receiver in, welcome it, and return it."""
        self._expected.pop(join.machine, None)
        participant = Participant(seat, join, now, apart=self._why_apart(join), slice_bytes=self._first_slice_bytes)
        self._participants[seat] = participant
        self.needs.put(seat, join.held)
        participant.lacking_bytes = self.needs.lacking_bytes(seat)
        self.heard_at = now
        self.tell(seat, Welcomed(self._geometry, participant.unicast, self.report_interval_seconds))
        return participant

    def make_ready(self, participant: Participant) -> None:
        """Let a receiver's needs count from now on."""
        participant.ready = True
        if not participant.unicast:
            self.needs_changed = True
            self.needs.count(participant.seat)
        self.sort_in(participant)

    def leave_group(self, participant: Participant, reason: UnicastReason, now: float) -> None:
        """Serve a receiver by unicast from now on; it returns later if the reason may pass."""
        participant.apart = reason
        participant.left_count += 1
        participant.return_at = None
        if reason.passes:
            doublings = min(participant.left_count - 1, _MOST_DOUBLINGS)
            participant.return_at = now + self._policy.return_seconds * 2**doublings
            self._leavers.add(participant.seat)
        self.awaited.discard(participant.seat)
        self.needs_changed = True
        self.needs.uncount(participant.seat)
        self.sort_in(participant)

    def return_due(self, now: float) -> None:
        """Let those into the group again whose time has come, between two passes."""
        for seat in list(self._leavers):
            participant = self._participants.get(seat)
            if participant and (participant.return_at is None or participant.return_at > now):
                continue
            self._leavers.discard(seat)
            if participant:
                participant.apart, participant.return_at, participant.stuck_count = None, None, 0
                self._returned.append((seat, participant.join))
                self.make_ready(participant)

    def take_returned(self) -> list[tuple[int, Join]]:
        """Returns the receivers that came back to the group since the last call."""
        returned, self._returned = self._returned, []
        return returned

    def postpone(self, seconds: float, now: float) -> None:
        """Leave out of every account a time in which the sender stood still, which says nothing of the receivers.

        Whether anybody is there at all has to be heard anew: nothing is sent before.
        """
        for participant in self._participants.values():
            participant.heard_at = min(participant.heard_at + seconds, now)
            participant.fetched.clear()
            participant.fetched.append((now, 0))
            if participant.asked_at is not None:
                participant.asked_at = min(participant.asked_at + seconds, now)
        self._expected = {machine: until + seconds for machine, until in self._expected.items()}

    def remove(self, seat: int) -> None:
        """Forget a receiver."""
        participant = self._participants.pop(seat, None)
        if participant:
            self.awaited.discard(seat)
            self.needs_changed = True
            self.needs.remove(seat)
            self.sort_in(participant)

    def forget_silent(self, now: float) -> None:
        """Take out those that were not heard for too long, and expect no longer those that did not come in time."""
        limit = self._policy.silence_seconds
        for participant in [p for p in self._participants.values() if now - p.heard_at > limit]:
            reason = f"nothing was heard from this machine for {limit:g} s"
            self.tell(participant.seat, Dismissed(reason, forgotten=True))
            self.remove(participant.seat)
        for machine in [name for name, until in self._expected.items() if until < now]:
            del self._expected[machine]

    def _why_apart(self, join: Join) -> UnicastReason | None:
        """Returns why the receiver can take no part in the group, or None if it can."""
        if join.unicast_only:
            return join.unicast_reason
        fits = (
            join.window_memory_bytes >= 2 * self._geometry.window_bytes
            and join.max_payload_bytes >= datagram_bytes(self._geometry.symbol_bytes)
            and (not self._geometry.codec or self._geometry.codec in join.codecs)
        )
        return None if fits else UnicastReason.LIMITS

    # What they lack

    def put(self, participant: Participant, held: ChunkMembers) -> None:
        """Record what a receiver holds, in place of what was known."""
        self.needs_changed = True
        self.needs.put(participant.seat, held)
        lacking = self.needs.lacking(participant.seat)
        participant.lacking_bytes = int(self._sizes[lacking].sum())
        self._measure_offers(participant, lacking)
        self.sort_in(participant)

    def put_all(self, participant: Participant) -> None:
        """Record that a receiver holds everything."""
        self.put(participant, np.ones(self._chunk_count, np.bool_))

    def sort_in(self, participant: Participant) -> None:
        """Keep the sets of those that lack something and of those that take the multicast up to date."""
        seat, here = participant.seat, participant.seat in self._participants
        if here and participant.lacking_bytes:
            self.lacking.add(seat)
        else:
            self.lacking.discard(seat)
        if seat in self.lacking and participant.ready and not participant.unicast:
            self.members.add(seat)
        else:
            self.members.discard(seat)

    # What they are told

    def tell(self, seat: int, told: Told) -> None:
        """Have a receiver told something."""
        self._told.append((seat, told))

    def take_told(self) -> list[tuple[int, Told]]:
        """Returns the messages to receivers since the last call, by seat."""
        told = list(self._told)
        self._told.clear()
        return told

    def offer_apart(self, participant: Participant, now: float) -> None:
        """Offer a receiver that is apart from the group what it lacks, a slice at a time."""
        if participant.apart and participant.ready:
            while self.takes_offer(participant):
                self.offer(participant, participant.apart, now)

    def takes_offer(self, participant: Participant) -> bool:
        """Returns whether there is something to offer to a receiver, and few offers are under way to it."""
        most = 2 if participant.fetch_seconds >= _LONG_FETCH_SECONDS else 1
        return bool(participant.rest_bytes) and len(participant.offers) < most

    def offer(self, participant: Participant, reason: UnicastReason, now: float, *, start: int = 0) -> ChunkMembers:
        """Offer a receiver the first slice of what it lacks from `start` on, and return the slice."""
        lacking, offered = self.needs.lacking(participant.seat), participant.offered
        if offered is not None:
            lacking &= ~offered
        if not participant.offers:
            participant.fetched.clear()
            participant.fetched.append((now, 0))
            # While a pass ran it may have fetched little.
            participant.slice_bytes = max(participant.slice_bytes, self._first_slice_bytes)
        chunks = self.needs.first_bytes(lacking, participant.slice_bytes, start)
        size = int(self._sizes[chunks].sum())
        participant.offers.append(Offer(chunks, size, now, reason))
        participant.offered_bytes += size
        self.tell(participant.seat, Offered(chunks))
        return chunks

    def end_offers(self, participant: Participant, now: float, *, failed: bool) -> bool:
        """Take away the offers of which a receiver holds everything; return whether one is ended.

        If there is none and `failed`, the first has failed. How long it took tells how much to offer next.
        """
        lacking = self.needs.lacking(participant.seat)
        ended: list[Offer] = []
        while participant.offers and (not ended or not (lacking & participant.offers[0].chunks).any()):
            if not failed and (lacking & participant.offers[0].chunks).any():
                break
            ended.append(participant.offers.popleft())
        if ended:
            self._learn_slice(participant, ended, now)
            self._measure_offers(participant, lacking)
        return bool(ended)

    def _learn_slice(self, participant: Participant, ended: Sequence[Offer], now: float) -> None:
        """Choose the size of the next slices, so that each takes about so long as the policy says."""
        fetched = participant.fetched
        fetched.append((now, fetched[-1][1] + sum(offer.size_bytes for offer in ended)))
        bytes_per_second = (fetched[-1][1] - fetched[0][1]) / max(now - fetched[0][0], 1e-3)
        size = min(int(bytes_per_second * self._policy.slice_seconds), _SLICE_GROWTH * participant.slice_bytes)
        participant.slice_bytes = min(max(size, _LEAST_SLICE_BYTES), self._policy.unicast_slice_bytes)
        participant.fetch_seconds = now - ended[0].offered_at

    def _measure_offers(self, participant: Participant, lacking: ChunkMembers) -> None:
        offered = participant.offered
        participant.offered_bytes = 0 if offered is None else int(self._sizes[lacking & offered].sum())
