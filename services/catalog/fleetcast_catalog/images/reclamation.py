"""Gives the space of chunks back that no image version refers to any more.

The chunk tables themselves are the reference counts: a chunk is needed if one of them has it, or an import pinned it.
There is no counter that a crash could leave wrong.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from datetime import datetime
from pathlib import Path

import numpy as np
from fleetcast_kit.chunks.store import ChunkStore
from fleetcast_wire.manifest import DIGEST_BYTES
from numpy.typing import NDArray

from fleetcast_catalog.images.chunk_table import chunk_keys
from fleetcast_catalog.images.domain import Image, ImageState
from fleetcast_catalog.images.pins import PinnedStore
from fleetcast_catalog.images.store import ImageStore

_logger = logging.getLogger(__name__)


class Reclamation:
    """Deletes what nobody needs. Publications hold `gate` while they commit, deletions while they look and delete.

    So no version appears between a deletion's look at the chunk tables and its end; imports that are still running are
    protected by their pins.
    """

    def __init__(self, images: ImageStore, store: ChunkStore, pinned: PinnedStore, incoming: Path) -> None:
        self._images = images
        self._store = store
        self._pinned = pinned
        self._incoming = incoming
        self.gate = asyncio.Lock()

    async def delete_image(self, image: Image, request_id: str, now: datetime) -> int:
        """Deletes a version and returns how many bytes that gave back.

        Raises:
            NotFoundError: it is gone.
            FailedPreconditionError: somebody needs it.
        """
        async with self.gate:
            await self._images.start_deletion(image)
            reclaimed_bytes = await self._delete_unused((await self._images.table(image)).digests)
            await self._images.finish_deletion(image, request_id, reclaimed_bytes, now)
        return reclaimed_bytes

    async def abandon_import(self, importing: Image | None, added_digests: NDArray[np.uint8]) -> None:
        """Removes what an import left that failed. Its pins must be gone."""
        async with self.gate:
            await self._delete_unused(added_digests)
            if importing is not None:
                await self._images.remove(importing)

    async def recover(self) -> None:
        """Removes what imports and deletions left that the end of the process interrupted. No import may run yet."""
        interrupted = await self._images.in_states(ImageState.CREATING, ImageState.DELETING)
        workspaces = list(self._incoming.iterdir())
        if not interrupted and not workspaces and not self._store.unfinished():
            return
        digests = await asyncio.to_thread(self._all_digests)
        reclaimed_bytes = await self._delete_unused(digests)
        for image in interrupted:
            await self._images.remove(image)
        await asyncio.to_thread(_remove_all, workspaces)
        _logger.info("removed what an interrupted process left: %d bytes of chunks", reclaimed_bytes)

    async def _delete_unused(self, digests: NDArray[np.uint8]) -> int:
        """Deletes those of the chunks that nobody needs, and returns how many bytes that freed."""
        keys = chunk_keys(digests)
        unused = digests.any(axis=1)
        async for table in self._images.tables_in_use():
            used = await asyncio.to_thread(np.isin, keys, chunk_keys(table.digests))
            unused &= ~used
        return await asyncio.to_thread(self._delete, digests[unused])

    def _delete(self, digests: NDArray[np.uint8]) -> int:
        return sum(self._pinned.delete(digest.tobytes()) for digest in digests)

    def _all_digests(self) -> NDArray[np.uint8]:
        self._store.discard_unfinished()
        digests = bytearray()
        for digest in self._store.digests():
            digests += digest
        return np.frombuffer(digests, np.uint8).reshape(-1, DIGEST_BYTES)


def _remove_all(folders: list[Path]) -> None:
    for folder in folders:
        shutil.rmtree(folder)
