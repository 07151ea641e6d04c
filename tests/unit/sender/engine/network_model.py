"""A network of numbers for the rate: hosts with a speed and a buffer, ports that drop, reports that come late."""

from collections.abc import Sequence
from random import Random

from fleetcast_sender.engine.messages import Reception
from fleetcast_sender.engine.rate import RateController, RatePolicy

DATAGRAM_BITS = 1476 * 8
STEP_SECONDS = 0.005
REPORT_SECONDS = 0.05
BUFFER_BYTES = 32 << 20


class NetworkModel:
    """One sender under a controller, and receivers in fluid approximation. Rates are in Gbit/s."""

    def __init__(
        self,
        host_speeds: Sequence[float],
        *,
        own_speed: float = 100.0,
        port_speeds: Sequence[float] | None = None,
        loss: float = 0.0,
        lateness_seconds: float = 0.03,
        policy: RatePolicy | None = None,
        link_speed: float = 0.0,
        host_links: Sequence[float] | None = None,
        seed: int = 1,
        starts_at: float = 0.0,
    ) -> None:
        self.controller = RateController(
            policy or RatePolicy(), link_bits_per_second=int(link_speed * 1e9), datagram_bits=DATAGRAM_BITS
        )
        self.hosts, self.own, self.loss = list(host_speeds), own_speed, loss
        self.ports = list(port_speeds or [1000.0] * len(self.hosts))
        self.lateness = lateness_seconds
        self.random = Random(seed)
        count = len(self.hosts)
        self.queues, self.taken, self.overflows = [0.0] * count, [0.0] * count, [0.0] * count
        self.report_at = [starts_at + self.random.random() * REPORT_SECONDS for _ in range(count)]
        self.under_way: list[list[tuple[float, Reception]]] = [[] for _ in range(count)]
        self.sent = 0.0
        self.now = starts_at
        self.rates: list[tuple[float, float]] = []
        for seat in range(count):
            link = int(host_links[seat] * 1e9) if host_links else 0
            self.controller.join(seat, 0, starts_at, receive_buffer_bytes=BUFFER_BYTES, link_bits_per_second=link)

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            self._step()

    def seen(self, since: float) -> list[float]:
        """What was sent, in Gbit/s, since a time."""
        return [rate for at, rate in self.rates if at >= since]

    def _step(self) -> None:
        held = not self.controller.may_send(int(self.sent), self.now)
        rate = 0 if held else min(self.controller.rate, self.own * 1e9)
        packets = rate / DATAGRAM_BITS * STEP_SECONDS
        self.sent += packets
        for seat, (host, port) in enumerate(zip(self.hosts, self.ports, strict=True)):
            through = min(packets, port * 1e9 / DATAGRAM_BITS * STEP_SECONDS) * (1 - self.loss)
            room = BUFFER_BYTES / 1448 - self.queues[seat]
            self.overflows[seat] += max(0.0, through - room)
            self.queues[seat] += min(through, room)
            take = min(self.queues[seat], host * 1e9 / DATAGRAM_BITS * STEP_SECONDS)
            self.queues[seat] -= take
            self.taken[seat] += take
            self._report(seat)
        self.controller.update(int(self.sent), self.now, REPORT_SECONDS)
        self.rates.append((self.now, rate / 1e9))
        self.now += STEP_SECONDS

    def _report(self, seat: int) -> None:
        if self.now >= self.report_at[seat] and self.hosts[seat]:
            self.report_at[seat] += REPORT_SECONDS
            highest = int(self.sent - 1 - self.queues[seat])
            reception = Reception(highest, int(self.taken[seat]), overflow_datagram_count=int(self.overflows[seat]))
            last = self.under_way[seat][-1][0] if self.under_way[seat] else 0.0
            arrival = max(last, self.now + self.random.random() * self.lateness)
            self.under_way[seat].append((arrival, reception))
        while self.under_way[seat] and self.under_way[seat][0][0] <= self.now:
            self.controller.report(seat, self.under_way[seat].pop(0)[1], int(self.sent), self.now)
