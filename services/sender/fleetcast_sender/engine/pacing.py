"""Pacing: when the next burst may go. Pure."""

_CATCH_UP_SECONDS = 0.01
"""A late wake-up is made good up to so much: busy hosts wake threads some milliseconds late. More would be a burst that
small switch buffers do not hold."""
_BURST_SECONDS = 0.001
"""A burst is about so long at the present rate: 125 kB at 1 Gbit/s, half of what a port of the smallest such switches
keeps. Each costs a wake-up, which takes as much processor time as sealing forty datagrams."""
_LINK_SECONDS, _LONG_BURST_SECONDS = 0.00025, 0.004
"""Where the receivers' links are fast a burst is longer: so long as they carry it within the one, and up to the other.
The faster a switch's ports, the more they keep."""
_MIN_BURST_DATAGRAMS = 8


class Pacer:
    """Spaces bursts so that the mean rate is what it is set to."""

    def __init__(self) -> None:
        self._next_at = 0.0

    def delay(self, now: float) -> float:
        """Returns the seconds to wait before the next burst; 0 or less means now."""
        return self._next_at - now

    def sent(self, bits: int, rate_bits_per_second: float, now: float) -> None:
        """Note that a burst of so many bits went out."""
        self._next_at = max(self._next_at, now - _CATCH_UP_SECONDS) + bits / rate_bits_per_second


def burst_datagrams(
    rate_bits_per_second: float, link_bits_per_second: float, datagram_bits: int, train: int, limit: int
) -> int:
    """Returns how many datagrams may go out at once at a rate: few at low rates, up to `limit` at high ones.

    `link_bits_per_second` is the speed of the receivers' links; 0 while bursts have to be short.

    From one on these are whole trains, which the kernel takes in one call: the call for a rest costs as much.
    """
    carried = min(link_bits_per_second * _LINK_SECONDS, rate_bits_per_second * _LONG_BURST_SECONDS)
    count = int(max(rate_bits_per_second * _BURST_SECONDS, carried) / datagram_bits)
    return min(limit, max(_MIN_BURST_DATAGRAMS, count if count < train else round(count / train) * train))
