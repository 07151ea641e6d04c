"""Proves an image version chunk by chunk, as it lies on the disk."""

from __future__ import annotations

import asyncio
import errno
from collections import deque
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from fleetcast_kit.chunks.store import ChunkStore
from fleetcast_kit.errors import DataLossError
from fleetcast_kit.process import semconv, telemetry
from numpy.typing import NDArray

from fleetcast_catalog.images.chunk_table import ChunkTable
from fleetcast_catalog.images.domain import Image
from fleetcast_catalog.images.reclamation import Reclamation
from fleetcast_catalog.images.store import ImageStore

_tracer = telemetry.tracer(__name__)

_BATCH_CHUNKS = 16
_MEDIUM_ERRORS = {errno.EIO, errno.EUCLEAN, errno.EBADMSG}


@dataclass(frozen=True)
class VerifyProgress:
    """How far a verification is."""

    done_chunk_count: int
    total_chunk_count: int
    """Stored chunks to read: each distinct one once."""
    damaged_chunks: tuple[int, ...]
    """Indices found damaged since the previous report."""
    image: Image | None = None
    """The version with its resulting state, at the end."""


class Verifier:
    """Verifies image versions, several chunks at a time."""

    def __init__(
        self,
        images: ImageStore,
        store: ChunkStore,
        reclamation: Reclamation,
        executor: ThreadPoolExecutor,
        thread_count: int,
    ) -> None:
        self._images = images
        self._store = store
        self._reclamation = reclamation
        self._executor = executor
        self._depth = 2 * thread_count

    async def verify(self, image: Image) -> AsyncIterator[VerifyProgress]:
        """Reads every chunk of a version and yields progress after every batch; records the outcome at the end.

        A version is FAILED while one chunk is damaged, and READY again once all are intact.

        Raises:
            FailedPreconditionError: it is still being imported.
            NotFoundError: it was deleted meanwhile.
        """
        image.check_readable()
        attributes: dict[str, str | int] = {semconv.IMAGE: image.name, semconv.CHUNK_COUNT: image.chunk_count}
        # Not made current: the caller of a generator may end it in another context.
        span = _tracer.start_span("verify image", attributes=attributes)
        try:
            run = await asyncio.to_thread(_Run, image, await self._images.table(image), self._store)
            total, done = len(run.first_chunks), 0
            yield VerifyProgress(0, total, ())
            running: deque[tuple[NDArray[np.intp], asyncio.Future[list[int]]]] = deque()
            batches = iter(np.array_split(run.first_chunks, range(_BATCH_CHUNKS, total, _BATCH_CHUNKS)))
            loop = asyncio.get_running_loop()
            try:
                for batch in batches:
                    running.append((batch, loop.run_in_executor(self._executor, run.check, batch)))
                    if len(running) == self._depth:
                        done, damaged = await run.finish(running, done)
                        yield VerifyProgress(done, total, damaged)
                while running:
                    done, damaged = await run.finish(running, done)
                    yield VerifyProgress(done, total, damaged)
            finally:
                for _, future in running:
                    future.cancel()
            async with self._reclamation.gate:
                # An import may have repaired chunks meanwhile; none can be published now.
                damaged_count = await loop.run_in_executor(self._executor, run.recheck)
                verified = image.verified(damaged_count, datetime.now(UTC))
                verified = await self._images.set_verified(verified, run.table)
            span.set_attributes({semconv.STATE: verified.state.value, semconv.DAMAGED_CHUNK_COUNT: damaged_count})
            yield VerifyProgress(total, total, (), verified)
        finally:
            span.end()


class _Run:
    """One verification: what is to be read and what was found."""

    def __init__(self, image: Image, table: ChunkTable, store: ChunkStore) -> None:
        self._image = image
        self._store = store
        _, first, self._kind = np.unique(table.digests, axis=0, return_index=True, return_inverse=True)
        stored = first[~table.zero[first]]
        stored.sort()
        self.first_chunks: NDArray[np.intp] = stored
        """The first index of each distinct stored chunk, in order."""
        self.table = ChunkTable(table.digests, table.stored_sizes.copy(), table.encodings.copy())
        """As the chunks are stored now."""
        self._damaged: list[int] = []

    def check(self, batch: NDArray[np.intp]) -> list[int]:
        """Reads some chunks and returns those that are damaged. Runs on a thread."""
        return [chunk for chunk in batch.tolist() if not self._is_intact(chunk)]

    def recheck(self) -> int:
        """Reads the damaged chunks again and returns how many are damaged still, each index counted."""
        return sum(len(self._same(chunk)) for chunk in self._damaged if not self._is_intact(chunk))

    async def finish(
        self, running: deque[tuple[NDArray[np.intp], asyncio.Future[list[int]]]], done: int
    ) -> tuple[int, tuple[int, ...]]:
        """Waits for the oldest batch; returns the number of chunks done, and all indices that it found damaged."""
        batch, future = running.popleft()
        damaged = await future
        self._damaged += damaged
        return done + len(batch), tuple(sorted(index for chunk in damaged for index in self._same(chunk)))

    def _same(self, chunk: int) -> list[int]:
        """Returns the indices of all chunks with the content of `chunk`."""
        same: list[int] = np.flatnonzero(self._kind == self._kind[chunk]).tolist()
        return same

    def _is_intact(self, chunk: int) -> bool:
        start = chunk * self._image.chunk_size_bytes
        size_bytes = min(self._image.chunk_size_bytes, self._image.size_bytes - start)
        try:
            form = self._store.verify(self.table.digests[chunk].tobytes(), size_bytes)
        except DataLossError:
            return False
        except OSError as error:
            if error.errno in _MEDIUM_ERRORS:
                return False
            raise
        if (form.size_bytes, form.encoding) != (self.table.stored_sizes[chunk], self.table.encodings[chunk]):
            self.table.stored_sizes[self._same(chunk)] = form.size_bytes
            self.table.encodings[self._same(chunk)] = form.encoding
        return True
