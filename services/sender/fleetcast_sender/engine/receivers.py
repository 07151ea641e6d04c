"""The receivers of a transmission: who is heard, what each lacks, what each is told.

Pure. The engine decides about passes; here is what it decides from.
"""

from collections import deque
from collections.abc import Iterator, Sequence

import numpy as np
from fleetcast_wire.geometry import Geometry
from fleetcast_wire.packet import datagram_bytes
from numpy.typing import NDArray

from fleetcast_sender.engine.messages import ChunkMembers, Dismissed, Join, Offered, Told, Welcomed
from fleetcast_sender.engine.needs import Needs
from fleetcast_sender.engine.policy import TransmissionPolicy
from fleetcast_sender.engine.roster import Participant

_FEW_MEMBERS = ((2, 0.05), (4, 0.1))
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
        unicast = join.unicast_only or not self._fits(join)
        participant = Participant(seat, join, now, unicast=unicast)
        self._participants[seat] = participant
        self.needs.put(seat, join.held)
        if not unicast:
            self.needs.count(seat)
        participant.lacking_bytes = self.needs.lacking_bytes(seat)
        self.heard_at = now
        self.tell(seat, Welcomed(self._geometry, unicast, self.report_interval_seconds))
        return participant

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

    def _fits(self, join: Join) -> bool:
        """Returns whether the receiver can take windows and datagrams of this geometry."""
        return (
            join.window_memory_bytes >= 2 * self._geometry.window_bytes
            and join.max_payload_bytes >= datagram_bytes(self._geometry.symbol_bytes)
            and (not self._geometry.codec or self._geometry.codec in join.codecs)
        )

    # What they lack

    def put(self, participant: Participant, held: ChunkMembers) -> None:
        """Record what a receiver holds, in place of what was known."""
        self.needs_changed = True
        self.needs.put(participant.seat, held)
        participant.lacking_bytes = self.needs.lacking_bytes(participant.seat)
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

    def offer_alone(self, participant: Participant) -> None:
        """Offer a receiver that takes no multicast what it lacks, a slice at a time."""
        if participant.unicast and participant.ready and not participant.offered and participant.lacking_bytes:
            self.offer(participant, self.needs.lacking(participant.seat))

    def offer(self, participant: Participant, chunks: ChunkMembers) -> None:
        """Offer a receiver the first slice of these chunks."""
        participant.offered = True
        self.tell(participant.seat, Offered(self.needs.first_bytes(chunks, self._policy.unicast_slice_bytes)))
