"""How fast to send: a pure controller fed with what receivers report. Rates are bits per second, headers included.

Delivery rate, not loss, is what it follows (as BBR does): independent loss of a few per cent is repaired by parity and
leaves the rate alone; a receiver that falls further and further behind, or whose host drops datagrams, bounds it.
"""

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from fleetcast_sender.engine.messages import Reception
from fleetcast_sender.engine.receiver_pace import ReceiverPace
from fleetcast_sender.engine.slowness import SlowReceivers

MIN_BITS_PER_SECOND = 5_000_000
_START_BITS_PER_SECOND, _START_SHARE = 1_000_000_000, 0.5
"""Where links are not known or not much faster; and of the slowest link, where all are."""
_UNKNOWN_LINK_BITS_PER_SECOND = 100_000_000_000
_LOSS_IGNORED = 0.08
"""Loss beyond what a receiver always has that is taken for congestion: above the 5 % that parity is made for."""
_OVERFLOW_IGNORED, _OVERFLOW_HEAVY = 0.002, 0.05
_SETTLE_SECONDS = 0.25
"""After a cut, until its effect can be seen."""
_STALE_SECONDS = 1.5
_NEAR, _BEYOND = 0.8, 1.3
"""Of the rate at the last cut. Below, the cut was too deep and is made good fast; beyond, its cause is gone."""
_FAST_STEP, _STEP, _SLOW_STEP = 1.25, 1.1, 1.04
"""Far from the last cut; near it while hardly anything waits at any receiver; near it otherwise."""
_STEP_SECONDS = 0.25
_USED_SHARE = 0.5
_AT_EASE, _IDLE = 0.25, 0.1
"""Receivers that are strained more than the one are not asked to go faster; less than the other, sooner."""
_STRAINED = 0.75
"""Those that are less so could go faster."""
_HELD_SHARE = 0.97
"""Of what was sent while receivers held the sender back: a little less, so that what waits at them becomes less."""
_HELD_LEAST = 0.5
"""Of the rate that is left at least: one of the receivers may not be slow, but have stopped."""
_SHOWN_SHARE = 0.8
"""Of what all have shown that they can take: hosts that were slow for a moment are not slower afterwards."""
_HELD_LONG = 0.2
"""Of an interval in which nothing could be sent: less may be due to reports that come late."""
_HELD_SECONDS = 0.4
"""What the receivers take is measured over so long."""
_PATIENCE_SECONDS = 0.5
"""So long others wait for one that is behind: hosts stall that are not slow."""
_UNBOUND_SECONDS = 0.02
"""Where no receiver is waited for: until it is seen again whether one is."""
_EXCEPTIONS = 100
"""One receiver in so many never holds the others up; in small groups, each may."""
_START_STEP, _START_STEP_SECONDS = 1.25, 0.05
"""From 1 to 10 Gbit/s in half a second; a step may only follow when reports on the last could be here."""


@dataclass(frozen=True)
class RatePolicy:
    """What the operator allows."""

    fixed_bits_per_second: int = 0
    """0 means automatic."""
    ceiling_bits_per_second: int = 0
    """0 means none."""


