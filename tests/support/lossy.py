"""A seeded link in memory that loses, doubles, reorders and corrupts datagrams. No socket, no clock."""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random


@dataclass(frozen=True)
class Bursts:
    """Losses that come in runs: Gilbert's two-state channel, which loses everything in its bad state."""

    fraction: float
    """Share of all datagrams that is lost, above 0 and below 1."""
    mean_length: float
    """Mean length of a run of losses in datagrams, at least 1."""

    def runs(self, random: Random, length: int) -> Iterator[range]:
        """Returns the runs of losses among `length` datagrams, in order, not touching one another."""
        mean_gap = self.mean_length * (1 - self.fraction) / self.fraction
        position = _geometric(random, mean_gap)
        while position < length:
            end = min(position + _geometric(random, self.mean_length), length)
            yield range(position, end)
            position = end + _geometric(random, mean_gap)


def _geometric(random: Random, mean: float) -> int:
    """Returns 1, 2, ... with the given mean: tries until a success of probability 1/mean."""
    count = 1
    while random.random() >= 1 / mean:
        count += 1
    return count


@dataclass(frozen=True)
class Impairment:
    """What a link does to datagrams. Shares are of all datagrams sent."""

    loss: float = 0.0
    """Share lost, each by itself."""
    bursts: Bursts | None = None
    """Losses in runs, besides `loss`."""
    duplication: float = 0.0
    """Share that arrives twice."""
    reordering: float = 0.0
    """Share that is held back by up to `reordering_seconds`."""
    reordering_seconds: float = 0.01
    corruption: float = 0.0
    """Share of which one bit is flipped, or the end is cut off (one in four of them)."""
    latency_seconds: float = 0.001
    partitions: Sequence[tuple[float, float]] = ()
    """Times (from, until) during which everything sent is lost, in seconds of the caller's clock."""


@dataclass
class LinkCounts:
    """What happened on a link so far, in datagrams."""

    sent: int = 0
    lost: int = 0
    duplicated: int = 0
    reordered: int = 0
    corrupted: int = 0
    delivered: int = 0


class LossyLink:
    """One direction of a link. The same seed and the same calls give the same outcome."""

    def __init__(self, seed: int, impairment: Impairment | None = None) -> None:
        self.impairment = impairment or Impairment()
        self.counts = LinkCounts()
        self._random = Random(seed)
        self._bad = False
        self._sequence = 0
        self._in_flight: list[tuple[float, int, bytes]] = []

    def send(self, datagram: bytes | bytearray | memoryview, now: float) -> None:
        """Put a copy of a datagram on the link at the instant `now` (seconds, never falling)."""
        self.counts.sent += 1
        if self._loses(now):
            self.counts.lost += 1
            return
        self._launch(bytes(datagram), now)
        if self._random.random() < self.impairment.duplication:
            self.counts.duplicated += 1
            self._launch(bytes(datagram), now)

    def receive(self, now: float) -> list[bytes]:
        """Returns the datagrams that have arrived by `now`, in the order of their arrival."""
        arrived = []
        while self._in_flight and self._in_flight[0][0] <= now:
            arrived.append(heapq.heappop(self._in_flight)[2])
        self.counts.delivered += len(arrived)
        return arrived

    @property
    def next_arrival_at(self) -> float | None:
        """When the next datagram arrives; None if nothing is under way."""
        return self._in_flight[0][0] if self._in_flight else None

    def _loses(self, now: float) -> bool:
        impairment = self.impairment
        if any(start <= now < end for start, end in impairment.partitions):
            return True
        if impairment.bursts is not None and self._in_burst(impairment.bursts):
            return True
        return self._random.random() < impairment.loss

    def _in_burst(self, bursts: Bursts) -> bool:
        mean_gap = bursts.mean_length * (1 - bursts.fraction) / bursts.fraction
        if self._random.random() < 1 / (bursts.mean_length if self._bad else mean_gap):
            self._bad = not self._bad
        return self._bad

    def _launch(self, datagram: bytes, now: float) -> None:
        impairment, random = self.impairment, self._random
        arrival = now + impairment.latency_seconds
        if random.random() < impairment.reordering:
            self.counts.reordered += 1
            arrival += random.random() * impairment.reordering_seconds
        if random.random() < impairment.corruption:
            self.counts.corrupted += 1
            datagram = _corrupt(datagram, random)
        self._sequence += 1
        heapq.heappush(self._in_flight, (arrival, self._sequence, datagram))


def _corrupt(datagram: bytes, random: Random) -> bytes:
    if not datagram or random.random() < 0.25:
        return datagram[: random.randrange(len(datagram))] if datagram else b"\x00"
    damaged = bytearray(datagram)
    damaged[random.randrange(len(damaged))] ^= 1 << random.randrange(8)
    return bytes(damaged)
