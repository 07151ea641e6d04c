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
    forged_datagram_count: int = 0
    """Datagrams that a member sealed and the sender did not send, as far as that is known. Counted as rejected, too."""
    first_packet_counter: int = -1
    highest_packet_counter: int = -1
    """Of those that are proven to be the sender's, or cannot be beyond it; -1 if none is."""
    pass_number: int = 0
    """Pass of the highest packet counter."""
    dropped_window_count: int = 0
    """Windows given up because the ring was full."""
    recovered_symbol_count: int = 0

    _proven_counter: int = -1
    _first_proven_counter: int = -1
    _lowest_counter: int = -1
    _since_proof: int = 0

    def note(self, datagrams: int, first: int, counter: int) -> bool:
        """Count datagrams that opened, with packet counters from `first` to `counter`; return whether the highest grew.

        A member can seal any counter. So no more is believed than what was signed last and what came since, and no
        counter of the beginning that is further from what was signed first than twice what came.
        """
        self.datagram_count += datagrams
        self._since_proof += datagrams
        self._lowest_counter = first if self._lowest_counter < 0 else min(first, self._lowest_counter)
        if self._proven_counter < 0:
            return False
        self._set_first()
        believed = min(counter, self._proven_counter + self._since_proof)
        if believed <= self.highest_packet_counter:
            return False
        self.highest_packet_counter = believed
        return True

    def prove(self, counter: int) -> bool:
        """Take the packet counter of a datagram that the sender signed; return whether the highest grew."""
        self._lowest_counter = counter if self._lowest_counter < 0 else min(counter, self._lowest_counter)
        if self._first_proven_counter < 0:
            self._first_proven_counter = counter
        self._set_first()
        if counter <= self._proven_counter:
            return False
        self._proven_counter, self._since_proof = counter, 0
        grew = counter > self.highest_packet_counter
        self.highest_packet_counter = max(self.highest_packet_counter, counter)
        return grew

    def _set_first(self) -> None:
        least = max(0, self._first_proven_counter + 1 - 2 * self.datagram_count)
        self.first_packet_counter = min(max(self._lowest_counter, least), self._first_proven_counter)

    @property
    def absent_datagram_count(self) -> int:
        """Datagrams sent since the first that was heard, and not heard: lost on the way or in this host."""
        if self.highest_packet_counter < 0:
            return 0
        return max(0, self.highest_packet_counter - self.first_packet_counter + 1 - self.datagram_count)
