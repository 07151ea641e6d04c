"""`fleetcast image import`: an upload, or a path that the server reads itself."""

from __future__ import annotations

import asyncio
import io
import os
import sys
import threading
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath
from stat import S_ISBLK, S_ISDIR, S_ISFIFO, S_ISREG
from typing import Annotated

import grpc
import typer
from fleetcast.catalog.v1 import catalog_service_pb2, image_pb2
from fleetcast.catalog.v1.catalog_service_pb2_grpc import CatalogServiceStub
from fleetcast_kit.errors import InvalidArgumentError, UnavailableError
from fleetcast_kit.values.printable import printable

from fleetcast_cli.images.archive import Archive, archived, files_of
from fleetcast_cli.images.commands import group
from fleetcast_cli.shell.command import Json, command
from fleetcast_cli.shell.connection import connection
from fleetcast_cli.shell.plain import to_plain, write_json
from fleetcast_cli.shell.progress import WorkProgress
from fleetcast_cli.shell.references import series_name
from fleetcast_cli.shell.text import format_bytes, format_seconds, output, plural

BLOCK_BYTES = 1 << 20
"""Bytes of one message: the most that the protocol allows."""
READ_AHEAD_BLOCKS = 4

_PHASES = {
    catalog_service_pb2.ImportImageResponse.PHASE_PREPARING: "preparing",
    catalog_service_pb2.ImportImageResponse.PHASE_STORING: "importing",
}


class Format(StrEnum):
    """What a file may be."""

    AUTO = "auto"
    RAW = "raw"
    QCOW2 = "qcow2"
    VHDX = "vhdx"
    VMDK = "vmdk"
    VHD = "vhd"
    VDI = "vdi"
    QED = "qed"
    PARALLELS = "parallels"
    QCOW = "qcow"
    PARTCLONE = "partclone"
    WIM = "wim"
    ESD = "esd"
    ISO = "iso"

    @property
    def message(self) -> image_pb2.ImageFormat.ValueType:
        """The enumerator that says so to the server."""
        if self is Format.AUTO:
            return image_pb2.IMAGE_FORMAT_UNSPECIFIED
        return image_pb2.ImageFormat.Value(f"IMAGE_FORMAT_{self.name}")


@dataclass(frozen=True)
class Source:
    """An open file to upload."""

    descriptor: int
    name: str
    size_bytes: int
    """-1 if not known: a pipe."""
    head: bytes = b""
    """What was read of it already, to see that there is something."""
    archive: Archive | None = None
    """What writes the bytes, if they are those of a directory."""


