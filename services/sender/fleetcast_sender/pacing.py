"""Pacing: when the next train may go. Pure."""

_CATCH_UP_SECONDS = 0.01
"""A late wake-up is made good up to so much: busy hosts wake threads some milliseconds late. More would be a burst that
small switch buffers do not hold."""
_TRAIN_SECONDS = 0.0005
"""A train is about so long at the present rate: 42 datagrams of 1.4 kB at 1 Gbit/s, the 64 kB that TCP segmentation
offload sends in one burst too. Each train costs a call and a wake-up."""
_MIN_TRAIN_DATAGRAMS = 8


class Pacer:
    """Spaces trains so that the mean rate is what it is set to."""

    def __init__(self) -> None:
        self._next_at = 0.0

    def delay(self, now: float) -> float:
        """Return the seconds to wait before the next train; 0 or less means now."""
        return self._next_at - now

    def sent(self, bits: int, rate_bits_per_second: float, now: float) -> None:
        """Note that a train of so many bits went out."""
        self._next_at = max(self._next_at, now - _CATCH_UP_SECONDS) + bits / rate_bits_per_second


def train_datagrams(rate_bits_per_second: float, datagram_bits: int, limit: int) -> int:
    """Return how long trains should be at a rate: short at low rates, as long as the kernel takes at high ones."""
    return min(limit, max(_MIN_TRAIN_DATAGRAMS, int(rate_bits_per_second * _TRAIN_SECONDS / datagram_bits)))
