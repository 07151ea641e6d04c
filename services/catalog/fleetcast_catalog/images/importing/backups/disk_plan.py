"""A disk put together from what a tool saved of it: its partition table, its boot code, and its volumes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from fleetcast_catalog.images.domain import MAX_IMAGE_BYTES, ImageFileError, ImageFormat, corrupt, unsupported
from fleetcast_catalog.images.importing.backups.file_set import PiecesSource
from fleetcast_catalog.images.importing.decompression import container_of, decompressed
from fleetcast_catalog.images.importing.formats import partclone
from fleetcast_catalog.images.importing.formats.foreign import HEAD_BYTES, foreign_kind
from fleetcast_catalog.images.importing.sources import ImportInterruptedError, Source
from fleetcast_catalog.images.importing.tools import run, tool
from fleetcast_catalog.images.inspection.contents import Partition
from fleetcast_catalog.images.inspection.partition_tables import read_table

_BOOT_CODE_BYTES = 440
_COPY_BYTES = 1 << 20
_PAGE_BYTES = 4096
_NEEDS_NO_IMAGE = {
    "0657FD6D-A4AB-43C4-84E5-0933C84B4F4F",  # swap
    "E3C9E316-0B5C-4DB8-817D-F92DF00215AE",  # Microsoft reserved: nothing is ever in it
    "0x82",
    "0x05",
    "0x0F",
    "0x85",
}


@dataclass(frozen=True)
class Swap:
    """A swap partition, which is made anew."""

    uuid: str = ""
    label: str = ""


@dataclass(frozen=True)
class DiskPlan:
    """What a disk consists of."""

    format: ImageFormat
    size_bytes: int
    first_sectors: bytes
    """The first bytes of the disk: boot code, and what a boot loader keeps in front of an MBR's first partition."""
    volumes: Mapping[int, Sequence[Path]]
    """The files with the image of each partition that has one, by its number."""
    table_script: str = ""
    """The partition table as `sfdisk --dump` writes it."""
    table_backup: Path | None = None
    """In its place: the partition table as `sgdisk --backup` writes it."""
    swaps: Mapping[int, Swap] = field(default_factory=dict)
    must_be_whole: bool = True
    """Every partition needs an image, but for those that hold nothing."""

    @property
    def input_bytes(self) -> int:
        """Size of the files with the volumes."""
        return sum(path.stat().st_size for paths in self.volumes.values() for path in paths)


def assemble(plan: DiskPlan, raw: Path, interrupted: threading.Event, report: Callable[[int], None]) -> None:
    """Writes the disk to the new sparse file `raw`, and calls `report` with the bytes of input done. Blocks.

    Raises:
        ImageFileError: a part is missing or damaged, or does not fit.
        FailedPreconditionError: a tool is missing.
    """
    if not 0 < plan.size_bytes <= MAX_IMAGE_BYTES:
        raise corrupt(f"it describes a disk of {plan.size_bytes} bytes")
    with raw.open("wb") as file:
        file.truncate(plan.size_bytes)
    _write_table(plan, raw, interrupted)
    partitions = _partitions(raw, plan.size_bytes)
    _write_first_sectors(plan, raw, partitions)
    for number, partition in partitions.items():
        lacks = number not in plan.volumes and partition.type_id not in _NEEDS_NO_IMAGE
        if lacks and plan.must_be_whole:
            raise corrupt(f"the image of partition {number} is missing")
    done_bytes = 0
    for number, paths in sorted(plan.volumes.items()):
        if number not in partitions:
            raise corrupt(f"there is an image of partition {number}, and no such partition in its table")
        with closing(PiecesSource(paths)) as source:
            before = done_bytes
            _write_volume(source, raw, partitions[number], interrupted, lambda done, start=before: report(start + done))  # type: ignore[misc]
            done_bytes += source.size_bytes
    for number, swap in plan.swaps.items():
        if number in partitions and number not in plan.volumes:
            _write_swap(swap, raw, partitions[number], interrupted)


