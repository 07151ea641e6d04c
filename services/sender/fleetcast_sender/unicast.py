"""Chunks by unicast: few at a time from the disk, in turn, within the operator's rate, and beside the group."""

import asyncio
import time

from .rate import RatePolicy
from .transmission import Transmission

_CONCURRENT_READS = 8
_SHARE_BESIDE_GROUP = 0.05
"""Of what the group is sent: those served apart, slow ones most of all, must not cost the others more."""
_SECONDS_FOR_CHUNK = 5.0
"""In which each that is served apart gets a chunk at least: well before it gives up."""


def unicast_limit(rate: RatePolicy, group_bits_per_second: int, apart_count: int, chunk_bytes: int) -> float:
    """Return the bits per second that all unicast of a transmission may take now; 0 is no limit.

    Args:
        rate: what the operator allows.
        group_bits_per_second: what its group is sent now; 0 while no pass runs.
        apart_count: receivers that are served by unicast.
        chunk_bytes: stored bytes of the chunk that comes next.
    """
    limits: list[float] = [rate.ceiling_bits_per_second, rate.fixed_bits_per_second]
    if group_bits_per_second:
        # Members of the group fetch, too, what they lack alone; and what it is sent may be next to nothing.
        least = max(apart_count, 1) * chunk_bytes * 8 / _SECONDS_FOR_CHUNK
        limits.append(max(_SHARE_BESIDE_GROUP * group_bits_per_second, least))
    return min((limit for limit in limits if limit), default=0)


class UnicastReader:
    """Reads chunks for all transmissions. Waiting readers are served in the order of their asking, a chunk each."""

    def __init__(self, concurrent_reads: int = _CONCURRENT_READS) -> None:
        self._turns = asyncio.Semaphore(concurrent_reads)
        self._lines: dict[str, asyncio.Lock] = {}
        """Of the readers of each transmission that wait for their time: a change of the rate counts for all of them."""
        self._next_at: dict[str, float] = {}

    async def read(self, transmission: Transmission, chunk: int) -> bytes:
        """Return the stored bytes of a chunk, no faster than the transmission's rate allows.

        Raises:
            FleetcastError: it cannot be read.
        """
        size = int(transmission.table.stored_size_bytes[chunk])
        await self._pace(transmission, size)
        async with self._turns:
            stored = await asyncio.to_thread(lambda: bytes(transmission.source.stored(chunk)))
        transmission.unicast_bytes += size
        return stored

    def forget(self, transmission: Transmission) -> None:
        """Note that a transmission ended."""
        self._next_at.pop(transmission.name, None)
        self._lines.pop(transmission.name, None)

    async def _pace(self, transmission: Transmission, size_bytes: int) -> None:
        name = transmission.name
        async with self._lines.setdefault(name, asyncio.Lock()):
            now = time.monotonic()
            group, apart = transmission.group_bits_per_second, transmission.apart_count
            if limit := unicast_limit(transmission.rate, group, apart, size_bytes):
                start = max(self._next_at.get(name, 0.0), now)
                self._next_at[name] = start + size_bytes * 8 / limit
                await asyncio.sleep(start - now)
