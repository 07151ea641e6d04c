"""Partition tables, read from an image: GPT (UEFI 2.10 section 5.3) and MBR with its extended partitions.

Bytes that may come from anybody: whatever they are, the answer is a table or none, never an error.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from fleetcast_catalog.images.inspection.contents import Partition

Read = Callable[[int, int], bytes]
"""`read(offset, size)` returns those bytes of the image; fewer only at its end."""

SECTOR_SIZES = (512, 4096)
_MAX_ENTRIES = 1024
_MAX_LOGICAL = 128
_EXTENDED = {0x05, 0x0F, 0x85}
_PROTECTIVE = 0xEE
_VOLUME_NAMES = (b"NTFS    ", b"EXFAT   ", b"-FVE-FS-", b"ReFS\0\0\0\0")

GPT_TYPES = {
    "C12A7328-F81F-11D2-BA4B-00A0C93EC93B": "EFI system",
    "E3C9E316-0B5C-4DB8-817D-F92DF00215AE": "Microsoft reserved",
    "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7": "Windows data",
    "DE94BBA4-06D1-4D40-A16A-BFD50179D6AC": "Windows recovery",
    "5808C8AA-7E8F-42E0-85D2-E1E90434CFB3": "Windows LDM metadata",
    "AF9B60A0-1431-4F62-BC68-3311714A69AD": "Windows LDM data",
    "E75CAF8F-F680-4CEE-AFA3-B001E56EFC2D": "Windows Storage Spaces",
    "0FC63DAF-8483-4772-8E79-3D69D8477DE4": "Linux",
    "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709": "Linux root (x86-64)",
    "B921B045-1DF0-41C3-AF44-4C6F280D3FAE": "Linux root (ARM-64)",
    "933AC7E1-2EB4-4F13-B844-0E14E2AEF915": "Linux home",
    "BC13C2FF-59E6-4262-A352-B275FD6F7172": "Linux boot",
    "0657FD6D-A4AB-43C4-84E5-0933C84B4F4F": "Linux swap",
    "E6D6D379-F507-44C2-A23C-238F2A3DF928": "Linux LVM",
    "A19D880F-05FC-4D3B-A006-743F0F84911E": "Linux RAID",
    "21686148-6449-6E6F-744E-656564454649": "BIOS boot",
    "7C3457EF-0000-11AA-AA11-00306543ECAC": "Apple APFS",
    "48465300-0000-11AA-AA11-00306543ECAC": "Apple HFS+",
}
MBR_TYPES = {
    0x01: "FAT12",
    0x04: "FAT16",
    0x05: "extended",
    0x06: "FAT16",
    0x07: "Windows data",
    0x0B: "FAT32",
    0x0C: "FAT32",
    0x0E: "FAT16",
    0x0F: "extended",
    0x17: "Windows data, hidden",
    0x1C: "FAT32, hidden",
    0x27: "Windows recovery",
    0x42: "Windows LDM",
    0x82: "Linux swap",
    0x83: "Linux",
    0x85: "extended",
    0x8E: "Linux LVM",
    0xEE: "protective entry of a GPT",
    0xEF: "EFI system",
    0xFD: "Linux RAID",
}


@dataclass(frozen=True)
class PartitionTable:
    """A partition table."""

    kind: str
    """`gpt` or `mbr`."""
    sector_size_bytes: int
    """0 if the table does not tell: an MBR never does."""
    partitions: tuple[Partition, ...]


def read_table(read: Read, size_bytes: int, *, mbr_sector_bytes: int = 512) -> PartitionTable | None:
    """Returns the partition table at the beginning of an image of `size_bytes`; None if there is none."""
    for sector_bytes in SECTOR_SIZES:
        partitions = _gpt(read, sector_bytes)
        if partitions is not None:
            return PartitionTable("gpt", sector_bytes, tuple(partitions))
    first = read(0, 512)
    if not _is_mbr(first, size_bytes // mbr_sector_bytes):
        return None
    return PartitionTable("mbr", 0, tuple(_mbr(read, first, mbr_sector_bytes)))


def _gpt(read: Read, sector_bytes: int) -> list[Partition] | None:
    header = read(sector_bytes, 92)
    if len(header) < 92 or not header.startswith(b"EFI PART"):
        return None
    entries_sector, count, entry_bytes = struct.unpack_from("<QII", header, 72)
    if not 128 <= entry_bytes <= 4096 or count > _MAX_ENTRIES or entries_sector >= 1 << 40:
        return None
    entries = read(entries_sector * sector_bytes, count * entry_bytes)
    found = []
    for number in range(1, len(entries) // entry_bytes + 1):
        entry = entries[(number - 1) * entry_bytes :][:entry_bytes]
        type_id = str(uuid.UUID(bytes_le=entry[:16])).upper()
        first, last = struct.unpack_from("<QQ", entry, 32)
        if not any(entry[:16]) or last < first:
            continue
        name = entry[56:128].decode("utf-16-le", errors="replace").partition("\0")[0]
        place = (first * sector_bytes, (last - first + 1) * sector_bytes)
        found.append(Partition(number, type_id, GPT_TYPES.get(type_id, ""), name, *place))
    return found


def _is_mbr(first: bytes, sector_count: int) -> bool:
    """Returns whether 512 bytes are a partition table. The first sector of a FAT or NTFS volume ends like one."""
    if len(first) < 512 or first[510:] != b"\x55\xaa" or first[3:11] in _VOLUME_NAMES:
        return False
    if first[54:57] == b"FAT" or first[82:87] == b"FAT32":
        return False
    entries = list(_entries(first))
    used = [(kind, start, count) for _, kind, start, count in entries if kind and count]
    return (
        bool(used)
        and all(flag in (0, 0x80) for flag, *_ in entries)
        and all(0 < start < sector_count for _, start, _ in used)
    )


def _entries(sector: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Yields flag, type, first sector and number of sectors of the four entries."""
    for offset in range(446, 510, 16):
        flag, kind = sector[offset], sector[offset + 4]
        start, count = struct.unpack_from("<II", sector, offset + 8)
        yield flag, kind, start, count


def _mbr(read: Read, first: bytes, sector_bytes: int) -> Iterator[Partition]:
    for number, (_, kind, start, count) in enumerate(_entries(first), 1):
        if not kind or not count:
            continue
        yield _partition(number, kind, start, count, sector_bytes)
        if kind in _EXTENDED:
            yield from _logical(read, start, sector_bytes)


def _logical(read: Read, extended: int, sector_bytes: int) -> Iterator[Partition]:
    """Yields the logical partitions of an extended one that begins at sector `extended`."""
    here, seen = extended, set[int]()
    number = 5
    while here not in seen and len(seen) < _MAX_LOGICAL:
        seen.add(here)
        sector = read(here * sector_bytes, 512)
        if len(sector) < 512 or sector[510:] != b"\x55\xaa":
            return
        (_, kind, start, count), (_, next_kind, next_start, _), *_ = _entries(sector)
        if kind and count:
            yield _partition(number, kind, here + start, count, sector_bytes)
            number += 1
        if next_kind not in _EXTENDED:
            return
        here = extended + next_start


def _partition(number: int, kind: int, start: int, count: int, sector_bytes: int) -> Partition:
    return Partition(number, f"0x{kind:02X}", MBR_TYPES.get(kind, ""), "", start * sector_bytes, count * sector_bytes)