def _write_table(plan: DiskPlan, raw: Path, interrupted: threading.Event) -> None:
    if plan.table_backup is not None:
        program = tool("sgdisk", package="gdisk", purpose="partition tables that sgdisk saved")
        ended = run([program, f"--load-backup={plan.table_backup}", raw], interrupted)
    else:
        program = tool("sfdisk", package="fdisk", purpose="partition tables that sfdisk saved")
        arguments: list[str | Path] = [program, "--no-reread", "--no-tell-kernel", "--force", "--quiet", raw]
        ended = run(arguments, interrupted, stdin=plan.table_script.encode())
    if ended.code != 0:
        raise corrupt(f"its partition table cannot be restored ({ended.last_line.replace(str(raw), 'the disk')})")


def _partitions(raw: Path, size_bytes: int) -> dict[int, Partition]:
    with raw.open("rb") as file:

        def read(offset: int, size: int) -> bytes:
            file.seek(offset)
            return file.read(size)

        table = read_table(read, size_bytes)
    if table is None:
        raise corrupt("its partition table holds no partitions")
    return {partition.number: partition for partition in table.partitions}


def _write_first_sectors(plan: DiskPlan, raw: Path, partitions: Mapping[int, Partition]) -> None:
    """Writes the boot code, and what stands between an MBR and the first partition."""
    is_gpt = not next(iter(partitions.values())).type_id.startswith("0x")
    with raw.open("r+b") as file:
        file.write(plan.first_sectors[:_BOOT_CODE_BYTES])
        if not is_gpt:
            first_bytes = min(partition.offset_bytes for partition in partitions.values())
            file.seek(512)
            file.write(plan.first_sectors[512:first_bytes])


def _write_volume(
    source: PiecesSource, raw: Path, partition: Partition, interrupted: threading.Event, report: Callable[[int], None]
) -> None:
    container = container_of(source)
    content = _Reported(decompressed(source, container) if container else source, source, report)
    what = f"the image of partition {partition.number}"
    try:
        head = content.peek(HEAD_BYTES)
        if head.startswith(partclone.MAGIC):
            size_bytes = partclone.volume_bytes(content)
            if size_bytes > partition.size_bytes:
                raise corrupt(f"a volume of {size_bytes} bytes does not fit into {partition.size_bytes}")
            partclone.restore(content, raw, interrupted, offset_bytes=partition.offset_bytes)
            return
        if foreign := foreign_kind(head, ""):
            raise unsupported(f"is {foreign[0]}: {foreign[1]}")
        _copy(content, raw, partition, interrupted)
    except ImageFileError as error:
        raise ImageFileError(f"{error.problem} (in {what})", reason=error.reason) from error


def _copy(content: Source, raw: Path, partition: Partition, interrupted: threading.Event) -> None:
    """Writes a volume that was saved byte for byte; what is zero stays a hole."""
    buffer = memoryview(bytearray(_COPY_BYTES))
    zeros = bytes(_COPY_BYTES)
    written = 0
    with raw.open("r+b") as file:
        while count := content.read_into(buffer):
            if interrupted.is_set():
                raise ImportInterruptedError
            if written + count > partition.size_bytes:
                raise corrupt(f"it is larger than its partition of {partition.size_bytes} bytes")
            if buffer[:count] != zeros[:count]:
                file.seek(partition.offset_bytes + written)
                file.write(buffer[:count])
            written += count


def _write_swap(swap: Swap, raw: Path, partition: Partition, interrupted: threading.Event) -> None:
    """Makes a swap partition anew, with the identity that the system knows it by."""
    program = tool("mkswap", package="util-linux", purpose="swap partitions")
    made = raw.with_name("swap")
    with made.open("wb") as file:
        file.truncate(partition.size_bytes)
    identity = [*(["-U", swap.uuid] if swap.uuid else []), *(["-L", swap.label] if swap.label else [])]
    ended = run([program, *identity, made], interrupted)
    if ended.code != 0:
        raise corrupt(f"its swap partition {partition.number} cannot be made anew ({ended.last_line})")
    with made.open("rb") as file, raw.open("r+b") as disk:
        disk.seek(partition.offset_bytes)
        disk.write(file.read(_PAGE_BYTES))
    made.unlink()


class _Reported(Source):
    """A volume's content, whose reading is told as progress of its files."""

    def __init__(self, content: Source, files: Source, report: Callable[[int], None]) -> None:
        super().__init__()
        self._content = content
        self._files = files
        self._report = report

    def _read(self, buffer: memoryview) -> int:
        count = self._content.read_into(buffer)
        self._report(self._files.position_bytes)
        return count
