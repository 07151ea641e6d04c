"""The geometry of disks: their sizes, their sectors, and where partitions begin. Nothing else counts in sectors."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

ALIGNMENT_BYTES = 1 << 20
"""Where partitions begin and end: what every system has used since 2008."""
SECTOR_SIZES = (512, 4096)
"""Sizes of a logical sector that disks have."""
GPT_SIGNATURE = b"EFI PART"
"""How the second sector of a disk with a GPT begins."""

Read = Callable[[int, int], bytes]
"""Returns that many bytes from that place; fewer where there are no more."""

_SYS_BLOCK = Path("/sys/class/block")
_SYS_SECTOR_BYTES = 512
"""The kernel states sizes and places in these units, whatever sectors the disk has."""


def of_device(path: Path) -> tuple[int, int]:
    """Returns the size of the block device at `path` and that of its logical sector, both in bytes."""
    attributes = _SYS_BLOCK / path.resolve().name
    sectors = _number(attributes / "size")
    # A partition has no queue of its own: its disk has.
    sector_bytes = _number(attributes / "queue/logical_block_size") or _number(
        attributes.resolve().parent / "queue/logical_block_size"
    )
    return sectors * _SYS_SECTOR_BYTES, sector_bytes or SECTOR_SIZES[0]


def of_file(path: Path) -> tuple[int, int]:
    """Returns the size of the file at `path`, and the sector size that the GPT in it was written for; else 512."""
    size_bytes = path.stat().st_size
    with path.open("rb") as file:
        return size_bytes, gpt_sector_bytes(reader(file.fileno())) or SECTOR_SIZES[0]


def of_path(path: Path) -> tuple[int, int]:
    """Returns size and sector size of a block device, or of a file that stands for one."""
    return of_device(path) if stat.S_ISBLK(path.stat().st_mode) else of_file(path)


def reader(descriptor: int) -> Read:
    """Returns what reads from an open file or device."""
    return lambda offset, length: os.pread(descriptor, length, offset)


def gpt_sector_bytes(read: Read) -> int | None:
    """Returns the sector size for which a GPT was written, which its header's place shows; None without a GPT."""
    # Without the entry of the MBR that protects it, a GPT is one of long ago, which nothing heeds.
    if 0xEE not in read(0, 512)[450:512:16]:
        return None
    return next((size for size in SECTOR_SIZES if read(size, len(GPT_SIGNATURE)) == GPT_SIGNATURE), None)


def aligned_down(place_bytes: int, to_bytes: int = ALIGNMENT_BYTES) -> int:
    """Returns the last aligned place that is not behind this one."""
    return place_bytes // to_bytes * to_bytes


def aligned_up(place_bytes: int, to_bytes: int = ALIGNMENT_BYTES) -> int:
    """Returns the first aligned place that is not before this one."""
    return -(-place_bytes // to_bytes) * to_bytes


def mapper_units(size_bytes: int) -> int:
    """Returns a size or place in the units of the kernel's device mapper."""
    return size_bytes // _SYS_SECTOR_BYTES


def _number(path: Path) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0
