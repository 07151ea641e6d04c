"""Which receivers are slower than the others of their group. Pure."""

from collections.abc import Callable, Mapping
from statistics import median

from fleetcast_sender.engine.policy import SlowAction, SlowPolicy
from fleetcast_sender.engine.receiver_pace import ReceiverPace

_LEAST_RECEIVERS = 3
"""Of two, nobody can say which one is unusual."""
_LOSS_SUSPECT = 0.08
"""One that loses more than that takes less than it is sent, though nothing waits at it."""
_BACKLOG_SLOW = 0.25
"""Of the memory for windows: hosts that keep up wait with a tenth of it for their disks."""
_USUAL_SHARE = 0.9


class SlowReceivers:
    """Compares receivers with the median of their group; `slow_since` of their paces is kept here.

    Args:
        datagram_bits: bits of one datagram on the wire, headers included.
    """

    def __init__(self, datagram_bits: int) -> None:
        self.policy = SlowPolicy()
        """May be replaced at any time."""
        self._datagram_bits = datagram_bits
        self._slow: set[int] = set()

    @property
    def seats(self) -> frozenset[int]:
        """The receivers that have been behind for as long as the policy says."""
        return frozenset(self._slow)

    def forget(self, seat: int) -> None:
        """Leave a receiver out."""
        self._slow.discard(seat)

    def is_followed(self, pace: ReceiverPace, since: float) -> bool:
        """Returns whether a receiver bounds the rate: not if it has been behind since before `since`, slow or not."""
        return self.policy.action is SlowAction.KEEP or pace.slow_since is None or pace.slow_since > since

    def judge(self, paces: Mapping[int, ReceiverPace], is_strained: Callable[[ReceiverPace], bool], now: float) -> None:
        """Find who is behind, from the paces of all receivers of which some have reported anew."""
        telling = {seat: pace for seat, pace in paces.items() if pace.fresh and pace.telling}
        if len(telling) < _LEAST_RECEIVERS:
            if len(paces) < _LEAST_RECEIVERS:
                self._slow.clear()
                for pace in paces.values():
                    pace.slow_since = None
            return
        takes = {seat: _takes(pace, is_strained(pace)) for seat, pace in telling.items()}
        usual = median(takes.values())
        usual_written = median(pace.written_per_second for pace in telling.values())
        for seat, pace in telling.items():
            host_slow = pace.dropped_windows > 0 or pace.backlog_share > _BACKLOG_SLOW
            behind = takes[seat] < self._floor(usual, self._datagram_bits) or (
                host_slow and pace.written_per_second < self._floor(usual_written, 8)
            )
            if not behind:
                pace.slow_since = None
                self._slow.discard(seat)
            elif pace.slow_since is None:
                pace.slow_since = now
            elif now - pace.slow_since >= self.policy.seconds:
                self._slow.add(seat)

    def _floor(self, usual: float, bits: int) -> float:
        """Returns below how many units of so many bits a second a receiver is slow, where `usual` ones are taken."""
        if self.policy.bits_per_second:
            return min(self.policy.bits_per_second / bits, _USUAL_SHARE * usual)
        return self.policy.threshold * usual


def _takes(pace: ReceiverPace, strained: bool) -> float:
    """Returns how many datagrams a second a receiver can take, as far as is known.

    That is what it takes, or what it took at best if it is at ease: then it may only be waiting for others. One that
    was behind has to show that it is not.
    """
    if strained or pace.slow_since is not None or (pace.loss or 0.0) > _LOSS_SUSPECT:
        return pace.delivered_per_second
    return pace.best_per_second
