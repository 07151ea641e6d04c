"""Partition tables: planned from what a sequence wants, written and read by sfdisk."""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fleetcast_sequence.quantities import format_size
from fleetcast_sequence.steps.disk import PARTITION_TYPES, Partition

from fleetcast_agent.sequence.errors import StepError
from fleetcast_agent.sequence.machine.disks import Disk
from fleetcast_agent.sequence.tools import Tools

ALIGNMENT_BYTES = 1 << 20
"""Where partitions begin and end: what every system has used since 2008."""
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


@dataclass(frozen=True)
class Existing:
    """A partition on a disk."""

    number: int
    start_bytes: int
    size_bytes: int
    guid: str
    """Its GUID in a GPT, upper case; disk identifier and number in an MBR table."""
    type: str = ""
    """Its type GUID in a GPT, upper case; its hexadecimal type in an MBR table."""


def plan(partitions: Sequence[Partition], table: str, disk_bytes: int) -> list[Planned]:
    """Returns the places of `partitions` on a disk of that size.

    Raises:
        StepError: they do not fit.
    """
    end = _down(disk_bytes - (ALIGNMENT_BYTES if table == "gpt" else 0))
    if table == "mbr":
        end = min(end, _down(_MBR_LIMIT_BYTES - 1))
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
    """Returns the partitions of the disk by their place on it; none if it has no table.

    Raises:
        StepError: sfdisk failed.
    """
    finished = await tools.run(["sfdisk", "--json", disk.path], success_codes=(0, 1), quiet=True)
    if finished.exit_code:
        return []
    table = json.loads(finished.output)["partitiontable"]
    sector = int(table.get("sectorsize", disk.sector_bytes))
    found = []
    for entry in table.get("partitions", []):
        number = int(str(entry["node"])[len(str(disk.path)) :].lstrip("p"))
        guid = entry.get("uuid") or f"{str(table.get('id', '')).removeprefix('0x')}-{number:02d}"
        kind = str(entry["type"]).upper()
        found.append(Existing(number, entry["start"] * sector, entry["size"] * sector, guid.upper(), kind))
    return sorted(found, key=lambda partition: partition.start_bytes)


async def grow_last(tools: Tools, disk: Disk) -> Existing | None:
    """Makes the last partition on the disk reach the end of it. Returns it; None if the disk has no table.

    Raises:
        StepError: sfdisk failed.
    """
    before = await read(tools, disk)
    if not before:
        return None
    last = before[-1]
    await tools.run(["sfdisk", "--relocate", "gpt-bak-std", disk.path], success_codes=(0, 1), quiet=True)
    options = ["--no-reread", "--no-tell-kernel", "--wipe=never", "--wipe-partitions=never"]
    await tools.run(["sfdisk", *options, "-N", str(last.number), disk.path], stdin=b", +\n")
    await tell_kernel(tools, disk)
    return (await read(tools, disk))[-1]


async def tell_kernel(tools: Tools, disk: Disk) -> None:
    """Lets the kernel read the table anew. Where it cannot, nothing here depends on it."""
    if disk.is_device:
        await tools.run(["blockdev", "--rereadpt", disk.path], success_codes=(0, 1), quiet=True)


def _size(partition: Partition, disk_bytes: int) -> int | None:
    if partition.size == "rest":
        return None
    if isinstance(partition.size, str):
        return max(_down(disk_bytes * float(partition.size.rstrip("%")) / 100), ALIGNMENT_BYTES)
    return math.ceil(partition.size / ALIGNMENT_BYTES) * ALIGNMENT_BYTES


def _down(size_bytes: float) -> int:
    return int(size_bytes) // ALIGNMENT_BYTES * ALIGNMENT_BYTES
