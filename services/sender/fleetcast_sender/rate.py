"""How fast to send: a pure controller fed with what receivers report. Rates are bits per second, headers included.

Delivery rate, not loss, is what it follows (as BBR does): independent loss of a few per cent is repaired by parity and
leaves the rate alone; a receiver whose packets arrive later and later, or whose host drops them, bounds it.
"""

from dataclasses import dataclass, field
from statistics import median

from .messages import Reception

MIN_BITS_PER_SECOND = 5_000_000
_START_BITS_PER_SECOND = 300_000_000
_UNKNOWN_LINK_BITS_PER_SECOND = 100_000_000_000
_LOSS_IGNORED = 0.08
"""Loss beyond what a receiver always has that is taken for congestion: above the 5 % that parity is made for."""
_QUEUE_SECONDS = 0.06
"""Lag beyond a receiver's least lag that shows a growing queue."""
_PROBE_SHARE = 1.06
"""Step of a probe: well under a fifth, so that the rate never swings by more."""


@dataclass(frozen=True)
class RatePolicy:
    """What the operator allows."""

    fixed_bits_per_second: int = 0
    """0 means automatic."""
    ceiling_bits_per_second: int = 0
    """0 means none."""


@dataclass
class _Receiver:
    reception: Reception
    at: float
    """When `reception` came, by the sender's clock."""
    sent: int
    """Packet counter at that instant."""
    delivered_per_second: float = 0.0
    sent_per_second: float = 0.0
    """Packets sent per second over the same time."""
    loss: float = 0.0
    lag_packets: int = 0
    least_lag_packets: float = field(default=float("inf"))
    tolerated_loss: float = 0.0
    overflowed: bool = False
    dropped_window: bool = False
    backlog_share: float = 0.0
    window_memory_bytes: int = 0
    fresh: bool = False
    written_per_second: float = 0.0
    slow_since: float | None = None
    behind_backlog: float = 0.0


