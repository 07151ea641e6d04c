"""One import: from its first byte until the version is READY, or until nothing of it is left."""

from __future__ import annotations

import asyncio
import errno
import logging
import shutil
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from fleetcast_kit.chunks.store import ChunkStore
from fleetcast_kit.errors import (
    DataLossError,
    FailedPreconditionError,
    FleetcastError,
    InvalidArgumentError,
    ResourceExhaustedError,
)
from fleetcast_kit.process import semconv, telemetry
from fleetcast_wire.manifest import DIGEST_BYTES
from sqlalchemy.exc import OperationalError

from fleetcast_catalog.images.content import StoredContent
from fleetcast_catalog.images.domain import (
    CHUNK_BYTES,
    Image,
    ImageFileError,
    ImageFormat,
    ImageState,
    WimImage,
    unsupported,
)
from fleetcast_catalog.images.importing.backups.file_set import files_in, unpack
from fleetcast_catalog.images.importing.blocking import BlockingWork, finish
from fleetcast_catalog.images.importing.cutting import Cutter
from fleetcast_catalog.images.importing.formats.wim import read_wim
from fleetcast_catalog.images.importing.formats.wim_integrity import check_integrity
from fleetcast_catalog.images.importing.preparation import (
    ImportPhase,
    Meter,
    Prepared,
    Recognised,
    prepare,
    recognise,
    recognise_files,
)
from fleetcast_catalog.images.importing.sources import FileSource, ImportInterruptedError, Source, UploadSource
from fleetcast_catalog.images.inspection.contents import ImageContents
from fleetcast_catalog.images.inspection.inspect import inspect
from fleetcast_catalog.images.pins import PinnedStore, Pins
from fleetcast_catalog.images.reclamation import Reclamation
from fleetcast_catalog.images.store import ImageStore, NewVersion
from fleetcast_catalog.reserve import DiskReserve

_logger = logging.getLogger(__name__)
_tracer = telemetry.tracer(__name__)

_FULL = {errno.ENOSPC, errno.EDQUOT}
_DAMAGED = {"IMAGE_TRUNCATED", "IMAGE_CORRUPT"}


@dataclass(frozen=True)
class ImportSpec:
    """What to import and under which name."""

    image: str
    format: ImageFormat | None
    """None detects it."""
    source_path: Path | None
    """A file on this host; None for an upload."""
    source_file: str
    declared_bytes: int
    """Size of the upload; -1 if not known."""
    request_id: str
    is_directory: bool = False
    """The upload is a tar archive of a directory's files."""
    owner: str = ""
    """The machine that the version will belong to; empty for none."""

    @property
    def label(self) -> str:
        """What to call the file in a message."""
        return str(self.source_path or self.source_file or "the upload")


@dataclass(frozen=True)
class ImageStorage:
    """Where images are stored, and the threads that store them: one for the whole catalog."""

    images: ImageStore
    store: ChunkStore
    pinned: PinnedStore
    reclamation: Reclamation
    reserve: DiskReserve
    incoming: Path
    """Each import has a folder here, made before its first chunk is stored."""
    chunk_threads: ThreadPoolExecutor
    chunk_thread_count: int
    import_threads: ThreadPoolExecutor
    """As many as imports may run at once."""
    slots: asyncio.Semaphore


