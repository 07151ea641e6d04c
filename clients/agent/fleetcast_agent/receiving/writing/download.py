"""One image on its way to one target, whatever brings its chunks."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import numpy as np

from fleetcast_agent.receiving.counts import ReceptionCounts
from fleetcast_agent.receiving.errors import TargetFailedError
from fleetcast_agent.receiving.messages import ChunkMembers, Totals
from fleetcast_agent.receiving.writing.chunk_table import ChunkTable
from fleetcast_agent.receiving.writing.chunk_writer import ChunkWriter
from fleetcast_agent.receiving.writing.holding import Holding
from fleetcast_agent.receiving.writing.journal import Journal, prove_claims
from fleetcast_agent.receiving.writing.medium import Medium
from fleetcast_agent.receiving.writing.target import Target

_MAX_DAMAGES = 16
"""So often a chunk may come whole and wrong before the source must be broken."""


class Download:
    """The state that outlives senders: what is held, where it is written, what was counted.

    Make it with `open`, on the event loop.
    """

    def __init__(self, image: str, table: ChunkTable, target: Target, journal: Journal, held: ChunkMembers) -> None:
        loop = asyncio.get_running_loop()
        self.image = image
        self.table = table
        self.target = target
        self.content_completed = asyncio.Event()
        """Set when every chunk that can be sent is held."""
        self.failed: asyncio.Future[None] = loop.create_future()
        """Fails with what makes going on impossible."""
        self._journal = journal
        self._damages: dict[int, int] = {}
        self._loop = loop
        self._began_at = time.monotonic()
        self._zeros = table.manifest.zero
        self.holding = Holding(table.manifest, held, self._complete_from_thread)
        self.writer = ChunkWriter(
            table=table, target=target, holding=self.holding, journal=journal, failed=self._fail_from_thread
        )
        self._zeroing = asyncio.create_task(asyncio.to_thread(target.zero, self._zeros, table.manifest))
        self._past = Totals()
        self._counts: ReceptionCounts | None = None
        self.overflow_count = 0
        """Datagrams that the sockets of this download dropped."""

    @classmethod
    async def open(cls, image: str, table: ChunkTable, target: Target, journal: Journal) -> Download:
        """Returns the download of an image: the target has room, and what it holds already is proven.

        Raises:
            TargetRefusedError, JournalError: see there.
        """
        manifest = table.manifest
        claims = journal.claims(image, manifest.chunk_size_bytes)
        await asyncio.to_thread(target.prepare, manifest)
        held = await asyncio.to_thread(prove_claims, claims, table, target)
        await asyncio.to_thread(journal.begin, image, manifest.chunk_size_bytes, np.flatnonzero(held).tolist())
        return cls(image, table, target, journal, held)

    @property
    def held(self) -> ChunkMembers:
        """Which chunks need not be sent: those held, and the zero chunks."""
        return self.holding.snapshot() | self._zeros

    @property
    def leading_bytes(self) -> int:
        """How many bytes from the beginning, without a gap, are proven and on the target."""
        held, manifest = self.holding.snapshot(), self.table.manifest
        if self._zeroing.done() and not self._zeroing.cancelled() and self._zeroing.exception() is None:
            held |= self._zeros
        return manifest.size_bytes if held.all() else int(np.argmin(held)) * manifest.chunk_size_bytes

    def damaged(self, chunk: int) -> None:
        """Note that a chunk came whole and wrong. Any thread.

        A sender whose copy is broken would send it so for ever: after some times that ends the download.
        """
        self._damages[chunk] = self._damages.get(chunk, 0) + 1
        if self._damages[chunk] == _MAX_DAMAGES:
            self._fail_from_thread(
                TargetFailedError(
                    f"chunk {chunk} of {self.image} arrives damaged again and again: verify the image on the server",
                    reason="CHUNK_DAMAGED",
                )
            )

    def count(self, counts: ReceptionCounts) -> None:
        """Count the datagrams of another transmission from now on; those of the last one stay counted."""
        self._past = self.totals()
        self._counts = counts

    def totals(self) -> Totals:
        """Returns what was received so far."""
        holding, past = self.holding, self._past
        counts = self._counts or ReceptionCounts()
        absent = counts.absent_datagram_count + past.lost_datagram_count + past.overflow_datagram_count
        overflow = min(self.overflow_count, absent)
        return Totals(
            size_bytes=holding.size_bytes,
            written_bytes=holding.written_bytes,
            held_bytes=holding.held_bytes,
            multicast_bytes=holding.multicast_bytes,
            unicast_bytes=holding.unicast_bytes,
            datagram_count=past.datagram_count + counts.datagram_count,
            lost_datagram_count=absent - overflow,
            overflow_datagram_count=overflow,
            rejected_datagram_count=past.rejected_datagram_count + counts.rejected_datagram_count,
            recovered_symbol_count=past.recovered_symbol_count + counts.recovered_symbol_count,
            backlog_bytes=holding.backlog_bytes,
            dropped_window_count=past.dropped_window_count + counts.dropped_window_count,
            damaged_chunk_count=holding.damaged_chunk_count,
            elapsed_seconds=time.monotonic() - self._began_at,
        )

    async def finish(self) -> None:
        """Returns once every chunk is held and on the medium.

        Raises:
            TargetFailedError: the medium failed.
        """
        await self._zeroing
        self.holding.note_zeros(self._zeros)
        await asyncio.to_thread(self.target.flush)
        await asyncio.to_thread(self._journal.complete)

    def abandon(self) -> None:
        """Hurry: write nothing more of what is in hand. `close` must follow."""
        self.writer.abandon()
        self.target.abandon()

    async def close(self, *, keep: bool) -> None:
        """Let go of the target, after writing what is in hand. Unless `keep`, a file that got nothing is removed."""
        await asyncio.gather(self._zeroing, return_exceptions=True)
        await asyncio.to_thread(self.writer.close)
        self._journal.close()
        if self.failed.done():
            self.failed.exception()
        if not keep and not self.holding.multicast_bytes and not self.holding.unicast_bytes:
            self.target.discard()
            self._journal.discard_if_empty()

    def _complete_from_thread(self) -> None:
        self._loop.call_soon_threadsafe(self.content_completed.set)

    def _fail_from_thread(self, error: TargetFailedError) -> None:
        self._loop.call_soon_threadsafe(self._fail, error)

    def _fail(self, error: TargetFailedError) -> None:
        if not self.failed.done():
            self.failed.set_exception(error)


def open_target(
    path: Path, journals: Path, *, keep_size: bool = False, medium: Medium | None = None
) -> tuple[Target, Journal]:
    """Returns a checked target and its journal; with `keep_size` a file that is larger than the image stays so.

    Raises:
        TargetRefusedError, JournalError: see there.
    """
    target = Target(path, keep_size=keep_size, medium=medium)
    try:
        return target, Journal(journals, path)
    except BaseException:
        target.close()
        raise