class RateController:
    """The rate of one transmission.

    Args:
        policy: fixed or automatic, and the ceiling.
        link_bits_per_second: the sender's link, 0 if not known.
        datagram_bits: bits of one datagram on the wire, headers included.
    """

    def __init__(self, policy: RatePolicy, *, link_bits_per_second: int, datagram_bits: int) -> None:
        self.policy = policy
        self.link_bits_per_second = link_bits_per_second or _UNKNOWN_LINK_BITS_PER_SECOND
        """What the transmission may use of the link: changes when others share it."""
        self.slow_threshold = 0.5
        """A receiver under this share of the group's median for `slow_seconds` is slow."""
        self.slow_seconds = 3.0
        self.follow_slow = False
        """True for the policy `keep`: slow receivers bound the rate like all others."""
        self._datagram_bits = datagram_bits
        self._receivers: dict[int, _Receiver] = {}
        self._automatic = float(_START_BITS_PER_SECOND)
        self._starting = True
        self._updated_at = 0.0
        self._updated_sent = 0
        self._probe_at = 0.0
        self._probe_wait = 1.0
        self._before_probe = 0.0
        self._suspects: dict[int, float] = {}
        self._slow: set[int] = set()

    @property
    def rate(self) -> float:
        """The rate to send at now."""
        wanted = self.policy.fixed_bits_per_second or self._automatic
        ceiling = self.policy.ceiling_bits_per_second or wanted
        return max(min(wanted, ceiling, self.link_bits_per_second), MIN_BITS_PER_SECOND / 10)

    @property
    def demand(self) -> float:
        """What the transmission could use of the link, with room to grow."""
        if self.policy.fixed_bits_per_second:
            return self.rate
        ceiling = self.policy.ceiling_bits_per_second or self._automatic * 1.3
        return min(self._automatic * 1.3, ceiling)

    @property
    def slow(self) -> frozenset[int]:
        """Seats of the receivers that fell behind the threshold."""
        return frozenset(self._slow)

    @property
    def lag_seconds(self) -> float:
        """How far the last of the receivers that bound the rate is behind, in seconds of sending."""
        lags = [r.lag_packets for seat, r in self._receivers.items() if seat not in self._slow]
        return max(lags, default=0) * self._datagram_bits / max(self.rate, 1.0)

    def set_policy(self, policy: RatePolicy) -> None:
        """Let the operator change his mind."""
        self.policy = policy

    def loss_shares(self) -> list[float]:
        """Return the share of datagrams that each receiver lost lately."""
        return [r.loss for r in self._receivers.values() if r.sent_per_second]

    def join(self, seat: int, sent: int, now: float, window_memory_bytes: int = 0) -> None:
        """Take a receiver in that hears what is sent from the packet counter `sent` on."""
        nothing = Reception(sent - 1, 0)
        self._receivers[seat] = _Receiver(nothing, now, sent, window_memory_bytes=window_memory_bytes)

    def report(self, seat: int, reception: Reception, sent: int, now: float) -> None:
        """Take what one receiver reports; `sent` is the packet counter of the next datagram."""
        known = self._receivers.get(seat)
        if known is None or reception.highest_packet_counter < 0:
            return
        seconds, last = now - known.at, known.reception
        if seconds < 0.02:
            return
        progress = reception.highest_packet_counter - last.highest_packet_counter
        count = reception.datagram_count - last.datagram_count
        known.delivered_per_second = max(progress, 0) / seconds
        known.loss = min(max(1 - count / progress, 0.0), 1.0) if progress > 50 else known.loss
        known.sent_per_second = (sent - known.sent) / seconds
        known.lag_packets = max(sent - 1 - reception.highest_packet_counter, 0)
        known.least_lag_packets = min(known.least_lag_packets * 1.02 + 1, known.lag_packets)
        known.overflowed = reception.overflow_datagram_count > last.overflow_datagram_count
        known.dropped_window = reception.dropped_window_count > last.dropped_window_count
        written = max(reception.written_bytes - last.written_bytes, 0) / seconds
        weight = min(seconds, 1.0)
        known.written_per_second += (written - known.written_per_second) * weight
        if known.window_memory_bytes:
            known.backlog_share = reception.backlog_bytes / known.window_memory_bytes
        known.reception, known.at, known.sent, known.fresh = reception, now, sent, True

    def forget(self, seat: int) -> None:
        """Leave a receiver out of the account."""
        self._receivers.pop(seat, None)
        self._slow.discard(seat)
        self._suspects.pop(seat, None)

    def update(self, sent: int, now: float, interval_seconds: float) -> None:
        """Adjust the automatic rate, once in each interval in which receivers reported."""
        if not self._updated_at:
            self._updated_at, self._updated_sent = now, sent
            return
        elapsed = now - self._updated_at
        if elapsed < interval_seconds:
            return
        fresh = [seat for seat, r in self._receivers.items() if r.fresh]
        if len(fresh) < 0.8 * len(self._receivers) and elapsed < 2 * interval_seconds:
            return
        actual = (sent - self._updated_sent) * self._datagram_bits / elapsed
        self._updated_at, self._updated_sent = now, sent
        self._find_slow(now)
        followed = [seat for seat in fresh if seat not in self._slow or self.follow_slow]
        if followed and actual > 0.2 * self.rate:
            self._adjust(followed, actual, now)
        for seat in fresh:
            self._receivers[seat].fresh = False

    def _adjust(self, followed: list[int], actual: float, now: float) -> None:
        """Choose the next rate from the state of the receivers that count."""
        bound = min(self._bound(seat) for seat in followed)
        if bound < 1:
            base = min(self._automatic, actual) if self._starting else self._automatic
            self._automatic = max(base * bound, MIN_BITS_PER_SECOND)
            self._starting = False
            self._probe_wait = min(self._probe_wait * 1.5, 8.0)
            self._probe_at = now + self._probe_wait
            return
        # Somewhat above what the own host manages there is nothing to gain: it would only unlearn the rate.
        limit = min(max(actual * 1.3, MIN_BITS_PER_SECOND), self.link_bits_per_second)
        if self._starting:
            self._automatic = min(self._automatic * 2, max(limit * 1.6, self._automatic))
            if self._automatic >= self.link_bits_per_second:
                self._automatic, self._starting = float(self.link_bits_per_second), False
        elif now >= self._probe_at and self._automatic < limit:
            self._automatic = min(self._automatic * _PROBE_SHARE, limit)
            self._probe_wait = max(self._probe_wait * 0.8, 0.25)
            self._probe_at = now + self._probe_wait

    def _bound(self, seat: int) -> float:
        """Return the factor that one receiver puts on the rate: 1 if it keeps up."""
        r = self._receivers[seat]
        packets_per_second = max(r.sent_per_second, 1.0)
        if r.overflowed or r.dropped_window or r.backlog_share > 0.8:
            return min(max(r.delivered_per_second / packets_per_second, 0.7), 0.9)
        queue_seconds = (r.lag_packets - r.least_lag_packets) / packets_per_second
        if queue_seconds > _QUEUE_SECONDS:
            return min(max(r.delivered_per_second / packets_per_second, 0.5), 0.95)
        excess = r.loss - r.tolerated_loss
        if excess > _LOSS_IGNORED:
            return self._suspect(seat, r)
        self._suspects.pop(seat, None)
        return 1.0

    def _suspect(self, seat: int, r: _Receiver) -> float:
        """Slow down for a loss, unless slowing down has shown that it does not depend on the rate."""
        before = self._suspects.get(seat)
        if before is not None and r.loss > 0.85 * before:
            r.tolerated_loss = r.loss
            self._suspects.pop(seat, None)
            return 1.0
        self._suspects[seat] = r.loss
        return min(max(1 - r.loss, 0.3) * 1.02, 0.95)

    def _find_slow(self, now: float) -> None:
        active = {seat: r for seat, r in self._receivers.items() if r.sent_per_second}
        if len(active) < 3:
            self._slow.clear()
            return
        speeds = {seat: r.delivered_per_second * (1 - r.loss) for seat, r in active.items()}
        usual = median(speeds.values())
        usual_written = median(r.written_per_second for r in active.values())
        for seat, r in active.items():
            host_slow = r.dropped_window or r.backlog_share > 0.8
            behind = speeds[seat] < self.slow_threshold * usual or (
                host_slow and r.written_per_second < self.slow_threshold * usual_written
            )
            if not behind:
                r.slow_since = None
                self._slow.discard(seat)
            elif r.slow_since is None:
                r.slow_since = now
            elif now - r.slow_since >= self.slow_seconds:
                self._slow.add(seat)
