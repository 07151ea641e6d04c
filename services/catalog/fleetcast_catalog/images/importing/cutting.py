"""The pipeline of an import: read, cut into chunks, drop zeros, hash, compress, store; in threads."""

from __future__ import annotations

import threading
from array import array
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from blake3 import blake3
from fleetcast_kit.chunks.codec import ChunkEncoding
from fleetcast_wire.manifest import ZERO_DIGEST
from fleetcast_wire.memory import Buffer
from numpy.typing import NDArray

from fleetcast_catalog.images.chunk_table import ChunkTable
from fleetcast_catalog.images.domain import CHUNK_BYTES, MAX_IMAGE_BYTES, ImageFileError
from fleetcast_catalog.images.importing.sources import ImportInterruptedError, Source
from fleetcast_catalog.images.pins import Pins

# Two chunks wait per thread: enough to cover the hand-over, 1 MiB of memory each.
_WAITING_PER_THREAD = 2
_GLANCE_BYTES = 256


@dataclass(frozen=True)
class _Row:
    digest: bytes
    stored_bytes: int = 0
    encoding: ChunkEncoding = ChunkEncoding.RAW
    added: bool = False


_ZERO_ROW = _Row(ZERO_DIGEST)
_ZERO_CHUNK: Future[_Row] = Future()
_ZERO_CHUNK.set_result(_ZERO_ROW)


class Cutter:
    """Cuts one source into stored chunks. `cut` runs on its own thread; the attributes may be read from any."""

    def __init__(
        self,
        source: Source,
        pins: Pins,
        executor: ThreadPoolExecutor,
        thread_count: int,
        interrupted: threading.Event,
    ) -> None:
        self._source = source
        self._pins = pins
        self._executor = executor
        self._depth = thread_count * (1 + _WAITING_PER_THREAD)
        self._interrupted = interrupted
        self._digests = bytearray()
        self._stored_sizes = array("I")
        self._encodings = bytearray()
        self._added = bytearray()
        self.size_bytes = 0
        """Content cut so far."""
        self.added_bytes = 0
        """Stored bytes that were not in the store before."""

    @property
    def table(self) -> ChunkTable:
        """The rows of all chunks. Only after `cut` has ended."""
        digests = np.frombuffer(self._digests, np.uint8).reshape(-1, len(ZERO_DIGEST))
        sizes = np.frombuffer(self._stored_sizes, np.uint32)
        return ChunkTable(digests, sizes, np.frombuffer(self._encodings, np.uint8))

    @property
    def added_digests(self) -> NDArray[np.uint8]:
        """Shape (n, 32): digests of the chunks that were not in the store before. Only after `cut` has ended."""
        return self.table.digests[np.frombuffer(self._added, np.bool_)]

    def cut(self) -> None:
        """Stores the whole source.

        Raises:
            ImageFileError: the source is broken, empty or too large.
            ImportInterruptedError: `interrupted` was set.
            OSError: the source cannot be read or the store cannot be written.
        """
        running: deque[tuple[Future[_Row], bytearray | None]] = deque()
        spare = [bytearray(CHUNK_BYTES) for _ in range(self._depth)]
        try:
            while True:
                if self._interrupted.is_set():
                    raise ImportInterruptedError
                if len(running) == self._depth:
                    self._finish(running, spare)
                if self._source.skip_hole(CHUNK_BYTES):
                    self._advance(CHUNK_BYTES)
                    running.append((_ZERO_CHUNK, None))
                    continue
                buffer = spare.pop()
                size_bytes = self._source.read_into(memoryview(buffer))
                if not size_bytes:
                    break
                self._advance(size_bytes)
                content = buffer if size_bytes == CHUNK_BYTES else buffer[:size_bytes]
                running.append((self._executor.submit(self._store, content), buffer))
            while running:
                self._finish(running, spare)
        finally:
            self._abandon(running)
        if not self.size_bytes:
            raise ImageFileError("is empty", reason="IMAGE_EMPTY")

    def _store(self, content: Buffer) -> _Row:
        if is_zero(content):
            return _ZERO_ROW
        digest = blake3(content).digest()
        placement = self._pins.put(digest, content)
        return _Row(digest, placement.form.size_bytes, placement.form.encoding, placement.added)

    def _advance(self, size_bytes: int) -> None:
        self.size_bytes += size_bytes
        if self.size_bytes > MAX_IMAGE_BYTES:
            raise ImageFileError(
                f"has more than {MAX_IMAGE_BYTES >> 40} TiB, the most an image can have", reason="IMAGE_TOO_LARGE"
            )

    def _finish(self, running: deque[tuple[Future[_Row], bytearray | None]], spare: list[bytearray]) -> None:
        """Waits for the oldest chunk, adds its row and gives its buffer back."""
        future, buffer = running.popleft()
        self._append(future.result())
        if buffer is not None:
            spare.append(buffer)

    def _abandon(self, running: deque[tuple[Future[_Row], bytearray | None]]) -> None:
        """Ends what is still running after an error; the rows tell what was stored for nothing."""
        for future, _ in running:
            future.cancel()
        for future, _ in running:
            if not future.cancelled() and future.exception() is None:
                self._append(future.result())

    def _append(self, row: _Row) -> None:
        self._digests += row.digest
        self._stored_sizes.append(row.stored_bytes)
        self._encodings.append(row.encoding)
        self._added.append(row.added)
        if row.added:
            self.added_bytes += row.stored_bytes


def is_zero(content: Buffer) -> bool:
    """Returns whether all bytes are zero; content that is not shows it at its start as a rule."""
    view = np.frombuffer(content, np.uint8)
    if view[:_GLANCE_BYTES].any():
        return False
    whole = len(view) // 8 * 8
    return not view[:whole].view(np.uint64).any() and not view[whole:].any()
