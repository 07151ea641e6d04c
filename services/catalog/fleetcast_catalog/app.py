"""Builds the catalog."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

from cryptography import x509
from fleetcast_kit.chunks.store import ChunkStore
from fleetcast_kit.data_parts import CATALOG, STORE, DataParts
from fleetcast_kit.database import open_database
from fleetcast_kit.database_ownership import end_process
from fleetcast_kit.errors import FailedPreconditionError
from fleetcast_kit.files import make_private_directory, shut_directory
from fleetcast_kit.locks import lock_file
from fleetcast_kit.rpc.server import Service

from fleetcast_catalog.images.catalog import Catalog
from fleetcast_catalog.images.importing.image_import import ImageStorage
from fleetcast_catalog.images.pins import PinnedStore
from fleetcast_catalog.images.reclamation import Reclamation
from fleetcast_catalog.images.servicer import catalog_service
from fleetcast_catalog.images.store import ImageStore
from fleetcast_catalog.reserve import DiskReserve
from fleetcast_catalog.task_sequences.servicer import task_sequence_service
from fleetcast_catalog.task_sequences.store import SequenceStore
from fleetcast_catalog.task_sequences.task_sequences import TaskSequences

MIGRATIONS = "fleetcast_catalog.migrations"
MAX_IMPORTS = 4
"""Imports that run at once; more of them wait."""

INCOMING = "incoming"
LOCK_FILE = "catalog.lock"


class CatalogApp:
    """The catalog: its services, and what is behind them."""

    def __init__(
        self, storage: ImageStorage, sequences: TaskSequences, authority: x509.Certificate, resources: AsyncExitStack
    ) -> None:
        self._storage = storage
        self._resources = resources
        self._catalog = Catalog(storage)
        self._looking: asyncio.Task[None] | None = None
        self.services: list[Service] = [catalog_service(self._catalog, authority), task_sequence_service(sequences)]
        """What a server serves, from `start` on."""

    @property
    def chunk_store(self) -> ChunkStore:
        """The stored chunks, for a sender on the same host."""
        return self._storage.store

    async def start(self) -> None:
        """Removes what an interrupted process left. To be awaited before the server listens."""
        await self._storage.reclamation.recover()
        self._looking = asyncio.create_task(self._catalog.look_into_old_images(), name="look into old images")

    async def stop(self) -> None:
        """Ends imports without a trace, and closes. To be awaited after the server stopped."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
        await self._catalog.stop()
        await self._resources.aclose()


async def open_catalog(data_directory: Path, database_url: str = "", *, authority: x509.Certificate) -> CatalogApp:
    """Returns the catalog whose chunks are in `data_directory`, which is its own alone until it stops.

    `authority` is the certificate of the installation's authority, by which machines prove what they may upload.
    `database_url` is `sqlite:///PATH` or `postgresql://…`; empty means catalog.db in the data directory.

    Raises:
        InvalidArgumentError: `database_url` is not of a supported database.
        FailedPreconditionError: the directory cannot be used, another catalog uses it, or a newer version did.
        UnavailableError: the database cannot be opened.
    """
    resources = AsyncExitStack()
    try:
        data_directory = resources.enter_context(_taken(data_directory))
        parts = DataParts(data_directory)
        database = open_database(database_url or f"sqlite:///{data_directory / 'catalog.db'}")
        resources.push_async_callback(database.close)
        await database.own("fleetcast-catalog", end_process)
        await database.upgrade(MIGRATIONS, must_exist=parts.way_out(CATALOG))
        thread_count = max(2, min(8, os.cpu_count() or 2))
        images = ImageStore(database)
        store = _open_store(data_directory / "store", parts.way_out(STORE))
        parts.note(CATALOG, STORE)
        reserve = DiskReserve(data_directory)
        await asyncio.to_thread(reserve.fill)
        pinned = PinnedStore(store)
        incoming = data_directory / INCOMING
        storage = ImageStorage(
            images=images,
            store=store,
            pinned=pinned,
            reclamation=Reclamation(images, store, pinned, incoming),
            incoming=incoming,
            chunk_threads=resources.enter_context(ThreadPoolExecutor(thread_count, "catalog-chunk")),
            chunk_thread_count=thread_count,
            reserve=reserve,
            import_threads=resources.enter_context(ThreadPoolExecutor(MAX_IMPORTS, "catalog-import")),
            slots=asyncio.Semaphore(MAX_IMPORTS),
        )
        sequences = TaskSequences(SequenceStore(database, images.deciding))
        return CatalogApp(storage, sequences, authority, resources)
    except BaseException:
        await resources.aclose()
        raise


@contextmanager
def _taken(data_directory: Path) -> Iterator[Path]:
    """Yields the data directory as an absolute path, made on first use and locked against other catalogs."""
    path = data_directory.absolute()
    try:
        make_private_directory(path)
        shut_directory(path / INCOMING)
        lock = lock_file(path / LOCK_FILE)
    except OSError as error:
        raise FailedPreconditionError(
            f"the data directory {path} cannot be used: {error.strerror}; choose another with --data-dir",
            reason="DATA_DIRECTORY_UNUSABLE",
        ) from error
    if lock is None:
        raise FailedPreconditionError(
            f"another catalog uses the data directory {path}: stop it, or choose another with --data-dir",
            reason="DATA_DIRECTORY_IN_USE",
        )
    try:
        yield path
    finally:
        os.close(lock)


def _open_store(root: Path, way_out: str) -> ChunkStore:
    if way_out and not root.is_dir():
        raise FailedPreconditionError(
            f"the stored chunks in {root} are gone, and the catalog knows images made of them: restore the directory "
            f"from a backup, or mount its disk; {way_out}",
            reason="STORE_GONE",
        )
    shut_directory(root)
    return ChunkStore(root)