@command(group, "import", span="fleetcast image import")
async def import_image(
    context: typer.Context,
    *,
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="The file, or the directory of a Clonezilla or FOG image, or the first piece of a file in pieces; `-` "
            "reads standard input.",
            show_default=False,
        ),
    ],
    name: Annotated[
        str, typer.Option("--name", metavar="NAME", help="Name of the image; a new version of it if it exists.")
    ],
    file_format: Annotated[
        Format, typer.Option("--format", help="What the file is; `auto` looks at its content.")
    ] = Format.AUTO,
    server_path: Annotated[
        bool, typer.Option("--server-path", help="FILE is a path on the server, which reads it there.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Import a raw or virtual disk, a WIM or ESD file, an ISO with one, or what Clonezilla, FOG or partclone saved.

    The file may be compressed by gzip, bzip2, xz, lzma or zstd, and in pieces (.aa, .ab; .000, .001; .swm).
    """
    spec = catalog_service_pb2.ImportSpec(
        image=series_name(name), format=file_format.message, request_id=str(uuid.uuid4())
    )
    started_at = time.monotonic()
    if server_path:
        if not PurePosixPath(file).is_absolute():
            raise InvalidArgumentError(
                f"the path on the server {file!r} is not absolute: start it with /", field="file"
            )
        if file != file.encode(errors="replace").decode():
            raise InvalidArgumentError(
                f"the path on the server {printable(file)} has bytes that are not UTF-8: rename the file there, or "
                "import it without --server-path",
                field="file",
            )
        spec.source_path, spec.source_file, spec.source_size_bytes = file, PurePosixPath(file).name, -1
        image = await _import(context, spec, None)
    else:
        with _open(file) as source:
            spec.source_file, spec.source_size_bytes = printable(source.name), source.size_bytes
            spec.source_is_directory = source.archive is not None
            image = await _import(context, spec, source)
    if as_json:
        write_json(to_plain(image))
        return
    _print_summary(image, time.monotonic() - started_at)


async def _import(
    context: typer.Context, spec: catalog_service_pb2.ImportSpec, source: Source | None
) -> image_pb2.Image:
    """Returns the READY version that the server made from `source`, or from the path in `spec`."""
    upload = _Upload(spec, source)
    async with connection(context).dial_catalog() as channel:
        call = CatalogServiceStub(channel).ImportImage(upload.requests())
        upload.call = call
        try:
            with WorkProgress() as progress:
                async for answer in call:
                    upload.answered.set()
                    if answer.phase == catalog_service_pb2.ImportImageResponse.PHASE_DONE:
                        return answer.image
                    if answer.phase == catalog_service_pb2.ImportImageResponse.PHASE_FAILED:
                        upload.ended = True
                        continue
                    progress.update(_PHASES.get(answer.phase, "importing"), answer.done_bytes, answer.total_bytes)
        except asyncio.CancelledError:
            if upload.error is not None:
                raise InvalidArgumentError(
                    f"reading {spec.source_file} failed: {upload.error.strerror}; nothing was imported", field="file"
                ) from upload.error
            raise
        finally:
            upload.ended = True
            upload.answered.set()
            call.cancel()
    raise UnavailableError("the server ended the import without a result: run the same command again")


class _Upload:
    """The requests of one import, and what went wrong while their bytes were read."""

    def __init__(self, spec: catalog_service_pb2.ImportSpec, source: Source | None) -> None:
        self._spec = spec
        self._source = source
        self.call: grpc.aio.Call | None = None
        self.error: OSError | None = None
        self.answered = asyncio.Event()
        """Set when the server has said something."""
        self.ended = False
        """Nothing more is to be sent."""

    async def requests(self) -> AsyncIterator[catalog_service_pb2.ImportImageRequest]:
        yield catalog_service_pb2.ImportImageRequest(spec=self._spec)
        if self._source is None:
            return
        # What the server says against the import would be lost in gRPC if it met a message on its way.
        await self.answered.wait()
        sent_bytes = 0
        try:
            async for block in _read_ahead(self._source):
                if self.ended:
                    return
                yield catalog_service_pb2.ImportImageRequest(data=block)
                sent_bytes += len(block)
            if self._source.archive is not None:
                self._source.archive.check()
            yield catalog_service_pb2.ImportImageRequest(sent_bytes=sent_bytes)
        except OSError as error:
            self.error = error
            if self.call is not None:
                self.call.cancel()


async def _read_ahead(source: Source) -> AsyncIterator[bytes]:
    """Yields the bytes of `source` in blocks, reading a few ahead.

    In a thread that nobody waits for: a pipe may stay silent when the import has long ended.
    """
    loop = asyncio.get_running_loop()
    blocks: asyncio.Queue[bytes | OSError] = asyncio.Queue(READ_AHEAD_BLOCKS)

    def put(item: bytes | OSError) -> None:
        asyncio.run_coroutine_threadsafe(blocks.put(item), loop).result()

    def read() -> None:
        with suppress(RuntimeError, CancelledError):  # the loop ends or has ended, and so has the import
            try:
                if source.head:
                    put(source.head)
                while block := os.read(source.descriptor, BLOCK_BYTES):
                    put(block)
                put(b"")
            except OSError as error:
                put(error)

    threading.Thread(target=read, name="image reader", daemon=True).start()
    while block := await blocks.get():
        if isinstance(block, OSError):
            raise block
        yield block


@contextmanager
def _open(path: str) -> Iterator[Source]:
    """Gives the file at `path`, or standard input for `-`, after all checks that need no server.

    Raises:
        InvalidArgumentError: it is missing, unreadable, empty or not a file.
    """
    if path == "-":
        if sys.stdin.isatty():
            raise InvalidArgumentError("FILE is - but standard input is a terminal: pipe the image in", field="file")
        head = os.read(sys.stdin.fileno(), BLOCK_BYTES)
        if not head:
            raise InvalidArgumentError("standard input is empty: there is nothing to import", field="file")
        yield Source(sys.stdin.fileno(), "stdin", -1, head)
        return
    if files := files_of(Path(path)):
        with archived(files) as archive:
            yield Source(archive.descriptor, Path(path).resolve().name, -1, archive=archive)
        return
    try:
        with open(path, "rb", buffering=0) as raw:
            size_bytes = _size_bytes(raw, path)
            yield Source(raw.fileno(), Path(path).name, size_bytes)
    except FileNotFoundError as error:
        raise InvalidArgumentError(f"the file {path!r} does not exist: check the path", field="file") from error
    except IsADirectoryError as error:
        raise _not_a_file(path, "is a directory") from error
    except PermissionError as error:
        raise InvalidArgumentError(
            f"the file {path!r} cannot be read: permission denied; run as a user who may read it", field="file"
        ) from error
    except OSError as error:
        raise InvalidArgumentError(f"the file {path!r} cannot be opened: {error.strerror}", field="file") from error


def _size_bytes(file: io.FileIO, path: str) -> int:
    """Returns the size of an open file or block device, -1 for a pipe."""
    mode = os.fstat(file.fileno()).st_mode
    if S_ISDIR(mode):
        raise _not_a_file(path, "is a directory")
    if S_ISFIFO(mode):
        return -1
    if not S_ISREG(mode) and not S_ISBLK(mode):
        raise _not_a_file(path, "is neither a file nor a block device")
    size_bytes = file.seek(0, os.SEEK_END)
    file.seek(0)
    if not size_bytes:
        raise InvalidArgumentError(f"the file {path!r} is empty: there is nothing to import", field="file")
    return size_bytes


def _not_a_file(path: str, what: str) -> InvalidArgumentError:
    return InvalidArgumentError(f"{path!r} {what}: name a disk image or WIM file", field="file")


def _print_summary(image: image_pb2.Image, seconds: float) -> None:
    console = output()
    saved = image.stored_bytes - image.added_bytes
    console.print(image.name.removeprefix("images/"))
    console.print(
        f"  {format_bytes(image.size_bytes)} in {plural(image.chunk_count, 'chunk')} "
        f"({image.zero_chunk_count} zero), stored {format_bytes(image.stored_bytes)}, "
        f"{format_bytes(image.added_bytes)} new, {format_bytes(saved)} shared with other versions"
    )
    for wim_image in image.wim_images:
        kind = " ".join(filter(None, [wim_image.edition, wim_image.architecture, *wim_image.languages]))
        console.print(
            f"  index {wim_image.index}: {wim_image.display_name or 'unnamed'}"
            f"{f' ({kind})' if kind else ''}, {format_bytes(wim_image.total_bytes)}"
        )
    console.print(f"  imported in {format_seconds(seconds)}, {format_bytes(image.size_bytes / max(seconds, 1e-3))}/s")
