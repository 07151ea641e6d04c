"""Which partition holds the system: told by what partitions are and hold, never by their size or place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from fleetcast_sequence.quantities import format_size

from fleetcast_agent.sequence.disks.tables.model import Existing, Table

Content = Literal["linux", "windows", "boot", "recovery", ""]
"""What the files of a volume are: a system, what starts one, Windows' recovery, or nothing that is known."""

LVM_TYPES = ("E6D6D379-F507-44C2-A23C-238F2A3DF928", "8E")
_LINUX_ROOT = {
    "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709": "x86-64",
    "44479540-F297-41B2-9AF7-D131D5F0458A": "x86",
    "B921B045-1DF0-41C3-AF44-4C6F280D3FAE": "arm64",
    "69DAD710-2CE4-4E3C-B16C-21A1D49ABED3": "arm",
    "72EC70A6-CF74-40E6-BD49-4BDA08E8F224": "riscv64",
    "993D8D3D-F80E-4225-855A-9DAF8ED7EA97": "ia64",
    "C31C45E6-3F39-412E-80FB-4809C4980599": "ppc64le",
    "5EEAD9A9-FE09-4A1E-A1D7-520D00531306": "s390x",
}
_GENERAL = (
    "0FC63DAF-8483-4772-8E79-3D69D8477DE4",  # Linux
    "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7",  # Windows, and Linux of long ago
    "CA7D7CCB-63ED-4C53-861C-1742536059CC",  # encrypted by LUKS
    *LVM_TYPES,
    "7",
    "83",
    "E8",
)
"""Types of what may be a system."""
_NEVER = {
    "C12A7328-F81F-11D2-BA4B-00A0C93EC93B": "EFI system partition",
    "E3C9E316-0B5C-4DB8-817D-F92DF00215AE": "Microsoft's reserved partition",
    "21686148-6449-6E6F-744E-656564454649": "BIOS boot partition",
    "9E1A2D38-C612-4316-AA26-8B49521E5A8B": "PReP boot partition",
    "DE94BBA4-06D1-4D40-A16A-BFD50179D6AC": "recovery partition",
    "0657FD6D-A4AB-43C4-84E5-0933C84B4F4F": "swap",
    "BC13C2FF-59E6-4262-A352-B275FD6F7172": "boot partition",
    "933AC7E1-2EB4-4F13-B844-0E14E2AEF915": "home partition",
    "3B8F8425-20E0-4F3B-907F-1A25A76F98E8": "partition for services' data",
    "4D21B016-B534-45C2-A9FB-5C16E091FD2D": "partition for variable data",
    "7EC6F557-3BC5-4ACA-B293-16EF5DF639D1": "partition for temporary data",
    "EF": "EFI system partition",
    "27": "recovery partition",
    "82": "swap",
    "12": "partition of the machine's maker",
    "84": "hibernation partition",
    "DE": "partition of the machine's maker",
    "FE": "partition of the machine's maker",
    "D3BFE2DE-3DAF-11DF-BA40-E3A556D89593": "hibernation partition",
    "BFBFAFE7-A34F-448A-9A5B-6213EB736C22": "partition of the machine's maker",
    "F4019732-066E-4E12-8273-346C5641494F": "partition of the machine's maker",
}
"""Types of what is never the system."""
_FIXED = ("21686148-6449-6E6F-744E-656564454649", "9E1A2D38-C612-4316-AA26-8B49521E5A8B")
"""Types of what the bootloader finds by its place, so that it cannot be moved."""
_SYSTEM_NAMES = ("root", "rootfs", "cloudimg-rootfs", "system", "windows", "os", "/")
_OTHER_NAMES = ("boot", "efi", "recovery", "winre", "winretools", "system reserved", "home", "data", "swap")
_VOLUME_KINDS = ("ext2", "ext3", "ext4", "xfs", "btrfs", "ntfs", "LVM2_member", "crypto_LUKS", "BitLocker", "f2fs")
"""What a system may be on, as blkid calls it."""


@dataclass(frozen=True)
class Facts:
    """What was found on a volume."""

    filesystem: str = ""
    """As blkid calls it; empty if it knows none."""
    label: str = ""
    uuid: str = ""
    content: Content = ""


@dataclass(frozen=True)
class Choice:
    """The partition that holds the system, or why none could be chosen."""

    partition: Existing | None
    rivals: tuple[Existing, ...] = ()
    """Those that could be meant alike."""


def may_hold_system(partition: Existing) -> bool:
    """Returns whether a partition can be the system by its type; what it holds may still say no."""
    return not partition.extended and partition.type not in _NEVER


def system(table: Table, facts: Mapping[int, Facts]) -> Choice:
    """Returns the partition with the system; `facts` are by the numbers of the partitions."""
    ranks: dict[int, list[Existing]] = {}
    for partition in table.volumes:
        rank = _rank(partition, facts.get(partition.number, Facts()))
        if rank:
            ranks.setdefault(rank, []).append(partition)
    if not ranks:
        return Choice(None)
    best = ranks[max(ranks)]
    return Choice(best[0]) if len(best) == 1 else Choice(None, tuple(best))


def best_volume(facts: Mapping[str, Facts]) -> list[str]:
    """Returns the names of the volumes of a volume group that may hold the system: one, or all that could be meant."""
    ranks: dict[int, list[str]] = {}
    for name, found in facts.items():
        rank = _rank_of(found, (name.lower(), found.label.lower()), general=True, linux_root=False)
        if rank:
            ranks.setdefault(rank, []).append(name)
    return ranks[max(ranks)] if ranks else []


def is_recovery(partition: Existing, facts: Facts) -> bool:
    """Returns whether a partition is Windows' recovery partition."""
    return _NEVER.get(partition.type) == "recovery partition" or facts.content == "recovery"


def is_fixed(partition: Existing) -> bool:
    """Returns whether a partition must stay where it is."""
    return partition.type in _FIXED


def named(partition: Existing, facts: Facts | None = None) -> str:
    """Returns the partition as a person knows it."""
    about = _NEVER.get(partition.type) or (facts.filesystem if facts else "") or "partition"
    label = (facts.label if facts else "") or partition.name
    words = f"{about} {label!r}" if label else about
    return f"partition {partition.number} ({words}, {format_size(partition.size_bytes)})"


def _rank(partition: Existing, facts: Facts) -> int:
    if not may_hold_system(partition):
        return 0
    names = (partition.name.lower(), facts.label.lower())
    general = partition.type in _GENERAL and not partition.required
    return _rank_of(facts, names, general=general, linux_root=partition.type in _LINUX_ROOT)


def _rank_of(facts: Facts, names: tuple[str, ...], *, general: bool, linux_root: bool) -> int:
    """Returns how much says that a volume is the system: 0 is nothing, or something that says no."""
    if facts.content in ("linux", "windows"):
        return 6 if linux_root else 5
    if facts.content or facts.filesystem not in _VOLUME_KINDS:
        return 0
    if linux_root:
        return 4
    if not general:
        return 0
    if any(name in _SYSTEM_NAMES for name in names):
        return 3
    return 1 if any(name in _OTHER_NAMES for name in names) else 2
