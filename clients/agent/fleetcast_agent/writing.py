"""Chunks are proven and written by a few threads; hashing, decompression and writing leave the interpreter free."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass

from fleetcast_agent.errors import TargetFailedError
from fleetcast_agent.holding import Arrivals, Holding
from fleetcast_agent.journal import Journal
from fleetcast_agent.table import ChunkTable
from fleetcast_agent.target import Target

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class _Job:
    arrivals: Arrivals
    by_unicast: bool
    settle: Callable[[set[int]], None]


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

    def submit(self, arrivals: Arrivals, *, by_unicast: bool, settle: Callable[[set[int]], None]) -> None:
        """Have chunks proven and written, all by one thread.

        `settle` is told on a writer's thread which of them were; after that what is stored is free.
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
            written = set[int]()
            try:
                self._write(job, written)
            except TargetFailedError as error:
                if not self._broken.is_set():
                    self._broken.set()
                    self._failed(error)
            finally:
                self._journal.note(written)
                self._holding.note_settled(job.arrivals, written, by_unicast=job.by_unicast)
                job.settle(written)

    def _write(self, job: _Job, written: set[int]) -> None:
        """Prove and write chunks, adding to `written` those that are."""
        for chunk, stored in job.arrivals.items():
            if self._broken.is_set():
                return
            content = self._table.prove(chunk, stored)
            if content is None:
                self._holding.note_damage()
                _log.warning("chunk %d came whole and does not match its digest: it is fetched again", chunk)
                continue
            self._target.write(chunk * self._table.manifest.chunk_size_bytes, content)
            written.add(chunk)
