"""What is done with images: imported, verified, read, deleted."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from fleetcast_kit.chunks.codec import damaged
from fleetcast_kit.errors import FleetcastError
from fleetcast_kit.process import semconv, telemetry
from fleetcast_kit.storage_failures import is_full
from numpy.typing import NDArray

from fleetcast_catalog.images.chunk_table import ChunkTable
from fleetcast_catalog.images.content import StoredContent
from fleetcast_catalog.images.domain import Image, ImageName
from fleetcast_catalog.images.importing.blocking import finish
from fleetcast_catalog.images.importing.image_import import ImageImport, ImageStorage, ImportSpec
from fleetcast_catalog.images.inspection.contents import ImageContents
from fleetcast_catalog.images.inspection.inspect import inspect
from fleetcast_catalog.images.verification import Verifier, VerifyProgress

_logger = logging.getLogger(__name__)
_tracer = telemetry.tracer(__name__)

_READ_AHEAD_CHUNKS = 8


@dataclass(frozen=True)
class RunningImport:
    """An import and the task it runs in."""

    work: ImageImport
    task: asyncio.Task[Image]

    def abandon(self) -> None:
        """Ends the import, if it is still running; every trace of it goes. Does not wait for that."""
        if not self.task.cancelling():
            self.task.cancel()


class Catalog:
    """Image versions and their chunks."""

    def __init__(self, storage: ImageStorage) -> None:
        self._storage = storage
        self.images = storage.images
        self._verifier = Verifier(
            storage.images,
            storage.store,
            storage.reclamation,
            storage.chunk_threads,
            storage.chunk_thread_count,
        )
        self._imports: set[RunningImport] = set()

    def start_import(self, spec: ImportSpec) -> RunningImport:
        """Starts an import in a task of its own; the caller abandons it or takes its result."""
        work = ImageImport(spec, self._storage)
        running = RunningImport(work, asyncio.create_task(work.run(), name=f"import {spec.image}"))
        self._imports.add(running)
        running.task.add_done_callback(lambda task: self._ended(running, task))
        return running

    async def look_into_old_images(self) -> None:
        """Finds out what is inside versions that were imported before the catalog did that; one after the other."""
        for image in await self.images.not_looked_into():
            try:
                table = await self.images.table(image)
                await self.images.set_contents(image, await asyncio.to_thread(self._look_into, image, table))
            except FleetcastError as error:
                _logger.warning("cannot look into %s: %s", image.name, error.message)

    def _look_into(self, image: Image, table: ChunkTable) -> ImageContents:
        stored = StoredContent(self._storage.store, table, image.size_bytes, image.chunk_size_bytes)
        is_wim = image.format.is_windows_imaging
        return inspect(stored.read, image.size_bytes, table.zero, image.chunk_size_bytes, is_windows_imaging=is_wim)

    async def stop(self) -> None:
        """Ends all imports and waits until nothing of them is left."""
        imports = tuple(self._imports)
        for running in imports:
            running.abandon()
        if imports:
            await asyncio.wait([running.task for running in imports])

    async def verify(self, name: ImageName) -> AsyncIterator[VerifyProgress]:
        """Yields the progress of a verification; see `Verifier.verify`."""
        async for progress in self._verifier.verify(await self.images.get(name)):
            yield progress

    async def delete(self, name: ImageName, request_id: str) -> int:
        """Deletes a version and returns how many bytes that gave back. A retry returns the same.

        Raises:
            NotFoundError: there is no such version.
            FailedPreconditionError: it is in use, still being imported, or one of several that `name` means.
        """
        if request_id:
            reclaimed_bytes = await self.images.reclaimed_by_request(request_id)
            if reclaimed_bytes is not None:
                return reclaimed_bytes
        image = await self.images.get_only(name)
        image.check_deletable()
        # Once begun it ends: a version whose chunks are half gone must not stay.
        with _tracer.start_as_current_span("delete image", attributes={semconv.IMAGE: image.name}):
            reclaimed_bytes = await finish(self._delete(image, request_id))
        _logger.info("deleted %s: %d bytes reclaimed", image.name, reclaimed_bytes)
        return reclaimed_bytes

    async def _delete(self, image: Image, request_id: str) -> int:
        """Deletes a version, on a full disk too: there the reserve makes room for writing the deletion down."""
        reclamation, reserve = self._storage.reclamation, self._storage.reserve
        try:
            return await reclamation.delete_image(image, request_id, datetime.now(UTC))
        except Exception as error:
            if not is_full(error) or not await asyncio.to_thread(reserve.release):
                raise
        try:
            return await reclamation.delete_image(image, request_id, datetime.now(UTC))
        finally:
            await asyncio.to_thread(reserve.fill)

    async def table(self, name: ImageName) -> tuple[Image, ChunkTable]:
        """Returns a version with its chunk table.

        Raises:
            NotFoundError: there is no such version.
            FailedPreconditionError: it is still being imported.
        """
        image = await self.images.get(name)
        image.check_readable()
        return image, await self.images.table(image)

    async def read_chunks(self, table: ChunkTable, chunks: NDArray[np.intp]) -> AsyncIterator[tuple[int, bytes]]:
        """Yields index and stored form of the given chunks, but for zero chunks.

        Raises:
            DataLossError: one is missing, or not stored as the table says.
        """
        wanted = chunks[~table.zero[chunks]]
        for batch in np.array_split(wanted, range(_READ_AHEAD_CHUNKS, len(wanted), _READ_AHEAD_CHUNKS)):
            for chunk, stored in await asyncio.to_thread(self._read, table, batch.tolist()):
                yield chunk, stored

    def _read(self, table: ChunkTable, chunks: list[int]) -> list[tuple[int, bytes]]:
        read = []
        for chunk in chunks:
            digest = table.digests[chunk].tobytes()
            stored = self._storage.store.read(digest)
            if (len(stored.stored), stored.encoding) != (table.stored_sizes[chunk], table.encodings[chunk]):
                raise damaged(f"chunk {digest.hex()} is not stored as the chunk table says: verify the image")
            read.append((chunk, stored.stored))
        return read

    def _ended(self, running: RunningImport, task: asyncio.Task[Image]) -> None:
        self._imports.discard(running)
        if not task.cancelled() and (error := task.exception()) is not None:
            unexpected = None if isinstance(error, FleetcastError) else error
            _logger.warning("an import failed: %s", error, exc_info=unexpected)
