"""Chunks by unicast: few at a time from the disk, in turn, within the operator's rate, and beside the group."""

import asyncio
import time
from dataclasses import dataclass, field

from fleetcast_kit.errors import UnavailableError

from fleetcast_sender.engine.rate import RatePolicy
from fleetcast_sender.sending.transmission import Transmission

_CONCURRENT_READS = 8
_SHARE_BESIDE_GROUP = 0.05
"""Of what the group is sent: unicast to some must not cost the others more."""
_AWAY_SECONDS = 1.0
"""Between attempts at a source that is away."""
_SECONDS_FOR_CHUNK = 5.0
"""In which each reader gets a chunk at least: well before it gives up."""


def unicast_limit(rate: RatePolicy, group_bits_per_second: int, reader_count: int, chunk_bytes: int) -> float:
    """Returns the bits per second that all unicast of a transmission may take now; 0 is no limit.

    Args:
        rate: what the operator allows.
        group_bits_per_second: what its group is sent now; 0 while no pass runs.
        reader_count: receivers that are reading by unicast, at least 1.
        chunk_bytes: stored bytes of the chunk that comes next.
    """
    limits: list[float] = [rate.ceiling_bits_per_second, rate.fixed_bits_per_second]
    if group_bits_per_second:
        # What the group is sent may be next to nothing.
        least = reader_count * chunk_bytes * 8 / _SECONDS_FOR_CHUNK
        limits.append(max(_SHARE_BESIDE_GROUP * group_bits_per_second, least))
    return min((limit for limit in limits if limit), default=0)


class UnicastReader:
    """Reads chunks for all transmissions. Waiting readers are served in the order of their asking, a chunk each."""

    def __init__(self, concurrent_reads: int = _CONCURRENT_READS) -> None:
        self._turns = asyncio.Semaphore(concurrent_reads)
        self._lines: dict[str, _Line] = {}

    async def read(self, transmission: Transmission, chunk: int) -> bytes:
        """Returns the stored bytes of a chunk, no faster than the rate allows; waits for a source that is away.

        Raises:
            FleetcastError: it cannot be read.
        """
        size = int(transmission.table.stored_size_bytes[chunk])
        await self._pace(transmission, size)
        while True:
            try:
                async with self._turns:
                    stored = await asyncio.to_thread(lambda: bytes(transmission.source.stored(chunk)))
            except UnavailableError:
                await asyncio.sleep(_AWAY_SECONDS)  # as long as the reader waits: a source that is away comes back
            else:
                transmission.unicast_bytes += size
                return stored

    def forget(self, transmission: Transmission) -> None:
        """Note that a transmission ended."""
        self._lines.pop(transmission.name, None)

    async def _pace(self, transmission: Transmission, size_bytes: int) -> None:
        line = self._lines.setdefault(transmission.name, _Line())
        line.reader_count += 1
        try:
            async with line.turn:
                # A reader that breaks off while it waits has taken nothing.
                await asyncio.sleep(max(line.next_at - time.monotonic(), 0))
                group = transmission.group_bits_per_second
                if limit := unicast_limit(transmission.rate, group, line.reader_count, size_bytes):
                    line.next_at = max(line.next_at, time.monotonic()) + size_bytes * 8 / limit
        finally:
            line.reader_count -= 1


@dataclass
class _Line:
    """The readers of one transmission that wait for their time: a change of the rate counts for all of them."""

    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    next_at: float = 0.0
    reader_count: int = 0
