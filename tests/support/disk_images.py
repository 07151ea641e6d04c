"""Images of disks and disks with a past, made by the tools that make real ones."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import struct
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.sequences import MIB, tool

GPT_TYPES = {
    "esp": "C12A7328-F81F-11D2-BA4B-00A0C93EC93B",
    "msr": "E3C9E316-0B5C-4DB8-817D-F92DF00215AE",
    "bios": "21686148-6449-6E6F-744E-656564454649",
    "windows": "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7",
    "recovery": "DE94BBA4-06D1-4D40-A16A-BFD50179D6AC",
    "linux": "0FC63DAF-8483-4772-8E79-3D69D8477DE4",
    "linux-root": "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709",
    "home": "933AC7E1-2EB4-4F13-B844-0E14E2AEF915",
    "swap": "0657FD6D-A4AB-43C4-84E5-0933C84B4F4F",
    "lvm": "E6D6D379-F507-44C2-A23C-238F2A3DF928",
    "raid": "A19D880F-05FC-4D3B-A006-743F0F84911E",
    "maker": "BFBFAFE7-A34F-448A-9A5B-6213EB736C22",
}
MBR_TYPES = {
    "esp": "ef",
    "windows": "7",
    "recovery": "27",
    "linux": "83",
    "linux-root": "83",
    "home": "83",
    "swap": "82",
    "lvm": "8e",
    "raid": "fd",
    "maker": "12",
    "extended": "5",
}


@dataclass(frozen=True)
class Part:
    """A partition to be made."""

    kind: str
    """A key of the types above."""
    size_mib: int = 16
    filesystem: str = ""
    """`ext4`, `xfs`, `btrfs`, `ntfs`, `vfat`, `swap`, or nothing."""
    system: str = ""
    """`linux` or `windows`: what is put into it."""
    label: str = ""
    logical: bool = False


@dataclass
class DiskFile:
    """A file with a partition table."""

    path: Path
    sector_bytes: int = 512
    parts: list[Part] = field(default_factory=list)

    def table(self) -> dict[str, Any]:
        """Returns the table as sfdisk reads it, on a device with these sectors."""
        with whole(self.path, self.sector_bytes) as device:
            return dict(json.loads(tool("sfdisk", "--json", device))["partitiontable"])

    def places(self) -> dict[int, tuple[int, int]]:
        """Returns begin and size of each partition in bytes, as sfdisk reads them, by their numbers."""
        entries = self.table()["partitions"]
        return {
            int(entry["node"].rpartition("p")[2]): (
                entry["start"] * self.sector_bytes,
                entry["size"] * self.sector_bytes,
            )
            for entry in entries
        }

    @contextlib.contextmanager
    def partition(self, number: int) -> Iterator[str]:
        """Yields a block device that is the partition, as the kernel would show it."""
        start, size = self.places()[number]
        with attached(self.path, start, size, self.sector_bytes) as device:
            yield device

    @contextlib.contextmanager
    def files(self, number: int) -> Iterator[Path]:
        """Yields where the partition's files are, mounted for reading."""
        with self.partition(number) as device, mounted(device, self.path.parent, "ro") as point:
            yield point

    def about(self, number: int) -> dict[str, str]:
        """Returns what blkid says about the partition."""
        with self.partition(number) as device:
            return about(device)


@contextlib.contextmanager
def attached(path: Path, start: int, size: int, sector_bytes: int = 512) -> Iterator[str]:
    """Yields a loop device over a part of a file."""
    place = ["--offset", str(start), "--sizelimit", str(size), "--sector-size", str(sector_bytes)]
    device = tool("losetup", "--find", "--show", *place, path).strip()
    try:
        yield device
    finally:
        tool("losetup", "--detach", device)


@contextlib.contextmanager
def whole(path: Path, sector_bytes: int = 512) -> Iterator[str]:
    """Yields a loop device over a file, which stands for a disk with such sectors."""
    with attached(path, 0, path.stat().st_size, sector_bytes) as device:
        yield device


@contextlib.contextmanager
def mounted(device: str, directory: Path, mode: str = "rw") -> Iterator[Path]:
    """Yields where a file system is mounted."""
    point = directory / f"mounted-{os.path.basename(device)}"
    point.mkdir()
    kind = about(device).get("TYPE", "")
    try:
        if kind == "ntfs":
            tool("ntfs-3g", "-o", mode, device, point)
        else:
            tool("mount", "-o", f"{mode},nouuid" if kind == "xfs" else mode, device, point)
        try:
            yield point
        finally:
            tool("umount", point)
    finally:
        point.rmdir()


