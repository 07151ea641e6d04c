"""Partitions moved to other places on their disk."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

from fleetcast_agent.sequence.disks.disk_images.growing import Move
from fleetcast_agent.sequence.disks.tables.model import Existing

_BLOCK_BYTES = 4 << 20
_HIDDEN_SECTORS_AT = 0x1C
"""Where the boot sector of NTFS and FAT says how many sectors of the disk are before it: 4 bytes."""
_FAT32_COPY_AT = 0x32
"""Where that of FAT32 says in which sector its copy is: 2 bytes."""


def moved(disk: Path, moves: Sequence[Move], sector_bytes: int) -> Iterator[None]:
    """Copies what the partitions hold to their new places, in the order given; yields between blocks.

    The table is not touched. Interrupted, a place may hold half of the old content and half of the new.
    """
    descriptor = os.open(disk, os.O_RDWR | os.O_CLOEXEC)
    try:
        for move in moves:
            if not move.recreate:
                yield from _copied(descriptor, move.partition, move.start_bytes)
                _correct_boot_sector(descriptor, move, sector_bytes)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _copied(descriptor: int, partition: Existing, start_bytes: int) -> Iterator[None]:
    """Copies from the end to the beginning: the new place is behind the old one and may overlap it."""
    position = partition.size_bytes
    while position > 0:
        length = min(_BLOCK_BYTES, position)
        position -= length
        content = os.pread(descriptor, length, partition.start_bytes + position)
        if os.pread(descriptor, length, start_bytes + position) != content:
            os.pwrite(descriptor, content, start_bytes + position)
        yield


def _correct_boot_sector(descriptor: int, move: Move, sector_bytes: int) -> None:
    """Lets the boot sectors of NTFS and FAT say where the partition begins now, if they said where it began."""
    before, now = move.partition.start_bytes // sector_bytes, move.start_bytes // sector_bytes
    first = os.pread(descriptor, sector_bytes, move.start_bytes)
    copies = [move.start_bytes]
    if first[3:11] == b"NTFS    ":
        copies.append(move.start_bytes + move.partition.size_bytes - sector_bytes)
    elif first[82:87] == b"FAT32":
        copies.append(move.start_bytes + struct.unpack_from("<H", first, _FAT32_COPY_AT)[0] * sector_bytes)
    elif first[54:57] != b"FAT":
        return
    for place in copies:
        sector = bytearray(os.pread(descriptor, sector_bytes, place))
        same = sector[3:11] == first[3:11]
        if same and struct.unpack_from("<I", sector, _HIDDEN_SECTORS_AT)[0] == before & 0xFFFFFFFF:
            struct.pack_into("<I", sector, _HIDDEN_SECTORS_AT, now & 0xFFFFFFFF)
            os.pwrite(descriptor, sector, place)