class RateController:
    """The rate of one transmission.

    Args:
        policy: fixed or automatic, and the ceiling.
        link_bits_per_second: the sender's link, 0 if not known.
        datagram_bits: bits of one datagram on the wire, headers included.
    """

    def __init__(self, policy: RatePolicy, *, link_bits_per_second: int, datagram_bits: int) -> None:
        self.policy = policy
        """May be replaced at any time."""
        self.link_bits_per_second = link_bits_per_second or _UNKNOWN_LINK_BITS_PER_SECOND
        """What the transmission may use of the link: changes when others share it."""
        self.slowness = SlowReceivers(datagram_bits)
        """Who is slow: they bound the rate only by the policy to keep them."""
        self._datagram_bits = datagram_bits
        self._receivers: dict[int, ReceiverPace] = {}
        self._suspects: dict[int, float] = {}
        self._automatic = float(_START_BITS_PER_SECOND)
        self.slowest_link = float(_UNKNOWN_LINK_BITS_PER_SECOND)
        """Bits per second of the slowest receiver's link."""
        self._starting = True
        self._interval_seconds = 0.1
        self._updates: deque[tuple[float, int]] = deque([(0.0, 0)])
        self._limit = 0.0
        self._held_at: float | None = None
        self._held_seconds = 0.0
        self._waited_for: set[int] = set()
        self._held_from = 0.0
        self._judge_from = 0.0
        self._step_at = 0.0
        self._step_wait = _STEP_SECONDS
        self._near_at = 0.0
        self._cut_rate = 0.0

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

    def lag_seconds(self, now: float) -> float:
        """Returns how far the last receiver that reports and bounds the rate is behind, in seconds of sending."""
        lags = [
            pace.lag_packets
            for seat, pace in self._receivers.items()
            if seat not in self.slowness.seats and now - pace.reported_at < _STALE_SECONDS
        ]
        return max(lags, default=0) * self._datagram_bits / max(self.rate, 1.0)

    def loss_shares(self) -> list[float]:
        """Returns the share of datagrams that each receiver lost lately, of those that can say."""
        return [pace.loss for pace in self._receivers.values() if pace.loss is not None]

    def join(
        self,
        seat: int,
        sent: int,
        now: float,
        *,
        window_memory_bytes: int = 0,
        receive_buffer_bytes: int = 0,
        link_bits_per_second: int = 0,
    ) -> None:
        """Take a receiver in that hears what is sent from the packet counter `sent` on."""
        link = max(link_bits_per_second or _START_BITS_PER_SECOND, MIN_BITS_PER_SECOND)
        self.slowest_link = min(self.slowest_link, link)
        if not sent:
            self._automatic = min(self.slowest_link, max(_START_BITS_PER_SECOND, _START_SHARE * self.slowest_link))
        pace = self._receivers[seat] = ReceiverPace(window_memory_bytes, receive_buffer_bytes)
        pace.take(Reception(sent - 1, 0), sent, now)

    def report(self, seat: int, reception: Reception, sent: int, now: float) -> None:
        """Take what one receiver reports; `sent` is the packet counter of the next datagram."""
        pace = self._receivers.get(seat)
        if pace and reception.highest_packet_counter >= 0:
            pace.take(reception, sent, now)

    def forget(self, seat: int) -> None:
        """Leave a receiver out of the account."""
        self._receivers.pop(seat, None)
        self.slowness.forget(seat)
        self._suspects.pop(seat, None)

    def may_send(self, sent: int, now: float) -> bool:
        """Returns whether all receivers that are waited for have room for more; `sent` as in `report`.

        This is what keeps a rate that is too high for some moments from costing anything. Only for the automatic rate.
        """
        if sent < self._limit or self.policy.fixed_bits_per_second:
            return True
        limits = sorted(
            pace.limit(now, self._datagram_bits // 8, self._interval_seconds)
            for pace in self._receivers.values()
            if self.slowness.is_followed(pace, now - _PATIENCE_SECONDS)
        )
        self._limit = limits[len(limits) // _EXCEPTIONS] if limits else math.inf
        if math.isinf(self._limit):
            self._limit = sent + 1 + self.rate / self._datagram_bits * _UNBOUND_SECONDS
        if self._held_at is not None:
            self._held_seconds += now - self._held_at
        self._held_at = None if sent < self._limit else now
        return self._held_at is None

    def update(self, sent: int, now: float, interval_seconds: float) -> None:
        """Adjust the automatic rate, once in each interval in which receivers reported."""
        self._interval_seconds = interval_seconds
        updated_at, updated_sent = self._updates[-1]
        elapsed = now - updated_at
        if updated_at and elapsed < interval_seconds:
            return
        fresh = {seat: pace for seat, pace in self._receivers.items() if pace.fresh}
        if len(fresh) < 0.8 * len(self._receivers) and elapsed < 2 * interval_seconds:
            return
        if sent == updated_sent:
            self._updates.clear()  # what the receivers take can only be told from where sending began
        self._updates.append((now, sent))
        while len(self._updates) > 1 and now - self._updates[1][0] > _HELD_SECONDS:
            self._updates.popleft()
        self.slowness.judge(self._receivers, lambda pace: self._strain([pace], sent, now) > _STRAINED, now)
        self._note_waited_for(now)
        followed = {seat: pace for seat, pace in fresh.items() if self.slowness.is_followed(pace, now)}
        held, self._held_seconds = self._held_seconds > _HELD_LONG * elapsed, 0.0
        actual = (sent - updated_sent) * self._datagram_bits / max(elapsed, 1e-3)
        if held:
            self._hold(followed, now)
        elif followed and actual > 0.2 * self.rate and now >= self._judge_from:
            self._adjust(followed, actual, sent, now)
        for pace in fresh.values():
            pace.fresh = False

    def _note_waited_for(self, now: float) -> None:
        """Begin anew when one that bounded the rate does so no more: nothing is known of what the others take."""
        since, interval = now - _PATIENCE_SECONDS, self._interval_seconds
        seats = {
            seat
            for seat, pace in self._receivers.items()
            if self.slowness.is_followed(pace, since) and not pace.stands_still(now, interval)
        }
        if not self._waited_for & self._receivers.keys() <= seats:
            self._starting = True
        self._waited_for = seats

    def _hold(self, followed: dict[int, ReceiverPace], now: float) -> None:
        """Take the rate that went out while the receivers held the sender back for what they can take."""
        (first_at, first_sent), (last_at, last_sent) = self._updates[0], self._updates[-1]
        if now < self._held_from or last_at - first_at < _HELD_SECONDS:
            return
        taken = (last_sent - first_sent) * self._datagram_bits / (last_at - first_at)
        shown = min((pace.best_per_second for pace in followed.values()), default=0.0) * self._datagram_bits
        taken = max(taken, _SHOWN_SHARE * min(shown, self._automatic))
        least = max(self._automatic * _HELD_LEAST, MIN_BITS_PER_SECOND)
        self._automatic = max(min(self._automatic, taken * _HELD_SHARE), least)
        self._starting = False
        self._cut_rate = max(taken, least)
        self._held_from = now + _HELD_SECONDS
        self._step_at = self._near_at = now + _STEP_SECONDS

    def _adjust(self, followed: dict[int, ReceiverPace], actual: float, sent: int, now: float) -> None:
        factor = min(self._factor(seat, pace) for seat, pace in followed.items())
        # While the own host or link sends much less than it may, nothing is learnt from going faster.
        used = actual > _USED_SHARE * self._automatic
        if factor < 1:
            self._automatic = min(self._automatic, max(actual * _START_STEP, _START_BITS_PER_SECOND))
            self._cut(factor, followed, now)
        elif not used or now < self._step_at or (strain := self._strain(followed.values(), sent, now)) > _AT_EASE:
            return
        elif self._starting:
            self._automatic = min(self._automatic * _START_STEP, self.link_bits_per_second)
            self._step_at = now + _START_STEP_SECONDS
            self._starting = self._automatic < self.link_bits_per_second
        else:
            near = _NEAR <= self._automatic / max(self._cut_rate, 1.0) <= _BEYOND
            if near and now < self._near_at:
                return
            self._automatic = min(
                self._automatic * (_FAST_STEP if not near else _STEP if strain < _IDLE else _SLOW_STEP),
                self.link_bits_per_second,
            )
            self._step_wait = max(self._step_wait * 0.6, _STEP_SECONDS)
            self._step_at = now + (self._step_wait if near else _STEP_SECONDS)

    def _strain(self, paces: Iterable[ReceiverPace], sent: int, now: float) -> float:
        """Returns how strained the most strained receiver is that is no exception."""
        datagram_bytes = self._datagram_bits // 8
        strains = sorted(pace.strain(sent, now, datagram_bytes, self._interval_seconds) for pace in paces)
        return strains[-1 - len(strains) // _EXCEPTIONS]

    def _cut(self, factor: float, followed: dict[int, ReceiverPace], now: float) -> None:
        """Slow down, then wait until the effect shows; after cuts in a row the next attempts come more slowly."""
        if self._starting:
            # The start overshoots: what the slowest took lately is the better measure.
            taken = min(pace.recent_per_second for pace in followed.values()) * self._datagram_bits
            self._cut_rate = self._automatic
            self._automatic = min(max(taken, self._automatic * 0.3), self._automatic * factor)
            self._starting = False
        else:
            self._cut_rate = self._automatic
            self._automatic *= factor
        self._automatic = max(self._automatic, MIN_BITS_PER_SECOND)
        self._judge_from = now + _SETTLE_SECONDS + min(self.lag_seconds(now), 1.0)
        self._step_wait = min(self._step_wait * 2, 2.0)
        self._step_at = self._judge_from + _STEP_SECONDS
        self._near_at = self._judge_from + self._step_wait
        for pace in self._receivers.values():
            pace.restart()

    def _factor(self, seat: int, pace: ReceiverPace) -> float:
        """Returns the factor that one receiver puts on the rate: 1 if it keeps up."""
        if not pace.telling:
            return 1.0
        if pace.overflow_share > _OVERFLOW_HEAVY:
            return min(max(pace.recent_per_second * self._datagram_bits / self._automatic, 0.3), 0.9)
        if pace.overflow_share > _OVERFLOW_IGNORED:
            return min(max(1 - 1.5 * pace.overflow_share, 0.7), 0.95)
        if pace.dropped_windows > 0:
            return 0.85
        loss = pace.loss or 0.0
        if loss - pace.tolerated_loss > _LOSS_IGNORED:
            return self._suspect(seat, pace, loss)
        self._suspects.pop(seat, None)
        return 1.0

    def _suspect(self, seat: int, pace: ReceiverPace, loss: float) -> float:
        """Slow down for a loss, unless slowing down has shown that it does not depend on the rate."""
        before = self._suspects.pop(seat, None)
        if before is not None and loss > 0.85 * before:
            pace.tolerated_loss = loss
            return 1.0
        self._suspects[seat] = loss
        return min(max(1 - loss, 0.3) * 1.02, 0.95)
