"""Chunks are proven and written by a few threads; hashing, decompression and writing leave the interpreter free."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass

from fleetcast_agent.errors import TargetFailedError
from fleetcast_agent.holding import Holding
from fleetcast_agent.journal import Journal
from fleetcast_agent.table import ChunkTable, Stored
from fleetcast_agent.target import Target

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class _Job:
    chunk: int
    stored: Stored
    by_unicast: bool
    settle: Callable[[bool], None]


class ChunkWriter:
    """Proves chunks, writes them to their places, and notes them in the journal and the holding.

    Those who submit bound how many wait: the ring of windows, and the number of unicast chunks under way.

    Args:
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
    ) -> None:
        self._table = table
        self._target = target
        self._holding = holding
        self._journal = journal
        self._failed = failed
        self._broken = threading.Event()
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._threads = [threading.Thread(target=self._run, name=f"write-{n}", daemon=True) for n in range(threads)]
        for thread in self._threads:
            thread.start()

    def submit(self, chunk: int, stored: Stored, *, by_unicast: bool, settle: Callable[[bool], None]) -> None:
        """Have a chunk proven and written.

        `settle` is told on a writer's thread whether it was; after that `stored` is free.
        """
        self._holding.note_arrival(len(stored))
        self._jobs.put(_Job(chunk, stored, by_unicast, settle))

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
            written = False
            try:
                written = not self._broken.is_set() and self._write(job)
            except TargetFailedError as error:
                if not self._broken.is_set():
                    self._broken.set()
                    self._failed(error)
            finally:
                job.settle(written)

    def _write(self, job: _Job) -> bool:
        content = self._table.prove(job.chunk, job.stored)
        if content is None:
            self._holding.note_damage(len(job.stored))
            _log.warning("chunk %d came whole and does not match its digest: it is fetched again", job.chunk)
            return False
        self._target.write(job.chunk * self._table.manifest.chunk_size_bytes, content)
        self._journal.note(job.chunk)
        self._holding.note_written(job.chunk, len(job.stored), job.by_unicast)
        return True