class ImageImport:
    """One import. `run` is awaited once, in a task of its own; cancelling that removes every trace of the import."""

    def __init__(self, spec: ImportSpec, storage: ImageStorage) -> None:
        self._spec = spec
        self._storage = storage
        self.upload = UploadSource(spec.declared_bytes)
        """What the bytes of an upload are fed to."""
        self._blocking = BlockingWork(storage.import_threads, lambda: self.upload.fail(ImportInterruptedError()))
        self.meter = Meter()
        self.image: Image | None = None
        """The version as it stands, once there is one."""
        self._cutter: Cutter | None = None
        self._is_published = False

    async def run(self) -> Image:
        """Returns the READY version.

        Raises:
            FleetcastError: it failed; nothing is left.
        """
        if self._spec.request_id:
            finished = await self._storage.images.ready_by_request(self._spec.request_id, self._spec.image)
            if finished is not None:
                return finished
        with _tracer.start_as_current_span("import image") as span:
            async with self._storage.slots:
                try:
                    image = await self._run()
                except ImageFileError as error:
                    raise _for_the_operator(error, self._spec) from error
                except (OSError, OperationalError) as error:
                    raise self._storage_error(error) from error
            span.set_attributes(
                {
                    semconv.IMAGE: image.name,
                    semconv.FORMAT: image.format.label,
                    semconv.SIZE_BYTES: image.size_bytes,
                    semconv.CHUNK_COUNT: image.chunk_count,
                    semconv.STORED_BYTES: image.stored_bytes,
                    semconv.ADDED_BYTES: image.added_bytes,
                }
            )
        _logger.info("imported %s as %s", self._spec.label, image.name)
        return image

    async def _run(self) -> Image:
        workspace = self._storage.incoming / uuid.uuid4().hex
        workspace.mkdir()
        try:
            with ExitStack() as stack:
                found = await self._recognise(stack, workspace)
                importing = await finish(self._announce(self._new_image(found, workspace.name)))
                prepared = await prepare(found, workspace, self._blocking, self.meter, stack)
                content = prepared.content
                if content is not found.content and isinstance(content, FileSource):
                    self.meter.total_bytes = content.size_bytes
                self.meter.phase, self.meter.done = ImportPhase.STORING, lambda: content.input_bytes
                with self._storage.pinned.pinning() as pins:
                    image = await self._store_and_publish(found, prepared, pins, importing)
        except BaseException:
            await finish(self._clean_up(workspace))
            raise
        await asyncio.to_thread(shutil.rmtree, workspace, ignore_errors=True)
        return image

    async def _recognise(self, stack: ExitStack, workspace: Path) -> Recognised:
        path = self._spec.source_path
        if self._spec.is_directory and path is None:
            path = workspace / "files"
            self.meter.total_bytes, self.meter.done = self._spec.declared_bytes, lambda: self.upload.input_bytes
            await self._blocking.run(lambda: unpack(self.upload, workspace / "files", self._blocking.interrupted))
        if path is not None and path.is_dir():
            directory, requested = path, self._spec.format
            return await self._blocking.run(lambda: recognise_files(files_in(directory), requested, stack))
        source: Source = self.upload
        input_bytes = self._spec.declared_bytes
        if path is not None:
            file = stack.enter_context(await self._blocking.run(lambda: FileSource(path)))
            source, input_bytes = file, file.size_bytes
        self.meter.total_bytes, self.meter.done = input_bytes, lambda: source.input_bytes
        return await self._blocking.run(
            lambda: recognise(source, input_bytes, self._spec.format, self._spec.source_file)
        )

    async def _store_and_publish(self, found: Recognised, prepared: Prepared, pins: Pins, importing: Image) -> Image:
        storage, blocking = self._storage, self._blocking
        cutter = self._cutter = Cutter(
            prepared.content, pins, storage.chunk_threads, storage.chunk_thread_count, blocking.interrupted
        )
        with storage.store.barrier() as wait_until_durable:
            await blocking.run(cutter.cut)
            if isinstance(found.input, FileSource):
                found.input.check_unchanged()
            wim_images: tuple[WimImage, ...] = ()
            image_format = prepared.image_format
            if self._spec.format is ImageFormat.VHD and image_format is ImageFormat.RAW:
                raise unsupported("is not VHD: there is no VHD footer at its end; leave the format out")
            if image_format.is_windows_imaging:
                wim_images = await blocking.run(lambda: self._inspect_wim(cutter))
            contents = await blocking.run(lambda: self._look_into(cutter, image_format))
            manifest = cutter.table.manifest(cutter.size_bytes, CHUNK_BYTES)
            digest = await blocking.run(lambda: manifest.digest)
            await blocking.run(wait_until_durable)
        new = NewVersion(
            digest, cutter.size_bytes, cutter.table, cutter.added_bytes, image_format, wim_images, contents
        )
        return await finish(self._publish(importing, new))

    def _inspect_wim(self, cutter: Cutter) -> tuple[WimImage, ...]:
        """Returns the images inside a WIM that is stored; its tables stand at its end. Blocks."""
        stored = StoredContent(self._storage.store, cutter.table, cutter.size_bytes, CHUNK_BYTES)

        def read(offset: int, size_bytes: int) -> bytes:
            if self._blocking.interrupted.is_set():
                raise ImportInterruptedError
            return stored.read(offset, size_bytes)

        header, wim_images = read_wim(read, cutter.size_bytes)
        check_integrity(read, header)
        return wim_images

    def _look_into(self, cutter: Cutter, image_format: ImageFormat) -> ImageContents:
        """Returns what is inside an image that is stored. Blocks."""
        stored = StoredContent(self._storage.store, cutter.table, cutter.size_bytes, CHUNK_BYTES)
        is_wim = image_format.is_windows_imaging
        return inspect(stored.read, cutter.size_bytes, cutter.table.zero, CHUNK_BYTES, is_windows_imaging=is_wim)

    async def _publish(self, importing: Image, new: NewVersion) -> Image:
        async with self._storage.reclamation.gate:
            image = await self._storage.images.publish(importing, new, datetime.now(UTC))
            self.image, self._is_published = image, True
            return image

    async def _announce(self, image: Image) -> Image:
        """Adds the CREATING version; the clean-up removes it if anything fails from here on."""
        self.image = await self._storage.images.add_importing(image, self._spec.request_id)
        return self.image

    async def _clean_up(self, workspace: Path) -> None:
        """Removes the version that will not be, and what was stored for it alone."""
        # First what may have filled the disk: the database needs room to forget the version.
        await asyncio.to_thread(shutil.rmtree, workspace, ignore_errors=True)
        if self._is_published:
            return
        added = self._cutter.added_digests if self._cutter else np.empty((0, DIGEST_BYTES), np.uint8)
        await self._storage.reclamation.abandon_import(self.image, added)

    def _new_image(self, found: Recognised, import_id: str) -> Image:
        return Image(
            id=0,
            image=self._spec.image,
            version=f"importing-{import_id}",
            state=ImageState.CREATING,
            format=ImageFormat.WIM if found.format is ImageFormat.ISO else found.format,
            source_file=self._spec.source_file,
            owner=self._spec.owner,
            create_time=datetime.now(UTC),
        )

    def _storage_error(self, error: OSError | OperationalError) -> FleetcastError:
        root = self._storage.store.root.parent
        number = error.errno if isinstance(error, OSError) else None
        if number in _FULL or "disk is full" in str(error):
            return ResourceExhaustedError(
                f"the disk that holds {root} is full: free some space and import again; nothing was kept",
                reason="DISK_FULL",
            )
        cause = error.strerror if isinstance(error, OSError) else error.orig
        return FailedPreconditionError(f"the catalog cannot write to {root}: {cause}", reason="STORE_UNUSABLE")


def _for_the_operator(error: ImageFileError, spec: ImportSpec) -> FleetcastError:
    message = f"{spec.label} {error.problem}"
    if error.reason in _DAMAGED:
        return DataLossError(message, reason=error.reason)
    return InvalidArgumentError(message, field="spec.source_path" if spec.source_path else "spec", reason=error.reason)
