"""Chunks by unicast: few at a time from the disk, in turn, and within the rate that the operator set."""

import asyncio
import time

from .transmission import Transmission

_CONCURRENT_READS = 8


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
            stored = bytearray(size)
            await asyncio.to_thread(transmission.source.read_into, chunk, memoryview(stored))
        transmission.unicast_bytes += size
        return bytes(stored)

    def forget(self, transmission: Transmission) -> None:
        """Note that a transmission ended."""
        self._next_at.pop(transmission.name, None)
        self._lines.pop(transmission.name, None)

    async def _pace(self, transmission: Transmission, size_bytes: int) -> None:
        name = transmission.name
        async with self._lines.setdefault(name, asyncio.Lock()):
            rate, now = transmission.rate, time.monotonic()
            limits = [limit for limit in (rate.ceiling_bits_per_second, rate.fixed_bits_per_second) if limit]
            if limits:
                start = max(self._next_at.get(name, 0.0), now)
                self._next_at[name] = start + size_bytes * 8 / min(limits)
                await asyncio.sleep(start - now)
