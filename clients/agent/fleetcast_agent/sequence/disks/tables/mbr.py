"""MBR partition tables with their chain of logical partitions: read, and rewritten with other places."""

from __future__ import annotations

import os
import struct

from fleetcast_agent.sequence.disks.tables.model import EXTENDED_TYPES, DamagedTableError, Existing, Places, Table
from fleetcast_agent.sequence.machine.geometry import Read

_ENTRY = struct.Struct("<B3sB3sII")
"""Active mark, place and end in the old units, type, place and size in sectors."""
_TABLE_AT = 446
_RECORD_BYTES = 512
"""What the table takes of its sector, and each record of the chain of its own."""
_ACTIVE = 0x80
_SIGNATURE = b"\x55\xaa"
_MAX_LOGICAL = 128
_MAX_SECTORS = 0xFFFFFFFF
_BEYOND = bytes((0xFE, 0xFF, 0xFF))
"""A place that the old units cannot state."""


def read(read_bytes: Read, sector_bytes: int, size_bytes: int) -> Table | None:
    """Returns the table of a disk with such sectors; None if it has none: the first sector of a file system is none.

    Raises:
        DamagedTableError: the chain of its logical partitions leads nowhere.
    """
    first = read_bytes(0, _RECORD_BYTES)
    if len(first) < _RECORD_BYTES or not first.endswith(_SIGNATURE):
        return None
    entries = [first[at : at + _ENTRY.size] for at in range(_TABLE_AT, 510, _ENTRY.size)]
    if any(entry[0] not in (0, _ACTIVE) for entry in entries) or not any(map(_is_used, entries)):
        return None
    identity = struct.unpack_from("<I", first, 440)[0]
    used = [(number, entry) for number, entry in enumerate(entries, 1) if _is_used(entry)]
    found = [_existing(identity, number, entry, 0, sector_bytes) for number, entry in used]
    extended = next((partition for partition in found if partition.extended), None)
    if extended is not None:
        found += _logical(read_bytes, identity, extended, sector_bytes)
    return Table("mbr", sector_bytes, tuple(sorted(found, key=lambda each: (each.start_bytes, -each.size_bytes))))


def write(descriptor: int, table: Table, places: Places) -> None:
    """Gives partitions other places; each logical one keeps the distance to the record before it."""
    sector_bytes = table.sector_bytes
    first = bytearray(os.pread(descriptor, _RECORD_BYTES, 0))
    for partition in table.partitions:
        if not partition.logical and partition.number in places:
            start, size = places[partition.number]
            _place(first, _TABLE_AT + (partition.number - 1) * _ENTRY.size, start, size, sector_bytes)
    extended = table.extended
    if extended is not None:
        base = places.get(extended.number, (extended.start_bytes, extended.size_bytes))[0]
        _write_chain(descriptor, table, places, base)
    os.pwrite(descriptor, first, 0)
    os.fsync(descriptor)


def usable_bytes(sector_bytes: int, size_bytes: int) -> int:
    """Returns where the room for partitions ends on a disk of that size: the table reaches no farther."""
    return min(size_bytes // sector_bytes, _MAX_SECTORS) * sector_bytes


def _existing(identity: int, number: int, entry: bytes, base: int, sector_bytes: int) -> Existing:
    """Returns what an entry says whose places count from the sector `base`: that of its record in the chain, or 0."""
    mark, _, kind, _, start, size = _ENTRY.unpack(entry)
    return Existing(
        number,
        start_bytes=(base + start) * sector_bytes,
        size_bytes=size * sector_bytes,
        guid=f"{identity:08X}-{number:02d}",
        type=f"{kind:X}",
        link_bytes=base * sector_bytes,
        active=mark == _ACTIVE,
    )


def _is_used(entry: bytes) -> bool:
    fields = _ENTRY.unpack(entry)
    return bool(fields[2] and fields[5])


def _logical(read_bytes: Read, identity: int, extended: Existing, sector_bytes: int) -> list[Existing]:
    base = extended.start_bytes // sector_bytes
    link, found, seen = base, list[Existing](), set[int]()
    while link not in seen and len(found) < _MAX_LOGICAL:
        seen.add(link)
        record = read_bytes(link * sector_bytes, _RECORD_BYTES)
        if not record:
            break  # only the beginning of the disk is known
        if not record.endswith(_SIGNATURE):
            raise DamagedTableError("the chain of its logical partitions is broken")
        entry = record[_TABLE_AT : _TABLE_AT + _ENTRY.size]
        if _is_used(entry):
            found.append(_existing(identity, 5 + len(found), entry, link, sector_bytes))
        next_kind, next_start = _ENTRY.unpack_from(record, _TABLE_AT + _ENTRY.size)[2:5:2]
        if f"{next_kind:X}" not in EXTENDED_TYPES:
            break
        link = base + next_start
    return found


def _write_chain(descriptor: int, table: Table, places: Places, base: int) -> None:
    sector_bytes = table.sector_bytes
    chain = []
    for partition in sorted((each for each in table.partitions if each.logical), key=lambda each: each.number):
        start, size = places.get(partition.number, (partition.start_bytes, partition.size_bytes))
        chain.append((partition, start, size, start - (partition.start_bytes - partition.link_bytes)))
    if chain:
        chain[0] = (*chain[0][:3], base)  # the first record is where the extended partition begins
    for index, (partition, start, size, link) in enumerate(chain):
        record = bytearray(_RECORD_BYTES)
        record[-len(_SIGNATURE) :] = _SIGNATURE
        mark = _ACTIVE if partition.active else 0
        _ENTRY.pack_into(record, _TABLE_AT, mark, _BEYOND, int(partition.type, 16), _BEYOND, 0, 0)
        _place(record, _TABLE_AT, start - link, size, sector_bytes)
        if index + 1 < len(chain):
            _, next_start, next_size, next_link = chain[index + 1]
            at = _TABLE_AT + _ENTRY.size
            _ENTRY.pack_into(record, at, 0, _BEYOND, 5, _BEYOND, 0, 0)
            _place(record, at, next_link - base, next_start + next_size - next_link, sector_bytes)
        os.pwrite(descriptor, record, link)


def _place(record: bytearray, at: int, start_bytes: int, size_bytes: int, sector_bytes: int) -> None:
    mark, _, kind, _, _, _ = _ENTRY.unpack_from(record, at)
    _ENTRY.pack_into(record, at, mark, _BEYOND, kind, _BEYOND, start_bytes // sector_bytes, size_bytes // sector_bytes)
