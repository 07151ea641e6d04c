from __future__ import annotations

import pytest
from fleetcast_agent.sequence.disks.disk_images.roles import Facts, system
from fleetcast_agent.sequence.disks.tables.model import Existing, Table

MIB = 1 << 20
ESP, MSR = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B", "E3C9E316-0B5C-4DB8-817D-F92DF00215AE"
BASIC, RECOVERY = "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7", "DE94BBA4-06D1-4D40-A16A-BFD50179D6AC"
LINUX, LINUX_ROOT = "0FC63DAF-8483-4772-8E79-3D69D8477DE4", "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709"
SWAP, LVM = "0657FD6D-A4AB-43C4-84E5-0933C84B4F4F", "E6D6D379-F507-44C2-A23C-238F2A3DF928"


def table(*types: str, required: tuple[int, ...] = ()) -> Table:
    """Returns a table of partitions of these types, each larger than the one before."""
    found, start = [], MIB
    for number, kind in enumerate(types, 1):
        found.append(Existing(number, start, number * 8 * MIB, f"{number}", kind, required=number in required))
        start += number * 8 * MIB
    return Table("gpt", 512, tuple(found))


NTFS, EXT4 = Facts("ntfs"), Facts("ext4")
WINDOWS, DEBIAN = Facts("ntfs", content="windows"), Facts("ext4", content="linux")


@pytest.mark.parametrize(
    ("types", "facts", "chosen"),
    [
        ((ESP, MSR, BASIC, RECOVERY), [Facts("vfat"), Facts(), WINDOWS, NTFS], 3),
        ((ESP, MSR, BASIC, RECOVERY), [Facts("vfat"), Facts(), NTFS, Facts("ntfs", content="recovery")], 3),
        ((ESP, BASIC, BASIC), [Facts("vfat"), WINDOWS, Facts("ntfs", "Data")], 2),
        ((ESP, BASIC, BASIC), [Facts("vfat"), NTFS, Facts("ntfs", "Recovery")], 2),
        ((ESP, LINUX, SWAP), [Facts("vfat"), EXT4, Facts("swap")], 2),
        ((ESP, LINUX, LINUX), [Facts("vfat"), Facts("ext4", content="boot"), EXT4], 3),
        ((ESP, LINUX, LINUX), [Facts("vfat"), DEBIAN, Facts("xfs")], 2),
        ((ESP, LINUX_ROOT, LINUX), [Facts("vfat"), EXT4, EXT4], 2),
        ((ESP, LINUX_ROOT, LINUX), [Facts("vfat"), EXT4, DEBIAN], 3),
        ((ESP, LINUX, LVM), [Facts("vfat"), Facts("ext4", content="boot"), Facts("LVM2_member")], 3),
        ((ESP, LINUX, LVM), [Facts("vfat"), EXT4, Facts("LVM2_member", content="linux")], 3),
        (("27", "7"), [Facts("ntfs", content="recovery"), WINDOWS], 2),
        (("7", "7"), [Facts("ntfs", "System Reserved"), Facts("ntfs", "Windows")], 2),
        (("7", "7"), [Facts("ntfs", content="boot"), NTFS], 2),
        (("12", "7"), [NTFS, NTFS], 2),
        ((ESP, LINUX), [Facts("vfat"), Facts("crypto_LUKS")], 2),
    ],
)
def test_the_system_is_told_by_what_partitions_are(types: tuple[str, ...], facts: list[Facts], chosen: int) -> None:
    choice = system(table(*types), dict(enumerate(facts, 1)))
    assert choice.partition is not None
    assert choice.partition.number == chosen


def test_a_partition_that_its_maker_marked_is_not_taken_for_windows() -> None:
    choice = system(table(ESP, BASIC, BASIC, required=(3,)), dict(enumerate([Facts("vfat"), NTFS, NTFS], 1)))
    assert choice.partition is not None
    assert choice.partition.number == 2


def test_two_that_could_be_meant_are_both_named() -> None:
    choice = system(table(ESP, LINUX, LINUX), dict(enumerate([Facts("vfat"), DEBIAN, DEBIAN], 1)))
    assert choice.partition is None
    assert [rival.number for rival in choice.rivals] == [2, 3]


def test_where_nothing_can_be_a_system_none_is_chosen() -> None:
    choice = system(table(ESP, SWAP, MSR), dict(enumerate([Facts("vfat"), Facts("swap"), Facts()], 1)))
    assert (choice.partition, choice.rivals) == (None, ())
