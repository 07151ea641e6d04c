"""Steps that cut disks into volumes and give volumes file systems."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from fleetcast_sequence.model import SequenceModel
from fleetcast_sequence.quantities import SizeBytes, parse_size

FileSystem = Literal["ntfs", "fat32", "ext4", "xfs", "swap"]
VolumeName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,30}$")]
"""How later steps call a partition."""

PARTITION_TYPES: dict[str, tuple[str, str]] = {
    "esp": ("C12A7328-F81F-11D2-BA4B-00A0C93EC93B", "ef"),
    "msr": ("E3C9E316-0B5C-4DB8-817D-F92DF00215AE", ""),
    "windows": ("EBD0A0A2-B9E5-4433-87C0-68B6B72699C7", "7"),
    "recovery": ("DE94BBA4-06D1-4D40-A16A-BFD50179D6AC", "27"),
    "linux": ("0FC63DAF-8483-4772-8E79-3D69D8477DE4", "83"),
    "linux-root": ("4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709", "83"),
    "swap": ("0657FD6D-A4AB-43C4-84E5-0933C84B4F4F", "82"),
    "bios-boot": ("21686148-6449-6E6F-744E-656564454649", ""),
}
"""GPT type and MBR type of the partition types by name; an empty one does not exist in that table."""


class Partition(SequenceModel):
    """One partition of a table."""

    name: VolumeName = Field(description="How later steps call this volume.")
    type: str = Field(
        default="linux",
        description=f"{', '.join(f'`{name}`' for name in PARTITION_TYPES)}, a GUID, or an MBR type like `0x83`.",
    )
    size: SizeBytes | str = Field(
        default="rest", description="Such as `300MiB`, `40%` of the disk, or `rest` for one of them."
    )
    filesystem: FileSystem | None = Field(default=None, description="Formatted with it at once.")
    label: Annotated[str, Field(max_length=32)] = Field(default="", description="Label of the file system.")
    active: bool = Field(default=False, description="Marked to start from, in an MBR table.")

    @field_validator("type")
    @classmethod
    def _known_type(cls, value: str) -> str:
        guid = re.fullmatch(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}", value)
        if value not in PARTITION_TYPES and not guid and not re.fullmatch(r"0x[0-9A-Fa-f]{1,2}", value):
            raise ValueError(f"{value!r} is no partition type: use one of {', '.join(PARTITION_TYPES)}, a GUID or 0xNN")
        return value

    @field_validator("size")
    @classmethod
    def _readable_size(cls, value: int | str) -> int | str:
        if isinstance(value, str) and value != "rest" and not re.fullmatch(r"\d{1,2}(\.\d+)?%", value):
            return parse_size(value)
        return value


class PartitionDisk(SequenceModel):
    """Erases a disk and writes a new partition table. Refuses a disk that is in use, started from, or protected."""

    disk: str = Field(
        default="system",
        description="`system` (the machine's disk; an error if several qualify), `serial:…`, or a device's path.",
    )
    layout: Literal["uefi-windows", "uefi-linux", "bios", "bios-windows"] | None = Field(
        default=None, description="A ready table."
    )
    table: Literal["gpt", "mbr"] = Field(default="gpt", description="Kind of table, with `partitions`.")
    partitions: list[Partition] = Field(default=[], description="Your own table, in the order on the disk.")
    protect: list[str] = Field(default=[], description="Disks that must not be touched, written like `disk`.")

    @model_validator(mode="after")
    def _table_is_whole(self) -> PartitionDisk:
        if bool(self.layout) == bool(self.partitions):
            raise ValueError("give either `layout` or `partitions`")
        names = [partition.name for partition in self.partitions]
        if len(set(names)) < len(names):
            raise ValueError("two partitions have the same name")
        if sum(partition.size == "rest" for partition in self.partitions) > 1:
            raise ValueError("only one partition can have the size `rest`")
        if self.table == "mbr" and len(names) > 4:
            raise ValueError("an MBR table holds four partitions")
        column = 0 if self.table == "gpt" else 1
        for partition in self.partitions:
            if partition.type in PARTITION_TYPES and not PARTITION_TYPES[partition.type][column]:
                raise ValueError(f"the type {partition.type} does not exist in a table of the kind {self.table}")
        return self


class FormatVolume(SequenceModel):
    """Makes a new file system on a volume, or empties one but for what is kept."""

    volume: str = Field(
        description="A volume named by `partition-disk`, a label like `label:Data`, or a device's path."
    )
    filesystem: FileSystem | None = Field(default=None, description="The file system to make.")
    label: Annotated[str, Field(max_length=32)] = Field(default="", description="Its label.")
    keep: list[str] = Field(
        default=[],
        description="In place of `filesystem`: delete everything but these directories at the top of the volume.",
    )

    @model_validator(mode="after")
    def _one_way(self) -> FormatVolume:
        if bool(self.filesystem) == bool(self.keep):
            raise ValueError("give either `filesystem` or `keep`")
        return self


LAYOUTS: dict[str, PartitionDisk] = {
    "uefi-windows": PartitionDisk(
        table="gpt",
        partitions=[
            Partition(name="efi", type="esp", size=300 << 20, filesystem="fat32", label="System"),
            Partition(name="msr", type="msr", size=16 << 20),
            Partition(name="windows", type="windows", size="rest", filesystem="ntfs", label="Windows"),
            Partition(name="recovery", type="recovery", size=1000 << 20, filesystem="ntfs", label="Recovery"),
        ],
    ),
    "uefi-linux": PartitionDisk(
        table="gpt",
        partitions=[
            Partition(name="efi", type="esp", size=512 << 20, filesystem="fat32", label="EFI"),
            Partition(name="root", type="linux-root", size="rest", filesystem="ext4", label="root"),
        ],
    ),
    "bios": PartitionDisk(
        table="mbr",
        partitions=[Partition(name="root", type="linux", filesystem="ext4", label="root", active=True)],
    ),
    "bios-windows": PartitionDisk(
        table="mbr",
        partitions=[
            Partition(
                name="system", type="windows", size=500 << 20, filesystem="ntfs", label="System Reserved", active=True
            ),
            Partition(name="windows", type="windows", size="rest", filesystem="ntfs", label="Windows"),
        ],
    ),
}
"""The ready tables."""
