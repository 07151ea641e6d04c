"""The partition table of a disk, whatever its kind: read, checked before it is written anywhere, rewritten."""

from __future__ import annotations

import os
from pathlib import Path

from fleetcast_agent.sequence.disks.tables import gpt, mbr
from fleetcast_agent.sequence.disks.tables.model import Existing, Places, Table
from fleetcast_agent.sequence.machine.geometry import SECTOR_SIZES, Read, gpt_sector_bytes, reader

_FILE_SYSTEMS = (
    (3, b"NTFS    "),
    (3, b"EXFAT   "),
    (3, b"-FVE-FS-"),
    (54, b"FAT"),
    (82, b"FAT32"),
    (1080, b"\x53\xef"),
    (0, b"XFSB"),
    (65600, b"_BHRfS_M"),
    (4086, b"SWAPSPACE2"),
    (512, b"LABELONE"),
    (0, b"LUKS\xba\xbe"),
)
"""Where a file system, swap space, physical volume or encrypted volume says what it is."""
_CHAIN = ((510, b"\x55\xaa"),)
"""How the chain of logical partitions begins in the extended one."""


def read_from(read_bytes: Read, sector_bytes: int, size_bytes: int) -> Table | None:
    """Returns the table of a disk with such sectors; None if it has none.

    Raises:
        DamagedTableError: it has one that cannot be understood.
    """
    found = gpt.read(read_bytes, sector_bytes, size_bytes)
    return found if found is not None else mbr.read(read_bytes, sector_bytes, size_bytes)


def read(path: Path, sector_bytes: int, size_bytes: int) -> Table | None:
    """Returns the table on the disk at `path`, as `read_from` does."""
    with path.open("rb") as file:
        return read_from(reader(file.fileno()), sector_bytes, size_bytes)


def write(path: Path, table: Table, size_bytes: int, places: Places) -> None:
    """Gives partitions other places in the table on the disk at `path`, of which `table` was read."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        if table.kind == "gpt":
            gpt.write(descriptor, table.sector_bytes, size_bytes, places)
        else:
            mbr.write(descriptor, table, places)
    finally:
        os.close(descriptor)


def usable_bytes(table: Table, size_bytes: int) -> int:
    """Returns where the room for partitions ends on a disk of that size."""
    if table.kind == "gpt":
        return gpt.usable_bytes(table.sector_bytes, size_bytes)
    return mbr.usable_bytes(table.sector_bytes, size_bytes)


def sector_bytes_of(read_bytes: Read, image_bytes: int) -> int | None:
    """Returns the sectors of the disk that an image was made from; None if nothing in it tells.

    A GPT tells by its place. An MBR table does not say it: its partitions must lie inside the image and begin with
    what partitions begin with.
    """
    found = gpt_sector_bytes(read_bytes)
    if found is not None:
        return found
    possible = []
    for sector_bytes in SECTOR_SIZES:
        table = mbr.read(_only_first(read_bytes), sector_bytes, image_bytes)
        if table is None:
            return None
        if any(_begins(read_bytes, partition) for partition in table.partitions):
            return sector_bytes
        if all(partition.end_bytes <= image_bytes for partition in table.partitions):
            possible.append(sector_bytes)
    return possible[0] if len(possible) == 1 else None


def _only_first(read_bytes: Read) -> Read:
    """Returns what reads the first sector alone: the chain of logical partitions is not followed."""
    return lambda offset, length: read_bytes(offset, length) if offset == 0 else b""


def _begins(read_bytes: Read, partition: Existing) -> bool:
    known = _CHAIN if partition.extended else _FILE_SYSTEMS
    return any(read_bytes(partition.start_bytes + at, len(magic)) == magic for at, magic in known)
