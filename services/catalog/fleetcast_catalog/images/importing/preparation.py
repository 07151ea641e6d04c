"""From a file or an upload to bytes that can be cut: decompressed, recognised, and a virtual disk converted."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from fleetcast_catalog.images.domain import ImageFormat
from fleetcast_catalog.images.importing import virtual_disk as virtualdisk
from fleetcast_catalog.images.importing.blocking import BlockingWork
from fleetcast_catalog.images.importing.decompression import Container, container_of, decompressed
from fleetcast_catalog.images.importing.detection import check_head, detect
from fleetcast_catalog.images.importing.sources import FileSource, ImportInterruptedError, Source

_COPY_BYTES = 1 << 20


class ImportPhase(IntEnum):
    """What an import is doing; the numbers are those of the API."""

    PREPARING = 1
    STORING = 2
    DONE = 3


@dataclass
class Meter:
    """How far an import is. Written by it, read by who reports."""

    phase: ImportPhase = ImportPhase.PREPARING
    total_bytes: int = -1
    """Of this phase; -1 if not known."""
    done: Callable[[], int] = lambda: 0
    """Returns the bytes of this phase that are done."""


@dataclass(frozen=True)
class Recognised:
    """The bytes to import, and what they are."""

    input: Source
    """As they came."""
    content: Source
    """Decompressed."""
    container: Container | None
    format: ImageFormat
    input_bytes: int
    """Size of the input; -1 if not known."""


def recognise(source: Source, input_bytes: int, requested: ImageFormat | None) -> Recognised:
    """Returns what a source is, by its start. Blocks.

    `input_bytes` is its whole size, -1 if not known; `requested` what the operator says it is, if anything.

    Raises:
        ImageFileError: it cannot be imported, as far as its start tells.
    """
    container = container_of(source)
    content = decompressed(source, container) if container else source
    image_format = detect(content, requested)
    check_head(content, image_format, input_bytes if container is None and input_bytes >= 0 else None)
    return Recognised(source, content, container, image_format, input_bytes)


async def unpack_disk(
    found: Recognised, workspace: Path, blocking: BlockingWork, meter: Meter, stack: ExitStack
) -> FileSource:
    """Returns the raw disk that a virtual disk describes, as a sparse file in `workspace`; `stack` closes it.

    An upload or a compressed file is spooled there first: qemu-img reads in any order.

    Raises:
        ImageFileError: the virtual disk is damaged, or not whole.
        FailedPreconditionError: qemu-img is missing.
        OSError, ResourceExhaustedError: there is no room.
    """
    virtualdisk.require_tool()
    if isinstance(found.input, FileSource) and found.container is None:
        disk = found.input.path
    else:
        disk = workspace / "disk"
        await blocking.run(lambda: _spool(found.content, disk, blocking))
    raw = workspace / "raw"
    await blocking.run(lambda: virtualdisk.check_self_contained(disk, found.format))
    disk_bytes = disk.stat().st_size
    share_done = 0.0

    def report(share: float) -> None:
        nonlocal share_done
        share_done = share

    meter.total_bytes, meter.done = disk_bytes, lambda: int(share_done * disk_bytes)
    await virtualdisk.convert(disk, found.format, raw, report)
    if disk.parent == workspace:
        disk.unlink()
    return stack.enter_context(FileSource(raw))


def _spool(content: Source, target: Path, blocking: BlockingWork) -> None:
    buffer = memoryview(bytearray(_COPY_BYTES))
    with target.open("wb") as file:
        while count := content.read_into(buffer):
            if blocking.interrupted.is_set():
                raise ImportInterruptedError
            file.write(buffer[:count])
