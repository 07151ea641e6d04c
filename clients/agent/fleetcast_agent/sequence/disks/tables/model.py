"""What a partition table says, whatever its kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

EXTENDED_TYPES = ("5", "F", "85")
"""MBR types of the one partition that holds the logical ones."""


class DamagedTableError(Exception):
    """There is a table, and it cannot be understood; the message says what is wrong with it."""


@dataclass(frozen=True)
class Existing:
    """A partition on a disk."""

    number: int
    start_bytes: int
    size_bytes: int
    guid: str
    """Its GUID in a GPT, upper case; disk identifier and number in an MBR table."""
    type: str = ""
    """Its type GUID in a GPT, upper case; its hexadecimal type in an MBR table."""
    name: str = ""
    """Its name in a GPT."""
    link_bytes: int = 0
    """Where the record is that a logical partition of an MBR table has before it; 0 if it is none."""
    active: bool = False
    """Marked to start from, in an MBR table."""
    required: bool = False
    """Marked in a GPT as belonging to the machine, not to the system: partitions of its maker are."""

    @property
    def end_bytes(self) -> int:
        """Where it ends: the place behind its last byte."""
        return self.start_bytes + self.size_bytes

    @property
    def extended(self) -> bool:
        """Whether it only holds logical partitions."""
        return self.type in EXTENDED_TYPES

    @property
    def logical(self) -> bool:
        """Whether it is inside an extended partition."""
        return self.link_bytes > 0


@dataclass(frozen=True)
class Table:
    """A partition table."""

    kind: Literal["gpt", "mbr"]
    sector_bytes: int
    """Of the disk that it was written for."""
    partitions: tuple[Existing, ...]
    """By their place, the extended one included."""
    hybrid: bool = False
    """A GPT whose partitions are in an MBR table too."""

    @property
    def volumes(self) -> tuple[Existing, ...]:
        """Partitions that can hold something: all but the extended one."""
        return tuple(partition for partition in self.partitions if not partition.extended)

    @property
    def extended(self) -> Existing | None:
        """The extended partition, if there is one."""
        return next((partition for partition in self.partitions if partition.extended), None)


Places = Mapping[int, tuple[int, int]]
"""New begin and size in bytes of partitions, by their numbers."""
