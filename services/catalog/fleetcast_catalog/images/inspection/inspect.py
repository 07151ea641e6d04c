"""What is inside a stored image: its partition table, and what each volume holds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fleetcast_catalog.images.inspection.contents import ContentKind, ImageContents
from fleetcast_catalog.images.inspection.filesystems import VolumeContent, probe
from fleetcast_catalog.images.inspection.partition_tables import PartitionTable, Read, read_table

_EXTENDED = {"0x05", "0x0F", "0x85"}
_MAX_PROBES = 64
"""Volumes that are looked into: no disk that anybody deploys has more."""
_BIG_SECTORS = 4096


def inspect(
    read: Read, size_bytes: int, zero: NDArray[np.bool_], chunk_size_bytes: int, *, is_windows_imaging: bool
) -> ImageContents:
    """Returns what is inside an image. `zero` says of each chunk whether it is all zero. Blocks for some seconds."""
    used = _Used(zero, chunk_size_bytes, size_bytes)
    used_bytes = used.between(0, size_bytes)
    if is_windows_imaging:
        return ImageContents(ContentKind.WINDOWS_IMAGES, used_bytes=used_bytes)
    table = read_table(read, size_bytes)
    if table is None:
        whole = probe(read, 0, size_bytes)
        kind = ContentKind.VOLUME if whole.filesystem else ContentKind.FILE
        return ImageContents(kind, used_bytes=used_bytes, filesystem=whole.filesystem, label=whole.label)
    volumes = _probed(read, table)
    if table.kind == "mbr":
        table, volumes = _with_sector_size(read, size_bytes, table, volumes)
    partitions = [
        replace(
            partition,
            used_bytes=used.between(partition.offset_bytes, partition.offset_bytes + partition.size_bytes),
            filesystem=volume.filesystem,
            label=volume.label,
        )
        for partition, volume in zip(table.partitions, volumes, strict=True)
    ]
    return ImageContents(ContentKind.DISK, table.kind, table.sector_size_bytes, used_bytes, tuple(partitions))


def _probed(read: Read, table: PartitionTable) -> list[VolumeContent]:
    return [
        VolumeContent()
        if index >= _MAX_PROBES or partition.type_id in _EXTENDED
        else probe(read, partition.offset_bytes, partition.size_bytes)
        for index, partition in enumerate(table.partitions)
    ]


def _with_sector_size(
    read: Read, size_bytes: int, table: PartitionTable, volumes: list[VolumeContent]
) -> tuple[PartitionTable, list[VolumeContent]]:
    """Returns an MBR as the size of sectors in which its partitions begin where file systems do."""
    if any(volume.filesystem for volume in volumes):
        return replace(table, sector_size_bytes=512), volumes
    other = read_table(read, size_bytes, mbr_sector_bytes=_BIG_SECTORS)
    if other is not None:
        found = _probed(read, other)
        if any(volume.filesystem for volume in found):
            return replace(other, sector_size_bytes=_BIG_SECTORS), found
    return table, volumes


class _Used:
    """Counts the bytes that are not known to be zero, in whole chunks."""

    def __init__(self, zero: NDArray[np.bool_], chunk_size_bytes: int, size_bytes: int) -> None:
        self._before = np.concatenate([[0], np.cumsum(~zero)])
        self._chunk_size_bytes = chunk_size_bytes
        self._size_bytes = size_bytes

    def between(self, start: int, end: int) -> int:
        end = min(end, self._size_bytes)
        if start >= end:
            return 0
        first, last = start // self._chunk_size_bytes, -(-end // self._chunk_size_bytes)
        return min(int(self._before[last] - self._before[first]) * self._chunk_size_bytes, end - start)
