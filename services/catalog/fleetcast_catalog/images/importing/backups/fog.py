"""FOG image directories: `d1.mbr`, `d1.partitions`, `d1p1.img`, ..."""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from pathlib import Path

from fleetcast_catalog.images.domain import ImageFormat, corrupt, unsupported
from fleetcast_catalog.images.importing.backups.disk_plan import DiskPlan, Swap
from fleetcast_catalog.images.importing.backups.file_set import FileSet, pieces

_VOLUME = re.compile(r"d(?P<disk>\d+)p(?P<number>\d+)\.img(?:\.\d{3})?")
_DISK = re.compile(r"d(?P<disk>\d+)\.mbr")
_PLACE = re.compile(r"start= *(\d+), *size= *(\d+)")
_OLD = re.compile(r"(?:rec|sys)\.img(?:\.\d{3})?")
_ALIGNMENT_BYTES = 1 << 20
_UUID = re.compile(r"[0-9a-fA-F-]{36}")


def is_fog(files: FileSet) -> bool:
    """Returns whether these are the files of a FOG image."""
    return any(_DISK.fullmatch(name) or _VOLUME.fullmatch(name) or _OLD.fullmatch(name) for name in files)


def plan(files: FileSet) -> DiskPlan:
    """Returns the disk that a FOG image holds. Reads the small files. Blocks.

    Raises:
        ImageFileError: something of it is missing, or it is of a kind that cannot become one disk.
    """
    disks = sorted({match["disk"] for name in files if (match := _DISK.fullmatch(name) or _VOLUME.fullmatch(name))})
    if not disks:
        raise unsupported("is an image of an old FOG (rec.img, sys.img): deploy it once, and capture it again")
    if len(disks) > 1:
        raise unsupported(
            f"is a FOG image of {len(disks)} disks: make a directory with the files of one, those that begin with "
            f"d{disks[0]} for example"
        )
    disk = f"d{disks[0]}"
    if f"{disk}.mbr" not in files:
        raise corrupt(f"{disk}.mbr, which holds the partition table, is missing")
    boot = files[f"{disk}.mbr"].read_bytes()
    volumes = _volumes(files, disk)
    swaps = _swaps(files, disk)
    # Of a GPT `sgdisk --backup` wrote the protective MBR, both headers and the entries; of an MBR dd the first sectors.
    if boot[512:520] == b"EFI PART":
        (last_sector,) = struct.unpack_from("<Q", boot, 512 + 32)
        size_bytes = (last_sector + 1) * 512
        return DiskPlan(
            ImageFormat.FOG, size_bytes, boot[:512], volumes, table_backup=files[f"{disk}.mbr"], swaps=swaps
        )
    script = _text(files, f"{disk}.partitions")
    places = _PLACE.findall(script)
    if not places:
        raise corrupt(f"{disk}.partitions, which holds the partition table, is missing or empty")
    end_bytes = max(int(start) + int(size) for start, size in places) * 512
    size_bytes = -(-end_bytes // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES
    return DiskPlan(ImageFormat.FOG, size_bytes, boot, volumes, table_script=script, swaps=swaps)


def _volumes(files: FileSet, disk: str) -> dict[int, Sequence[Path]]:
    numbers = {
        int(match["number"]) for name in files if (match := _VOLUME.fullmatch(name)) and disk == f"d{match['disk']}"
    }
    return {number: pieces(files, f"{disk}p{number}.img") for number in numbers}


def _swaps(files: FileSet, disk: str) -> dict[int, Swap]:
    """Returns the swap partitions: a line each with number and UUID."""
    found = {}
    for line in _text(files, f"{disk}.original.swapuuids").splitlines():
        words = line.split()
        if len(words) == 2 and words[0].isdigit() and _UUID.fullmatch(words[1]):
            found[int(words[0])] = Swap(words[1])
    return found


def _text(files: FileSet, name: str) -> str:
    return files[name].read_bytes().decode(errors="replace") if name in files else ""
