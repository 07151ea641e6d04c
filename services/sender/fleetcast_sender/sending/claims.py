"""What a receiver says of itself, held against what can be true. Pure."""

from dataclasses import dataclass
from statistics import median

from fleetcast_sender.engine.messages import Reception

_LARGEST = 1 << 62
_FREE_SHARE, _UNUSUAL = 0.06, 3.0
"""Of what was sent: so much is repaired for each receiver, and up to so many times what the others want."""
_LEAST_WINDOWS, _REMEMBERED_WINDOWS = 4, 32
"""A share is one of so many windows at least, since a host may stall once; and of the last ones."""


def possible(reception: Reception, sent: int) -> Reception:
    """Returns totals of which none is beyond what can be: nobody has heard what was not sent.

    Args:
        reception: as a receiver reports it.
        sent: packet counter of the next datagram.
    """
    return Reception(
        highest_packet_counter=max(-1, min(reception.highest_packet_counter, sent - 1)),
        datagram_count=_between(reception.datagram_count, sent),
        overflow_datagram_count=_between(reception.overflow_datagram_count, sent),
        backlog_bytes=_between(reception.backlog_bytes, _LARGEST),
        written_bytes=_between(reception.written_bytes, _LARGEST),
        dropped_window_count=_between(reception.dropped_window_count, _LARGEST),
    )


def _between(value: int, most: int) -> int:
    return max(0, min(value, most))


class Allowance:
    """How much one receiver may say: a stream that says more is read no faster, and nobody else waits for it.

    Args:
        messages_per_second: as a receiver of the fastest group needs at most.
        bytes_of_message: larger messages count as several.
    """

    def __init__(self, *, messages_per_second: float = 1000.0, bytes_of_message: int = 4096) -> None:
        self._rate = messages_per_second
        self._bytes = bytes_of_message
        self._spent_until = 0.0

    def delay(self, size_bytes: int, now: float) -> float:
        """Take note of a message; return the seconds to wait before the next is read: none for a second's worth."""
        self._spent_until = max(self._spent_until, now - 1) + (1 + size_bytes / self._bytes) / self._rate
        return max(0.0, self._spent_until - now)


class RepairClaims:
    """What each receiver wants repaired: one that wants far more than the others must not make them all wait.

    Its losses may be real, or made up: the sender cannot know. What is not repaired for it comes in the next pass or by
    unicast. Where many lose as much, all of it is repaired.

    Args:
        window_symbols: of a full window.
    """

    def __init__(self, window_symbols: int) -> None:
        self._window_symbols = window_symbols
        self._claims: dict[int, _Claim] = {}

    def join(self, seat: int, source_sent: int) -> None:
        """Note that a receiver takes what is sent from this source symbol on."""
        self._claims[seat] = _Claim(source_sent)

    def forget(self, seat: int) -> None:
        """Leave a receiver out."""
        self._claims.pop(seat, None)

    def takes(self, seat: int, symbols: int, source_sent: int) -> bool:
        """Returns whether a receiver's claim of so many symbols is met.

        Args:
            seat: of the receiver.
            symbols: sum of the deficits that it reports.
            source_sent: source symbols that were sent so far.
        """
        claim = self._claims.get(seat)
        if claim is None:
            return True
        claim.symbols += max(0, min(symbols, self._window_symbols))
        claim.forget_old(source_sent, _REMEMBERED_WINDOWS * self._window_symbols)
        others = [self._share(other, source_sent) for number, other in self._claims.items() if number != seat]
        share = self._share(claim, source_sent)
        return not others or share <= _FREE_SHARE or share <= _UNUSUAL * median(others)

    def _share(self, claim: "_Claim", source_sent: int) -> float:
        return claim.symbols / max(source_sent - claim.since, _LEAST_WINDOWS * self._window_symbols)


@dataclass
class _Claim:
    since: int
    symbols: int = 0

    def forget_old(self, source_sent: int, remembered: int) -> None:
        """Let what is long ago count half."""
        if source_sent - self.since > remembered:
            self.since += (source_sent - self.since) // 2
            self.symbols //= 2
