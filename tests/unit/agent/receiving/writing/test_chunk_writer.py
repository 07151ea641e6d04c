"""Writing chunks: what is told of them, and when."""

import errno
import os
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import numpy as np
from fleetcast_agent.receiving.errors import TargetFailedError
from fleetcast_agent.receiving.writing.chunk_table import ChunkTable
from fleetcast_agent.receiving.writing.chunk_writer import ChunkWriter
from fleetcast_agent.receiving.writing.holding import Holding
from fleetcast_agent.receiving.writing.journal import Journal
from fleetcast_agent.receiving.writing.medium import Medium
from fleetcast_agent.receiving.writing.target import Target
from fleetcast_wire.manifest import Manifest, chunk_digest

CHUNK_BYTES, COUNT = 4096, 4
CONTENT = np.random.default_rng(3).bytes(COUNT * CHUNK_BYTES)
CHUNKS = {chunk: CONTENT[chunk * CHUNK_BYTES : (chunk + 1) * CHUNK_BYTES] for chunk in range(COUNT)}


class Writing:
    """A writer of one thread into a file, and what it told."""

    def __init__(self, folder: Path, medium: Medium | None = None, *, settle_seconds: float = 60) -> None:
        # However busy this host is, chunks that come together are told together.
        digests = np.stack([np.frombuffer(chunk_digest(chunk), np.uint8) for chunk in CHUNKS.values()])
        manifest = Manifest(len(CONTENT), CHUNK_BYTES, digests)
        table = ChunkTable(manifest, np.full(COUNT, CHUNK_BYTES, np.int64), np.zeros(COUNT, np.bool_))
        self.path, self.journals = folder / "disk", folder / "journals"
        self.target = Target(self.path, medium=medium)
        self.target.prepare(manifest)
        self.journal = Journal(self.journals, self.path)
        self.journal.begin("images/lab@sha256:00", CHUNK_BYTES, [])
        self.holding = Holding(manifest, np.zeros(COUNT, np.bool_), lambda: None)
        self.failures: list[TargetFailedError] = []
        self.told: list[tuple[list[int], list[int]]] = []
        self.writer = ChunkWriter(
            table=table,
            target=self.target,
            holding=self.holding,
            journal=self.journal,
            failed=self.failures.append,
            threads=1,
            settle_seconds=settle_seconds,
        )

    def submit(self, arrivals: dict[int, bytes]) -> None:
        """Have chunks written."""
        self.writer.submit(arrivals, by_unicast=False, settle=self._settle)

    def write(self, arrivals: dict[int, bytes]) -> None:
        """Have chunks written, and wait for everything."""
        self.submit(arrivals)
        self.writer.close()
        self.journal.close()
        self.target.close()

    def _settle(self, settled: Collection[int], written: Collection[int]) -> None:
        self.told.append((sorted(settled), sorted(written)))

    @property
    def claims(self) -> list[int]:
        """What the journal says is held."""
        return Journal(self.journals, self.path).claims("images/lab@sha256:00", CHUNK_BYTES)


class Media(Medium):
    """Writes as it is told to."""

    def __init__(self, write: Callable[[int, Sequence[memoryview], int], int]) -> None:
        super().__init__()
        self._write = write

    def write_at(self, descriptor: int, contents: Sequence[memoryview], offset: int) -> int:
        return self._write(descriptor, contents, offset)


def test_a_damaged_chunk_leaves_those_that_came_with_it_alone(tmp_path: Path) -> None:
    writing = Writing(tmp_path)
    writing.write({**CHUNKS, 2: bytes(CHUNK_BYTES)})
    assert writing.told == [([0, 1, 2, 3], [0, 1, 3])]
    assert writing.claims == [0, 1, 3]
    assert writing.holding.snapshot().tolist() == [True, True, False, True]
    assert (writing.holding.damaged_chunk_count, writing.holding.backlog_bytes) == (1, 0)
    assert writing.holding.written_bytes == writing.holding.multicast_bytes == 3 * CHUNK_BYTES
    assert writing.path.read_bytes() == CONTENT[: 2 * CHUNK_BYTES] + bytes(CHUNK_BYTES) + CHUNKS[3]


def test_chunks_that_follow_each_other_are_written_together(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []

    def write(descriptor: int, contents: Sequence[memoryview], offset: int) -> int:
        calls.append((offset // CHUNK_BYTES, len(contents)))
        return os.pwritev(descriptor, contents, offset)

    writing = Writing(tmp_path, Media(write))
    writing.write({chunk: CHUNKS[chunk] for chunk in (3, 1, 0)})
    assert calls == [(0, 2), (3, 1)]
    assert writing.told == [([0, 1, 3], [0, 1, 3])]
    assert writing.path.read_bytes() == CONTENT[: 2 * CHUNK_BYTES] + bytes(CHUNK_BYTES) + CHUNKS[3]


def test_what_a_slow_medium_has_is_told_although_more_came_with_it(tmp_path: Path) -> None:
    def write(descriptor: int, contents: Sequence[memoryview], offset: int) -> int:
        time.sleep(0.03)
        return os.pwritev(descriptor, contents, offset)

    writing = Writing(tmp_path, Media(write), settle_seconds=0.02)
    writing.submit({0: CHUNKS[0]})  # shows that the medium is slow
    writing.write({chunk: CHUNKS[chunk] for chunk in range(1, COUNT)})
    assert writing.told == [([chunk], [chunk]) for chunk in range(COUNT)]
    assert writing.claims == list(range(COUNT))


def test_a_target_that_fails_is_said_once_and_what_it_has_stays_noted(tmp_path: Path) -> None:
    def write(descriptor: int, contents: Sequence[memoryview], offset: int) -> int:
        if offset >= 2 * CHUNK_BYTES:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return os.pwritev(descriptor, contents, offset)

    writing = Writing(tmp_path, Media(write), settle_seconds=0.02)
    writing.submit({chunk: CHUNKS[chunk] for chunk in (0, 1)})
    writing.write({chunk: CHUNKS[chunk] for chunk in (2, 3)})
    assert [chunk for settled, _ in writing.told for chunk in settled] == [0, 1, 2, 3]
    assert writing.claims == [chunk for _, written in writing.told for chunk in written] == [0, 1]
    assert len(writing.failures) == 1
    assert writing.holding.backlog_bytes == 0