def about(device: str) -> dict[str, str]:
    """Returns what blkid says of what is on a device."""
    finished = subprocess.run(["blkid", "-p", "-o", "export", device], check=False, capture_output=True, text=True)
    return dict(line.split("=", 1) for line in finished.stdout.splitlines() if "=" in line)


def make_disk(
    path: Path, size_mib: int, parts: Sequence[Part], *, table: str = "gpt", sector_bytes: int = 512
) -> DiskFile:
    """Makes a disk with these partitions, one after the other, and what is on them."""
    with path.open("wb") as file:
        file.truncate(size_mib * MIB)
    disk = DiskFile(path, sector_bytes, list(parts))
    with whole(path, sector_bytes) as device:
        script = _script(parts, table, sector_bytes, size_mib)
        subprocess.run(["sfdisk", "-q", "--wipe=always", device], input=script, text=True, check=True)
    for number, part in _numbered(parts, table):
        if part.filesystem:
            with disk.partition(number) as device:
                make_file_system(device, part, path.parent, disk.places()[number][0] // sector_bytes)
    return disk


def _numbered(parts: Sequence[Part], table: str) -> Iterator[tuple[int, Part]]:
    primary, logical = 0, 4
    for part in parts:
        if part.logical:
            if logical == 4:
                primary += 1  # the extended one
            logical += 1
            yield logical, part
        else:
            primary += 1
            yield primary, part


def numbers(parts: Sequence[Part], table: str) -> dict[int, Part]:
    """Returns the partitions by the numbers that they have."""
    return dict(_numbered(parts, table))


def _script(parts: Sequence[Part], table: str, sector_bytes: int, size_mib: int) -> str:
    lines = [f"label: {'gpt' if table == 'gpt' else 'dos'}"]
    unit, start = MIB // sector_bytes, 1
    types = GPT_TYPES if table == "gpt" else MBR_TYPES
    logical_mib = sum(part.size_mib + 1 for part in parts if part.logical)
    opened = False
    for part in parts:
        if part.logical and not opened:
            opened = True
            lines.append(f"start={start * unit}, size={logical_mib * unit}, type=5")
        if part.logical:
            start += 1
        named = f', name="{part.label}"' if table == "gpt" and part.label else ""
        lines.append(f"start={start * unit}, size={part.size_mib * unit}, type={types[part.kind]}{named}")
        start += part.size_mib
    assert start <= size_mib, "the partitions do not fit"
    return "\n".join(lines) + "\n"


def make_file_system(device: str, part: Part, directory: Path, start_sector: int = 0) -> None:
    """Makes the file system of a partition that begins in such a sector, and puts into it what a system has."""
    label = ["-L", part.label] if part.label else []
    commands = {
        "ext4": ["mke2fs", "-q", "-F", "-t", "ext4", *label],
        "xfs": ["mkfs.xfs", "-q", "-f", *label],
        "btrfs": ["mkfs.btrfs", "-q", "-f", *label],
        "ntfs": ["mkntfs", "-Q", "-F", "-p", str(start_sector), "-H", "255", "-S", "63", *label],
        "vfat": ["mkfs.fat", "-h", str(start_sector), *(["-n", part.label] if part.label else [])],
        "swap": ["mkswap", *label],
    }
    tool(*commands[part.filesystem], device)
    if part.system:
        with mounted(device, directory) as point:
            put_system(point, part.system)


def put_system(root: Path, system: str) -> None:
    """Puts the few files by which a system is known into `root`."""
    if system == "windows":
        (root / "Windows/System32/config").mkdir(parents=True)
        (root / "Windows/explorer.exe").write_bytes(b"MZ" + os.urandom(5000))
    elif system == "linux":
        for name in ("etc", "usr/bin", "home", "var/log"):
            (root / name).mkdir(parents=True)
        (root / "etc/os-release").write_text("ID=debian\n")
        (root / "usr/bin/true").write_bytes(os.urandom(5000))
    elif system == "boot":
        (root / "grub").mkdir()
        (root / "vmlinuz-6.1").write_bytes(os.urandom(5000))
    else:
        (root / "data.bin").write_bytes(os.urandom(50_000))


def tree_digest(root: Path) -> str:
    """Returns a digest over names and contents of all files."""
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        digest.update(str(path.relative_to(root)).encode())
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()


def hidden_sectors(device: str) -> int:
    """Returns how many sectors a boot sector says are before its partition."""
    with open(device, "rb") as volume:
        return int(struct.unpack_from("<I", volume.read(512), 0x1C)[0])


def bytes_per_sector(device: str) -> int:
    """Returns for which sectors a boot sector of FAT or NTFS was made."""
    with open(device, "rb") as volume:
        return int(struct.unpack_from("<H", volume.read(512), 11)[0])


def put_raid_member(path: Path, begin: int, end: int, version: str) -> None:
    """Writes the superblock of a member of a Linux RAID over a region, as mdadm places it (1.0 and 0.90: at its end).

    Where the kernel has no RAID mdadm makes none; the fields are those of the kernel's `md_p.h`.
    """
    size = (end - begin) // 512
    block = bytearray(4096)
    if version == "0.90":
        at = (size & ~127) - 128
        struct.pack_into("<IIIII", block, 0, 0xA92B4EFC, 0, 90, 0, 0)
        block[20:24] = os.urandom(4)
    else:
        at = ((size - 16) // 8) * 8 if version == "1.0" else 8
        struct.pack_into("<III", block, 0, 0xA92B4EFC, 1, 0)
        block[16:32], block[32:43] = os.urandom(16), b"oldserver:1"
        struct.pack_into("<QIIQII", block, 64, 0, 1, 0, at, 0, 2)
        struct.pack_into("<QQQQ", block, 128, 0, at, at, 0)
        block[168:184] = os.urandom(16)
        struct.pack_into("<I", block, 220, 2)
        total = sum(struct.unpack_from("<65I", block, 0))
        struct.pack_into("<I", block, 216, ((total & 0xFFFFFFFF) + (total >> 32)) & 0xFFFFFFFF)
    with path.open("r+b") as file:
        file.seek(begin + at * 512)
        file.write(block)


class VolumeGroup:
    """A volume group on a device, worked on without being activated."""

    def __init__(self, device: str, name: str) -> None:
        self._device = device
        self._name = name
        self._lvm("pvcreate", device)
        self._lvm("vgcreate", "--physicalextentsize", "1m", name, device)

    def add(self, name: str, size_mib: int, *options: str) -> None:
        """Adds a logical volume."""
        plain = ["--activate", "n", "--zero", "n", "--wipesignatures", "n"]
        self._lvm("lvcreate", *plain, "--name", name, "--extents", str(size_mib), *options, self._name)

    def remove(self, name: str) -> None:
        """Removes a logical volume, so that a gap is left."""
        self._lvm("lvremove", "--yes", f"{self._name}/{name}")

    def rows(self) -> list[dict[str, str]]:
        """Returns a row for each part of each logical volume, by the place on the device."""
        fields = "lv_name,lv_size,vg_free_count,pe_start,vg_extent_size,seg_pe_ranges"
        options = ["--segments", "--units", "b", "--nosuffix", "--reportformat", "json", "-o", fields]
        (rows,) = json.loads(self._lvm("pvs", *options, self._device))["report"][0].values()
        return list(rows)

    def place(self, name: str) -> tuple[int, int]:
        """Returns begin and size in bytes of a logical volume in one part, on the device."""
        (row,) = [row for row in self.rows() if row["lv_name"] == name]
        first, last = map(int, row["seg_pe_ranges"].rpartition(":")[2].split("-"))
        extent = int(row["vg_extent_size"])
        return int(row["pe_start"]) + first * extent, (last - first + 1) * extent

    @classmethod
    def on(cls, device: str) -> VolumeGroup:
        """Returns the group that is on a device."""
        group = cls.__new__(cls)
        group._device = device
        group._name = group._lvm("pvs", "--noheadings", "-o", "vg_name", device).strip()
        return group

    def _lvm(self, program: str, *words: str) -> str:
        only = f'devices {{ filter=["a|^{self._device}$|","r|.*|"] use_devicesfile=0 }} backup {{ backup=0 archive=0 }}'
        return tool(program, "--driverloaded", "n", "--nolocking", "--config", only, *words)
