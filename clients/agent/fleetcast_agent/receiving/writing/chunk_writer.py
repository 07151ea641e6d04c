"""Chunks are proven and written by a few threads; hashing, decompression and writing leave the interpreter free."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from fleetcast_wire.memory import Buffer

from fleetcast_agent.receiving.errors import TargetFailedError
from fleetcast_agent.receiving.writing.chunk_table import ChunkTable
from fleetcast_agent.receiving.writing.holding import Arrivals, Holding
from fleetcast_agent.receiving.writing.journal import Journal
from fleetcast_agent.receiving.writing.target import Target

_logger = logging.getLogger(__name__)


Settle = Callable[[Collection[int], Collection[int]], None]
"""Told which chunks wait no more, and which of those are written."""

_SETTLE_SECONDS = 0.02
"""For so long chunks are proven that are written together. Where writing takes longer, each is told of before the next:
how far a slow medium is must show."""


@dataclass(frozen=True, eq=False)
class _Job:
    arrivals: Arrivals
    by_unicast: bool
    settle: Settle


class ChunkWriter:
    """Proves chunks, writes them to their places, and notes them in the journal and the holding.

    Those who submit bound how many wait: the ring of windows, and the number of unicast chunks under way.

    Args:
        settle_seconds: for so long chunks are proven that are written together.
        failed: called once, on a writer's thread, when the target failed; nothing is written after that.
    """

    def __init__(
        self,
        *,
        table: ChunkTable,
        target: Target,
        holding: Holding,
        journal: Journal,
        failed: Callable[[TargetFailedError], None],
        threads: int = 2,
        settle_seconds: float = _SETTLE_SECONDS,
    ) -> None:
        self._table = table
        self._target = target
        self._holding = holding
        self._journal = journal
        self._failed = failed
        self._broken = threading.Event()
        self._chunk_bytes = table.manifest.chunk_size_bytes
        self._settle_seconds = settle_seconds
        self._slow = False
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._threads = [threading.Thread(target=self._run, name=f"write-{n}", daemon=True) for n in range(threads)]
        for thread in self._threads:
            thread.start()

    def submit(self, arrivals: Arrivals, *, by_unicast: bool, settle: Settle) -> None:
        """Have chunks proven and written, all by one thread.

        `settle` is told of each once, on a writer's thread, of several together; after that what is stored is free.
        """
        self._holding.note_arrivals(arrivals)
        self._jobs.put(_Job(arrivals, by_unicast, settle))

    def abandon(self) -> None:
        """Write nothing more of what waits: it is not noted either, so it comes again."""
        self._broken.set()

    def close(self) -> None:
        """Finish what was submitted, and end the threads."""
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            waiting = deque(job.arrivals.items())
            while waiting:
                self._write_some(waiting, job)

    def _write_some(self, waiting: deque[tuple[int, Buffer]], job: _Job) -> None:
        """Prove chunks for a while, write them, and tell of them; on a slow medium, one."""
        settled, proven, written = dict[int, Buffer](), dict[int, Buffer](), set[int]()
        began_at = time.monotonic()
        try:
            while waiting and (not settled or (not self._slow and time.monotonic() - began_at < self._settle_seconds)):
                chunk, stored = waiting.popleft()
                settled[chunk] = stored
                if not self._broken.is_set() and (content := self._proven(chunk, stored)) is not None:
                    proven[chunk] = content
            began_at = time.monotonic()
            for chunks in _runs(proven):
                self._target.write(chunks[0] * self._chunk_bytes, *map(proven.__getitem__, chunks))
                written.update(chunks)
            self._slow = time.monotonic() - began_at > self._settle_seconds
        except TargetFailedError as error:
            if not self._broken.is_set():
                self._broken.set()
                self._failed(error)
        finally:
            self._journal.note(written)
            self._holding.note_settled(settled, written, by_unicast=job.by_unicast)
            job.settle(settled, written)

    def _proven(self, chunk: int, stored: Buffer) -> Buffer | None:
        content = self._table.prove(chunk, stored)
        if content is None:
            self._holding.note_damage()
            _logger.warning("chunk %d came whole and does not match its digest: it is fetched again", chunk)
        return content


def _runs(chunks: Iterable[int]) -> list[list[int]]:
    """Returns numbers in groups that follow each other: a file system keeps what is written at once in larger pages."""
    runs: list[list[int]] = []
    for chunk in sorted(chunks):
        if not runs or runs[-1][-1] != chunk - 1:
            runs.append([])
        runs[-1].append(chunk)
    return runs
