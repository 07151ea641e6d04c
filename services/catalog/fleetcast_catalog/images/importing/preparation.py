"""From a file or an upload to bytes that can be cut: decompressed, recognised, and converted where needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path, PurePosixPath
from threading import Event

from fleetcast_catalog.images.domain import ImageFormat, listed, unsupported
from fleetcast_catalog.images.importing.backups.clonezilla import is_clonezilla
from fleetcast_catalog.images.importing.backups.clonezilla import plan as plan_clonezilla
from fleetcast_catalog.images.importing.backups.disk_plan import DiskPlan, assemble
from fleetcast_catalog.images.importing.backups.file_set import FileSet, PiecesSource, pieces, whole_in_pieces
from fleetcast_catalog.images.importing.backups.fog import is_fog
from fleetcast_catalog.images.importing.backups.fog import plan as plan_fog
from fleetcast_catalog.images.importing.blocking import BlockingWork
from fleetcast_catalog.images.importing.decompression import Container, container_of, decompressed
from fleetcast_catalog.images.importing.detection import check_head, detect
from fleetcast_catalog.images.importing.formats import partclone, split_wim, virtual_disk, windows_disc
from fleetcast_catalog.images.importing.formats.fixed_vhd import RawDisk
from fleetcast_catalog.images.importing.formats.virtual_disk_headers import check_self_contained, needs_replay
from fleetcast_catalog.images.importing.sources import FileSource, Source
from fleetcast_catalog.images.importing.tools import spool


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
    requested: ImageFormat | None
    """What the operator says it is, if anything."""
    plan: DiskPlan | None = None
    """Of a directory with a disk: how it is put together."""
    parts: Sequence[Path] = ()
    """Of a directory with a split WIM: its parts."""


def recognise_files(files: FileSet, requested: ImageFormat | None, stack: ExitStack) -> Recognised:
    """Returns what the files of a directory are. Blocks.

    Raises:
        ImageFileError: they cannot be imported, as far as their names and beginnings tell.
    """
    nothing = PiecesSource([])
    if is_clonezilla(files):
        plan = plan_clonezilla(files)
    elif is_fog(files):
        plan = plan_fog(files)
    elif all(PurePosixPath(name).suffix.lower() == ".swm" for name in files):
        parts = sorted(files.values())
        size_bytes = sum(part.stat().st_size for part in parts)
        return Recognised(nothing, nothing, None, ImageFormat.WIM, size_bytes, requested, parts=parts)
    elif stem := whole_in_pieces(files):
        whole = PiecesSource(pieces(files, stem))
        stack.callback(whole.close)
        return recognise(whole, whole.size_bytes, requested, stem)
    else:
        shown = listed(sorted(files))
        raise unsupported(
            f"is neither a Clonezilla nor a FOG image, nor one file in pieces: it holds {shown}; name a file"
        )
    return Recognised(nothing, nothing, None, plan.format, plan.input_bytes, requested, plan=plan)


def recognise(source: Source, input_bytes: int, requested: ImageFormat | None, file_name: str = "") -> Recognised:
    """Returns what a source is, by its start. Blocks.

    `input_bytes` is its whole size, -1 if not known; `requested` what the operator says it is, if anything.

    Raises:
        ImageFileError: it cannot be imported, as far as its start tells.
    """
    container = container_of(source)
    content = decompressed(source, container) if container else source
    image_format = detect(content, requested, str(PurePosixPath(file_name).with_suffix("")) if container else file_name)
    check_head(content, image_format, input_bytes if container is None and input_bytes >= 0 else None)
    return Recognised(source, content, container, image_format, input_bytes, requested)


@dataclass(frozen=True)
class Prepared:
    """What is cut into chunks."""

    content: Source
    format: ImageFormat
    """Of the image; a raw one may still turn out to be a VHD, see `image_format`."""

    @property
    def image_format(self) -> ImageFormat:
        """The format, once the content has been read to its end."""
        return self.content.format if isinstance(self.content, RawDisk) else self.format


async def prepare(
    found: Recognised, workspace: Path, blocking: BlockingWork, meter: Meter, stack: ExitStack
) -> Prepared:
    """Returns what is to be cut: as it came, or converted by a tool to a file in `workspace`, which `stack` closes.

    Raises:
        ImageFileError: it is damaged, not whole, or of no use.
        FailedPreconditionError: the tool is missing.
        OSError, ResourceExhaustedError: there is no room.
    """
    form = found.format
    if found.plan is not None:
        return Prepared(stack.enter_context(await _assemble(found.plan, workspace, blocking, meter)), form)
    if found.parts:
        joined = workspace / "joined"
        await blocking.run(lambda: split_wim.join(found.parts, joined, blocking.interrupted))
        content = stack.enter_context(FileSource(joined))
        return Prepared(content, detect(content, None))
    if form.is_virtual_disk:
        return Prepared(stack.enter_context(await _unpack_disk(found, workspace, blocking, meter)), form)
    if form is ImageFormat.PARTCLONE:
        partclone.require_tool()
        volume = workspace / "raw"
        await blocking.run(lambda: _restore_volume(found.content, volume, blocking.interrupted))
        return Prepared(stack.enter_context(FileSource(volume)), form)
    if form is ImageFormat.ISO:
        file = await _take_out(found, workspace, blocking)
        content = stack.enter_context(FileSource(file))
        image_format = detect(content, None)
        check_head(content, image_format, content.size_bytes)
        return Prepared(content, image_format)
    if form is ImageFormat.RAW and found.requested is not ImageFormat.RAW:
        return Prepared(await blocking.run(lambda: RawDisk(found.content)), form)
    return Prepared(found.content, form)


async def _assemble(plan: DiskPlan, workspace: Path, blocking: BlockingWork, meter: Meter) -> FileSource:
    """Returns the disk that a backup holds, as a sparse file in `workspace`."""
    partclone.require_tool()
    raw, done_bytes = workspace / "raw", 0

    def report(done: int) -> None:
        nonlocal done_bytes
        done_bytes = done

    meter.total_bytes, meter.done = plan.input_bytes, lambda: done_bytes
    await blocking.run(lambda: assemble(plan, raw, blocking.interrupted, report))
    return FileSource(raw)


async def _unpack_disk(found: Recognised, workspace: Path, blocking: BlockingWork, meter: Meter) -> FileSource:
    """Returns the raw disk that a virtual disk describes, as a sparse file in `workspace`.

    An upload or a compressed file is spooled there first: qemu-img reads in any order.
    """
    virtual_disk.require_tool()
    disk = await _file_of(found, workspace / "disk", blocking)
    raw = workspace / "raw"
    await blocking.run(lambda: check_self_contained(disk, found.format))
    if await blocking.run(lambda: needs_replay(disk, found.format)):
        if disk.parent != workspace:
            original, disk = disk, workspace / "disk"
            await blocking.run(lambda: _copy(original, disk, blocking.interrupted))
        await virtual_disk.replay(disk, found.format)
    disk_bytes = disk.stat().st_size
    share_done = 0.0

    def report(share: float) -> None:
        nonlocal share_done
        share_done = share

    meter.total_bytes, meter.done = disk_bytes, lambda: int(share_done * disk_bytes)
    await virtual_disk.convert(disk, found.format, raw, report)
    if disk.parent == workspace:
        disk.unlink()
    return FileSource(raw)


async def _take_out(found: Recognised, workspace: Path, blocking: BlockingWork) -> Path:
    """Returns the WIM or ESD of a disc, as a file in `workspace`."""
    windows_disc.require_tool()
    disc = await _file_of(found, workspace / "disc", blocking)
    taken = await blocking.run(lambda: windows_disc.extract(disc, workspace, blocking.interrupted))
    if disc.parent == workspace:
        disc.unlink()
    if taken[0].suffix.lower() != ".swm":
        return taken[0]
    joined = workspace / "joined"
    await blocking.run(lambda: split_wim.join(taken, joined, blocking.interrupted))
    return joined


async def _file_of(found: Recognised, spooled: Path, blocking: BlockingWork) -> Path:
    """Returns the file that is imported, or what of an upload or compressed file is written to `spooled`."""
    if isinstance(found.input, FileSource) and found.container is None:
        return found.input.path
    await blocking.run(lambda: spool(found.content, spooled, blocking.interrupted))
    return spooled


def _copy(original: Path, target: Path, interrupted: Event) -> None:
    with FileSource(original) as source:
        spool(source, target, interrupted)


def _restore_volume(content: Source, volume: Path, interrupted: Event) -> None:
    with volume.open("wb") as file:
        file.truncate(partclone.volume_bytes(content))
    partclone.restore(content, volume, interrupted)
