"""What is inside an image, as far as it was found out when it was imported. Fields as in the API's ImageContents."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import IntEnum
from typing import Any


class ContentKind(IntEnum):
    """What an image is to a machine; the numbers are those of the API."""

    UNKNOWN = 0
    """Nobody has looked."""
    DISK = 1
    """A whole disk, with a partition table."""
    VOLUME = 2
    """One volume: a file system without a partition table around it."""
    WINDOWS_IMAGES = 3
    """A WIM or ESD file: files that are applied to a volume."""
    FILE = 4
    """Any other file: no partition table and no file system are in it."""


@dataclass(frozen=True)
class Partition:
    """One partition of an image."""

    number: int
    """As Linux counts: logical ones from 5."""
    type_id: str
    """GUID in capitals, or MBR type such as `0x07`."""
    type_name: str
    """What it is for, for people; empty if the type is not known."""
    name: str
    """Its name in a GPT."""
    offset_bytes: int
    size_bytes: int
    used_bytes: int = 0
    """Size of the chunks in it that are not zero."""
    filesystem: str = ""
    """What its content is, as blkid calls it: `ntfs`, `ext4`, `BitLocker`, `LVM2_member`; empty if nothing is known."""
    label: str = ""


@dataclass(frozen=True)
class ImageContents:
    """What is inside an image."""

    kind: ContentKind = ContentKind.UNKNOWN
    partition_table: str = ""
    """`gpt` or `mbr`; empty if there is none."""
    sector_size_bytes: int = 0
    """Size of the sectors of the disk that it was made for; 0 if nothing tells."""
    used_bytes: int = 0
    """Size of the chunks that are not zero."""
    partitions: tuple[Partition, ...] = ()
    filesystem: str = ""
    """Of an image that is one volume."""
    label: str = ""
    """Of an image that is one volume."""

    def plain(self) -> dict[str, Any]:
        """Returns it as JSON can say it."""
        return asdict(self)

    @classmethod
    def of(cls, plain: dict[str, Any]) -> ImageContents:
        """Returns what `plain` said."""
        partitions = tuple(Partition(**partition) for partition in plain["partitions"])
        return cls(**plain | {"kind": ContentKind(plain["kind"]), "partitions": partitions})


NOT_LOOKED_INTO = ImageContents()
"""What is known of an image into which nobody has looked."""
