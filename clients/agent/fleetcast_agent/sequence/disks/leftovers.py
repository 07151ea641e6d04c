"""What a disk held before: where an image does not cover it, it loses its meaning.

Superblocks of RAID, volume managers, encryption and file systems are near the beginning or the end of the disk or of
the partition they describe, and so is the copy of a GPT. A grown partition may end where one of them is.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

from fleetcast_agent.sequence.disks.tables import table as tables
from fleetcast_agent.sequence.disks.tables.model import DamagedTableError
from fleetcast_agent.sequence.machine.disks import Disk
from fleetcast_agent.sequence.machine.geometry import SECTOR_SIZES

_HEAD_BYTES = 1 << 20
"""Reaches behind every superblock at a beginning: the last is ZFS's second label."""
_TAIL_BYTES = 4 << 20
"""Reaches before every superblock at an end: the first are ZFS's third label and those of RAID controllers."""


def clear_uncovered(disk: Disk, covered_bytes: int) -> None:
    """Clears what describes the disk and its partitions as they are, where an image of that size does not cover it.

    To be called before the image is written: it needs the old table.
    """
    ranges = _ends(0, disk.size_bytes)
    for sector_bytes in SECTOR_SIZES:
        with contextlib.suppress(DamagedTableError):
            old = tables.read(disk.path, sector_bytes, disk.size_bytes)
            for partition in old.volumes if old is not None else ():
                ranges += _ends(partition.start_bytes, partition.end_bytes)
    _clear(disk.path, ((max(begin, covered_bytes), min(end, disk.size_bytes)) for begin, end in ranges))


def clear_end(path: Path, begin_bytes: int, end_bytes: int) -> None:
    """Clears what is near the end of a region that no image has written to, up to its last byte."""
    _clear(path, [(max(begin_bytes, end_bytes - _TAIL_BYTES), end_bytes)])


def clear_both_ends(path: Path, begin_bytes: int, end_bytes: int) -> None:
    """Clears what describes a volume of which nothing shall stay."""
    _clear(path, ((max(begin, begin_bytes), min(end, end_bytes)) for begin, end in _ends(begin_bytes, end_bytes)))


def _ends(begin: int, end: int) -> list[tuple[int, int]]:
    return [(begin, begin + _HEAD_BYTES), (end - _TAIL_BYTES, end)]


def _clear(path: Path, ranges: Iterable[tuple[int, int]]) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        for begin, end in ranges:
            length = end - begin
            if length > 0 and any(os.pread(descriptor, length, begin)):
                os.pwrite(descriptor, bytes(length), begin)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
