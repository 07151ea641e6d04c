"""Partition tables: planned from what a sequence wants, written by sfdisk; read."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fleetcast_sequence.quantities import format_size
from fleetcast_sequence.steps.disk import PARTITION_TYPES, Partition

from fleetcast_agent.sequence.disks.tables import table as tables
from fleetcast_agent.sequence.disks.tables.model import DamagedTableError, Existing, Table
from fleetcast_agent.sequence.errors import StepError
from fleetcast_agent.sequence.machine.disks import Disk
from fleetcast_agent.sequence.machine.geometry import ALIGNMENT_BYTES, aligned_down, aligned_up
from fleetcast_agent.sequence.tools import Tools

_MBR_LIMIT_BYTES = 2 << 40
_RECOVERY_ATTRIBUTES = "RequiredPartition,GUID:63"
"""Windows hides such a partition and gives it no letter."""


@dataclass(frozen=True)
class Planned:
    """Where a partition will be."""

    partition: Partition
    number: int
    start_bytes: int
    size_bytes: int
    guid: str


def plan(partitions: Sequence[Partition], table: str, disk_bytes: int) -> list[Planned]:
    """Returns the places of `partitions` on a disk of that size.

    Raises:
        StepError: they do not fit.
    """
    end = aligned_down(disk_bytes - (ALIGNMENT_BYTES if table == "gpt" else 0))
    if table == "mbr":
        end = min(end, aligned_down(_MBR_LIMIT_BYTES - 1))
    sizes = [_size(partition, disk_bytes) for partition in partitions]
    rest = end - ALIGNMENT_BYTES - sum(size for size in sizes if size is not None)
    least = ALIGNMENT_BYTES if None in sizes else 0
    if rest < least:
        wanted = format_size(disk_bytes - rest + least)
        raise StepError(f"the partitions do not fit on a disk of {format_size(disk_bytes)}: they need {wanted}")
    planned, start = [], ALIGNMENT_BYTES
    for number, (partition, size) in enumerate(zip(partitions, sizes, strict=True), 1):
        size_bytes = rest if size is None else size
        planned.append(Planned(partition, number, start, size_bytes, str(uuid.uuid4()).upper()))
        start += size_bytes
    return planned


def script(planned: Sequence[Planned], table: str, sector_bytes: int) -> str:
    """Returns the input for sfdisk that makes the table."""
    lines = [f"label: {'gpt' if table == 'gpt' else 'dos'}", f"sector-size: {sector_bytes}"]
    for item in planned:
        column = 0 if table == "gpt" else 1
        kind = PARTITION_TYPES[item.partition.type][column] if item.partition.type in PARTITION_TYPES else ""
        fields = [
            f"start={item.start_bytes // sector_bytes}",
            f"size={item.size_bytes // sector_bytes}",
            f"type={kind or item.partition.type.removeprefix('0x')}",
        ]
        if table == "gpt":
            fields += [f"uuid={item.guid}", f'name="{item.partition.name}"']
            if item.partition.type == "recovery":
                fields.append(f'attrs="{_RECOVERY_ATTRIBUTES}"')
        elif item.partition.active:
            fields.append("bootable")
        lines.append(f"{item.number} : {', '.join(fields)}")
    return "\n".join(lines) + "\n"


async def write(tools: Tools, disk: Disk, planned: Sequence[Planned], table: str) -> list[Existing]:
    """Writes the table over whatever is on the disk, and returns it as it reads back.

    Raises:
        StepError: sfdisk failed.
    """
    command: list[str | Path] = [
        "sfdisk",
        "--no-reread",
        "--no-tell-kernel",
        "--wipe=always",
        "--wipe-partitions=always",
        disk.path,
    ]
    await tools.run(command, stdin=script(planned, table, disk.sector_bytes).encode())
    await tell_kernel(tools, disk)
    return await read(tools, disk)


async def read(tools: Tools, disk: Disk) -> list[Existing]:
    """Returns the partitions of the disk by their place on it; none if it has no table."""
    found = await table_of(disk)
    return list(found.partitions) if found is not None else []


async def table_of(disk: Disk) -> Table | None:
    """Returns the table of the disk; None if it has none that can be understood."""
    with contextlib.suppress(DamagedTableError):
        return await asyncio.to_thread(tables.read, disk.path, disk.sector_bytes, disk.size_bytes)
    return None


async def tell_kernel(tools: Tools, disk: Disk) -> None:
    """Lets the kernel read the table anew. Where it cannot, nothing here depends on it."""
    if disk.is_device:
        await tools.run(["blockdev", "--rereadpt", disk.path], success_codes=(0, 1), quiet=True)


def _size(partition: Partition, disk_bytes: int) -> int | None:
    if partition.size == "rest":
        return None
    if isinstance(partition.size, str):
        return max(aligned_down(int(disk_bytes * float(partition.size.rstrip("%")) / 100)), ALIGNMENT_BYTES)
    return aligned_up(partition.size)
