"""What was received of one transmission."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class ReceptionCounts:
    """Totals of one transmission."""

    datagram_count: int = 0
    """Datagrams that authenticated."""
    rejected_datagram_count: int = 0
    """Datagrams that are not of this transmission, or do not open."""
    first_packet_counter: int = -1
    highest_packet_counter: int = -1
    """Of those that authenticated; -1 if none did."""
    pass_number: int = 0
    """Pass of the highest packet counter."""
    dropped_window_count: int = 0
    """Windows given up because the ring was full."""
    recovered_symbol_count: int = 0

    @property
    def absent_datagram_count(self) -> int:
        """Datagrams sent since the first that was heard, and not heard: lost on the way or in this host."""
        if self.highest_packet_counter < 0:
            return 0
        return max(0, self.highest_packet_counter - self.first_packet_counter + 1 - self.datagram_count)
