"""GUID partition tables (UEFI specification, chapter 5): read, and rewritten with other places."""

from __future__ import annotations

import os
import struct
import uuid
import zlib

from fleetcast_agent.sequence.disks.tables.model import DamagedTableError, Existing, Places, Table
from fleetcast_agent.sequence.machine.geometry import GPT_SIGNATURE, Read, gpt_sector_bytes, reader

_HEADER = struct.Struct("<8s4sIIIQQQQ16sQIII")
"""Signature, revision, header size, its CRC, reserved, own sector, other header's sector, first and last usable sector,
disk GUID, sector of the entries, their number and size, their CRC."""
_ENTRY = struct.Struct("<16s16sQQQ72s")
"""Type, GUID, first sector, last sector, attributes, name."""
_CRC_AT = 16
_MAX_ENTRIES_BYTES = 1 << 20


def read(read_bytes: Read, sector_bytes: int, size_bytes: int) -> Table | None:
    """Returns the table of a disk with such sectors; None if it has no GPT. Its copy at the end serves a damaged one.

    Raises:
        DamagedTableError: there was a GPT, and neither it nor its copy is whole.
    """
    if gpt_sector_bytes(read_bytes) != sector_bytes:
        return None
    for at in (sector_bytes, size_bytes - sector_bytes):
        header = _header(read_bytes(at, sector_bytes))
        entries = _entries(read_bytes, header, sector_bytes) if header else None
        if header is not None and entries is not None:
            found = _partitions(header, entries, sector_bytes)
            return Table("gpt", sector_bytes, found, hybrid=_is_hybrid(read_bytes(0, 512)))
    copied = read_bytes(size_bytes - sector_bytes, sector_bytes)
    more = ", and so is the copy at its end" if copied else ""
    raise DamagedTableError(f"the partition table (GPT) at its beginning is damaged{more}")


def write(descriptor: int, sector_bytes: int, size_bytes: int, places: Places) -> None:
    """Gives partitions other places, and puts the copy of the table at the end of the disk.

    Raises:
        DamagedTableError: there is no whole table.
    """
    read_bytes = reader(descriptor)
    for at in (sector_bytes, size_bytes - sector_bytes):
        header = _header(read_bytes(at, sector_bytes))
        entries = _entries(read_bytes, header, sector_bytes) if header else None
        if header is not None and entries is not None:
            break
    else:
        raise DamagedTableError("its partition table (GPT) is damaged")
    size = header[12]
    changed = bytearray(entries)
    for number, (start, length) in places.items():
        at = (number - 1) * size + 32
        struct.pack_into("<QQ", changed, at, start // sector_bytes, (start + length) // sector_bytes - 1)
    last = size_bytes // sector_bytes - 1
    entry_sectors = -(-len(changed) // sector_bytes)
    first_usable, last_usable = header[7], last - entry_sectors - 1
    fields = [*header[:5], 1, last, first_usable, last_usable, header[9], 2, header[11], size, zlib.crc32(changed)]
    backup = [*fields]
    backup[5], backup[6], backup[10] = last, 1, last - entry_sectors
    # The copy first: whatever happens in between, one of both is whole.
    os.pwrite(descriptor, changed, (last - entry_sectors) * sector_bytes)
    os.pwrite(descriptor, _sealed(backup, sector_bytes), last * sector_bytes)
    os.fsync(descriptor)
    os.pwrite(descriptor, changed, 2 * sector_bytes)
    os.pwrite(descriptor, _sealed(fields, sector_bytes), sector_bytes)
    _protect(descriptor, last)
    os.fsync(descriptor)


def usable_bytes(sector_bytes: int, size_bytes: int, entries_bytes: int = 128 * _ENTRY.size) -> int:
    """Returns where the room for partitions ends on a disk of that size."""
    return size_bytes // sector_bytes * sector_bytes - sector_bytes * (1 + -(-entries_bytes // sector_bytes))


def _header(sector: bytes) -> tuple[int, ...] | None:
    """Returns the fields of a whole header."""
    if len(sector) < _HEADER.size or not sector.startswith(GPT_SIGNATURE):
        return None
    fields = _HEADER.unpack_from(sector)
    size = fields[2]
    if not _HEADER.size <= size <= len(sector):
        return None
    blank = sector[:_CRC_AT] + bytes(4) + sector[_CRC_AT + 4 : size]
    return fields if zlib.crc32(blank) == fields[3] else None


def _entries(read_bytes: Read, header: tuple[int, ...], sector_bytes: int) -> bytes | None:
    at, count, size, crc = header[10:14]
    if size < _ENTRY.size or count * size > _MAX_ENTRIES_BYTES:
        return None
    entries = read_bytes(at * sector_bytes, count * size)
    return entries if zlib.crc32(entries) == crc else None


def _partitions(header: tuple[int, ...], entries: bytes, sector_bytes: int) -> tuple[Existing, ...]:
    found = []
    for index in range(header[11]):
        kind, guid, first, last, attributes, name = _ENTRY.unpack_from(entries, index * header[12])
        if any(kind):
            found.append(
                Existing(
                    number=index + 1,
                    start_bytes=first * sector_bytes,
                    size_bytes=(last - first + 1) * sector_bytes,
                    guid=_guid(guid),
                    type=_guid(kind),
                    name=name.decode("utf-16-le", errors="replace").partition("\0")[0],
                    required=bool(attributes & 1),
                )
            )
    return tuple(sorted(found, key=lambda partition: partition.start_bytes))


def _guid(mixed_endian: bytes) -> str:
    return str(uuid.UUID(bytes_le=mixed_endian)).upper()


def _is_hybrid(first: bytes) -> bool:
    """Returns whether the MBR before the table names more than the one partition that protects the disk."""
    kinds = [first[at + 4] for at in range(446, 510, 16)]
    return any(kind not in (0, 0xEE) for kind in kinds)


def _sealed(fields: list[int], sector_bytes: int) -> bytes:
    sector = bytearray(sector_bytes)
    fields[2], fields[3] = _HEADER.size, 0
    _HEADER.pack_into(sector, 0, *fields)
    struct.pack_into("<I", sector, _CRC_AT, zlib.crc32(sector[: _HEADER.size]))
    return bytes(sector)


def _protect(descriptor: int, last_sector: int) -> None:
    """Lets the protective entry of the MBR reach the end of the disk."""
    first = bytearray(os.pread(descriptor, 512, 0))
    for at in range(446, 510, 16):
        if first[at + 4] == 0xEE:
            struct.pack_into("<I", first, at + 12, min(last_sector, 0xFFFFFFFF))
            os.pwrite(descriptor, first, 0)
            return
