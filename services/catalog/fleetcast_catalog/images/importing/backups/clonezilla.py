"""Clonezilla image directories, of whole disks (`savedisk`) and of partitions (`saveparts`)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from fleetcast_catalog.images.domain import ImageFormat, corrupt, unsupported
from fleetcast_catalog.images.importing.backups.disk_plan import DiskPlan, Swap
from fleetcast_catalog.images.importing.backups.file_set import FileSet, pieces

_TABLE = re.compile(r"(?P<disk>[a-z]+[a-z0-9]*)-pt\.sf")
_VOLUME = re.compile(
    r"(?P<part>[a-z]+[a-z0-9]*)\.(?P<stem>[\w.+-]+-img(?:\.(?:gz|bz2|lzo|lzma|xz|lz|lrz|lz4|zst|uncomp))?)"
    r"(?:\.[a-z]{2})?"
)
_DISK_SIZE = re.compile(r"^Disk /dev/\S+: (\d+)s", re.MULTILINE)
_SECTOR_SIZE = re.compile(r"^Sector size \(logical/physical\): (\d+)B", re.MULTILINE)
_LAST_SECTOR = re.compile(r"^last-lba: *(\d+)", re.MULTILINE)
_SWAP = re.compile(r'^(UUID|LABEL)="([^"]*)"', re.MULTILINE)
_GPT_END_SECTORS = 34
"""From the last usable sector of a GPT to the end of the disk, with 128 entries."""


def is_clonezilla(files: FileSet) -> bool:
    """Returns whether these are the files of a Clonezilla image."""
    return "clonezilla-img" in files or ("parts" in files and any(_TABLE.fullmatch(name) for name in files))


def plan(files: FileSet) -> DiskPlan:
    """Returns the disk that a Clonezilla image holds. Reads the small files. Blocks.

    Raises:
        ImageFileError: something of it is missing, or it is of a kind that cannot become one disk.
    """
    if "ecryptfs.info" in files:
        raise unsupported("is an encrypted Clonezilla image: restore it once with Clonezilla, and save it unencrypted")
    disks = sorted(match["disk"] for name in files if (match := _TABLE.fullmatch(name)))
    if not disks:
        raise corrupt("a Clonezilla image without a file that ends in -pt.sf has no partition table")
    if len(disks) > 1:
        raise unsupported(
            f"is a Clonezilla image of {len(disks)} disks ({', '.join(disks)}): make a directory with the files of "
            "one, those that begin with its name and `parts`"
        )
    disk = disks[0]
    if any(_text(files, name).strip() for name in ("lvm_vg_dev.list", "lvm_logv.list")):
        raise unsupported(
            "is a Clonezilla image with LVM volumes: restore it once, to a virtual machine for example, and import "
            "that machine's disk"
        )
    about = _text(files, f"{disk}-pt.parted") or _text(files, f"{disk}-pt.parted.compact")
    script = _text(files, f"{disk}-pt.sf")
    sector = _SECTOR_SIZE.search(about)
    if sector is not None and sector[1] != "512":
        raise unsupported(
            f"is a Clonezilla image of a disk with sectors of {sector[1]} bytes: restore it once to such a disk, and "
            "import that"
        )
    volumes = _volumes(files, disk)
    for part in _text(files, "parts").split():
        number = _number(part, disk)
        if number is not None and number not in volumes and not _needs_no_image(files, part, script):
            raise corrupt(f"the image of {part} is missing")
    first = _content(files, f"{disk}-mbr")[:512].ljust(512, b"\0") + _content(files, f"{disk}-hidden-data-after-mbr")
    return DiskPlan(
        ImageFormat.CLONEZILLA,
        _disk_bytes(about, script),
        first,
        volumes,
        table_script=script,
        swaps=_swaps(files, disk),
        must_be_whole=False,  # `parts` has said what must be there
    )


def _volumes(files: FileSet, disk: str) -> dict[int, Sequence[Path]]:
    stems: dict[int, str] = {}
    for name in files:
        match = _VOLUME.fullmatch(name)
        number = _number(match["part"], disk) if match else None
        if match is not None and number is not None:
            stems[number] = f"{match['part']}.{match['stem']}"
    return {number: pieces(files, stem) for number, stem in stems.items()}


def _number(part: str, disk: str) -> int | None:
    """Returns the number of a partition: 3 of `sda3` and of `nvme0n1p3`."""
    number = part.removeprefix(disk).removeprefix("p")
    return int(number) if part.startswith(disk) and number.isdigit() else None


def _needs_no_image(files: FileSet, part: str, script: str) -> bool:
    line = next((line for line in script.splitlines() if line.split(":")[0].strip() == f"/dev/{part}"), "")
    kind = re.search(r"(?:type|Id)= *([0-9A-Fa-f-]+)", line)
    extended = kind is not None and kind[1].lower() in ("5", "f", "85")
    return extended or f"swappt-{part}.info" in files


def _swaps(files: FileSet, disk: str) -> dict[int, Swap]:
    found = {}
    for name in files:
        part = name.removeprefix("swappt-").removesuffix(".info")
        number = _number(part, disk) if name.startswith("swappt-") else None
        if number is not None:
            said = dict(_SWAP.findall(_text(files, name)))
            found[number] = Swap(said.get("UUID", ""), said.get("LABEL", ""))
    return found


def _disk_bytes(about: str, script: str) -> int:
    if size := _DISK_SIZE.search(about):
        return int(size[1]) * 512
    if last := _LAST_SECTOR.search(script):
        return (int(last[1]) + _GPT_END_SECTORS) * 512
    raise corrupt("neither its -pt.parted nor its -pt.sf says how large the disk is")


def _content(files: FileSet, name: str) -> bytes:
    return files[name].read_bytes() if name in files else b""


def _text(files: FileSet, name: str) -> str:
    return _content(files, name).decode(errors="replace")
