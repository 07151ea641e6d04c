"""File systems and other content of volumes, recognised by blkid in a copy of the bytes that it looks at."""

from __future__ import annotations

import logging
import os
import re
import shutil
import struct
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from fleetcast_catalog.images.inspection.partition_tables import Read

_logger = logging.getLogger(__name__)

_PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
_SECONDS = 20.0
_HEAD_BYTES = 4 << 20
"""Superblocks, and the root directory of a small FAT, where its label stands."""
_TAIL_BYTES = 1 << 20
"""RAID members say what they are at their end."""
_MFT_BYTES = 64 << 10
_ESCAPED = re.compile(r"\\(.)")
"""How blkid's export format writes special characters."""


@dataclass(frozen=True)
class VolumeContent:
    """What a volume holds."""

    filesystem: str = ""
    """As blkid calls it; empty if it knows nothing."""
    label: str = ""


def probe(read: Read, offset_bytes: int, size_bytes: int) -> VolumeContent:
    """Returns what the volume at `offset_bytes` of an image holds; nothing if blkid is missing. Blocks."""
    blkid = shutil.which("blkid", path=_PATH)
    if blkid is None or size_bytes <= 0:
        return VolumeContent()
    with tempfile.TemporaryDirectory(prefix="fleetcast-") as directory:
        volume = Path(directory) / "volume"
        _copy_ends(read, offset_bytes, size_bytes, volume)
        try:
            said = subprocess.run(
                [blkid, "-p", "-o", "export", volume],
                capture_output=True,
                timeout=_SECONDS,
                check=False,
                env={"LC_ALL": "C.UTF-8"},
            )
        except subprocess.TimeoutExpired:
            _logger.warning("blkid did not end within %g s: the file system of a volume stays unknown", _SECONDS)
            return VolumeContent()
    fields = dict(line.split("=", 1) for line in said.stdout.decode(errors="replace").splitlines() if "=" in line)
    return VolumeContent(fields.get("TYPE", ""), _ESCAPED.sub(r"\1", fields.get("LABEL", "")))


def _copy_ends(read: Read, offset_bytes: int, size_bytes: int, volume: Path) -> None:
    """Writes a sparse file of the volume's size that holds what blkid looks at."""
    head = read(offset_bytes, min(_HEAD_BYTES, size_bytes))
    with volume.open("wb") as file:
        file.truncate(size_bytes)
        file.write(head)
        if size_bytes > len(head):
            start = max(size_bytes - _TAIL_BYTES, len(head))
            file.seek(start)
            file.write(read(offset_bytes + start, size_bytes - start))
        if head[3:11] == b"NTFS    ":
            # Where the master file table begins: without it blkid does not believe that this is NTFS.
            sector_bytes, cluster_sectors = struct.unpack_from("<HB", head, 11)
            cluster_sectors = 1 << 256 - cluster_sectors if cluster_sectors > 0x80 else cluster_sectors
            (cluster,) = struct.unpack_from("<Q", head, 48)
            start = cluster * cluster_sectors * sector_bytes
            if len(head) <= start < size_bytes:
                file.seek(start)
                file.write(read(offset_bytes + start, min(_MFT_BYTES, size_bytes - start)))
