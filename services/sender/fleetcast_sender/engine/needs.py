"""Who lacks which chunks, counted per chunk so that thousands of receivers cost little."""

import numpy as np
from numpy.typing import NDArray

from fleetcast_sender.engine.messages import ChunkMembers


class Needs:
    """What receivers lack. Zero chunks are never lacked: everybody makes them for himself.

    Args:
        stored_size_bytes: shape (chunk_count,), 0 for zero chunks.
    """

    def __init__(self, stored_size_bytes: NDArray[np.int64]) -> None:
        self._sizes = stored_size_bytes
        self._sent = stored_size_bytes > 0
        self._lacking: dict[int, NDArray[np.uint8]] = {}
        self._counted: set[int] = set()
        self.counts: NDArray[np.int32] = np.zeros(len(stored_size_bytes), np.int32)
        """Shape (chunk_count,): how many of the counted receivers lack each chunk."""

    def put(self, seat: int, held: ChunkMembers) -> None:
        """Record what the receiver at `seat` holds, in place of what was known; it stays counted if it was."""
        counted = seat in self._counted
        self.uncount(seat)
        self._lacking[seat] = np.packbits(self._sent & ~held)
        if counted:
            self.count(seat)

    def count(self, seat: int) -> None:
        """Let the receiver's needs count."""
        if seat not in self._counted:
            self._counted.add(seat)
            self.counts += self.lacking(seat)

    def uncount(self, seat: int) -> None:
        """Leave the receiver's needs out of the counts, as when they are no longer known."""
        if seat in self._counted:
            self._counted.remove(seat)
            self.counts -= self.lacking(seat)

    def remove(self, seat: int) -> None:
        """Forget the receiver."""
        self.uncount(seat)
        self._lacking.pop(seat, None)

    def counted(self, seat: int) -> bool:
        """Returns whether the receiver's needs count."""
        return seat in self._counted

    def lacking(self, seat: int) -> ChunkMembers:
        """Returns the chunks that the receiver lacks, as a new array."""
        return np.unpackbits(self._lacking[seat], count=len(self._sizes)).view(np.bool_)

    def lacking_bytes(self, seat: int) -> int:
        """Returns the stored size of all that the receiver lacks."""
        return int(self._sizes[self.lacking(seat)].sum())

    def first_bytes(self, members: ChunkMembers, limit_bytes: int, start: int = 0) -> ChunkMembers:
        """Returns the first of `members` whose stored sizes add up to `limit_bytes` at most, at least one.

        They are taken from the chunk `start` on, and after the last chunk from the first on.
        """
        chunks = np.flatnonzero(members)
        chunks = np.roll(chunks, -int(np.searchsorted(chunks, start)))
        count = int(np.searchsorted(np.cumsum(self._sizes[chunks]), limit_bytes, side="right"))
        first = np.zeros(len(self._sizes), np.bool_)
        first[chunks[: max(count, 1)]] = True
        return first
