"""What a receiver says of itself, held against what can be true. Pure."""

from fleetcast_sender.engine.messages import Reception

_LARGEST = 1 << 62


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
