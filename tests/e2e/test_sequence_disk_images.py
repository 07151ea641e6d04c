"""Images of whole disks on disks of other sizes and pasts, with the real tools."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from fleetcast_agent.sequence.engine.interface import SequenceOutcome
from fleetcast_agent.sequence.engine.records import Outcome

from tests.support.disk_images import (
    DiskFile,
    Part,
    about,
    attached,
    bytes_per_sector,
    hidden_sectors,
    make_disk,
    mounted,
    numbers,
    put_raid_member,
    tree_digest,
    whole,
)
from tests.support.sequences import MIB, Rehearsal, needs_disks, tool

pytestmark = needs_disks

APPLY = "apply-operating-system: {image: golden, disk: system, root: root}"
MARK = "copy-files: {volume: root, destination: /marker.txt, content: hello}"
ESP = Part("esp", 10, "vfat", label="EFI")
WINDOWS = Part("windows", 40, "ntfs", "windows", "Windows")
ROOT = Part("linux", 40, "ext4", "linux", "root")
SWAP = Part("swap", 12, "swap", label="swap")


def image(machine: Rehearsal, parts: Sequence[Part], *, table: str = "gpt", sector_bytes: int = 512) -> DiskFile:
    size = 3 + sum(part.size_mib + part.logical for part in parts)
    return make_disk(machine.content / "golden", size, parts, table=table, sector_bytes=sector_bytes)


async def applied(machine: Rehearsal, *steps: str) -> DiskFile:
    outcome = await machine.steps(APPLY, *steps)
    assert outcome.outcome is Outcome.SUCCEEDED, outcome
    assert outcome.remarks == (), outcome
    return DiskFile(machine.disk)


def sentences(outcome: SequenceOutcome) -> str:
    return " ".join(remark.text for remark in outcome.remarks)


def check_table(disk: DiskFile) -> None:
    with whole(disk.path, disk.sector_bytes) as device:
        assert "No errors detected" in tool("sfdisk", "--verify", device)
        if disk.table()["label"] == "gpt":
            assert "No problems found" in tool("sgdisk", "--verify", device)


@pytest.fixture
def machine(tmp_path: Path) -> Rehearsal:
    return Rehearsal(tmp_path, 300 * MIB)


async def test_a_recovery_partition_at_the_end_is_moved_and_windows_grows(machine: Rehearsal) -> None:
    parts = [ESP, Part("msr", 4), WINDOWS, Part("recovery", 20, "ntfs", "data", "Recovery")]
    golden = image(machine, parts)
    with golden.partition(3) as device, mounted(device, machine.directory) as root:
        registration = root / "Windows/System32/Recovery/ReAgent.xml"
        registration.parent.mkdir()
        old = golden.places()[4][0]
        registration.write_text(f'<WinreLocation path="\\Recovery" id="0" offset="{old}" guid="{{1}}"/>')
    with golden.files(4) as root:
        recovery = tree_digest(root)
    before = golden.table()["partitions"]
    disk = await applied(machine, MARK)
    check_table(disk)
    after = disk.table()["partitions"]
    for entry, was in zip(after, before, strict=True):
        assert {**entry, "start": 0, "size": 0, "node": ""} == {**was, "start": 0, "size": 0, "node": ""}
    assert [entry["start"] for entry in after[:3]] == [entry["start"] for entry in before[:3]]
    assert after[2]["size"] * 512 > 250 * MIB - 60 * MIB
    assert after[3]["size"] == before[3]["size"]
    with disk.files(3) as root:
        assert (root / "marker.txt").read_text() == "hello"
        assert f'offset="{disk.places()[4][0]}"' in (root / "Windows/System32/Recovery/ReAgent.xml").read_text()
        assert shutil.disk_usage(root).total > 180 * MIB
    with disk.files(4) as root:
        assert tree_digest(root) == recovery
    with disk.partition(4) as device:
        assert hidden_sectors(device) == after[3]["start"]


async def test_swap_at_the_end_is_made_anew_and_keeps_its_names(machine: Rehearsal) -> None:
    golden = image(machine, [ESP, ROOT, SWAP])
    before = golden.about(3)
    disk = await applied(machine, MARK)
    check_table(disk)
    assert disk.about(3)["UUID"] == before["UUID"]
    assert disk.about(3)["LABEL"] == "swap"
    with disk.files(2) as root:
        assert (root / "marker.txt").read_text() == "hello"
        assert shutil.disk_usage(root).total > 240 * MIB


@pytest.mark.parametrize(
    ("table", "parts", "root"),
    [
        ("gpt", [ESP, Part("linux", 24, "ext4", "boot"), Part("linux", 40, "ext4", "linux")], 3),
        ("gpt", [ESP, ROOT, Part("linux", 90, "ext4", "data", "data")], 2),
        ("gpt", [Part("bios", 2), ROOT, Part("home", 60, "ext4", "data")], 2),
        ("gpt", [Part("linux", 110, "btrfs", "linux"), Part("linux", 20, "ext4", "data")], 1),
        ("gpt", [ESP, Part("linux-root", 30, "ext4"), Part("linux", 80, "ext4", "data")], 2),
        ("gpt", [ESP, Part("msr", 4), WINDOWS, Part("windows", 80, "ntfs", "data", "Data")], 3),
        ("gpt", [ESP, WINDOWS, Part("recovery", 10, "ntfs"), Part("maker", 8, "vfat", label="OEM")], 2),
        ("gpt", [WINDOWS, ESP], 1),
        ("mbr", [Part("windows", 10, "ntfs", label="System Reserved"), WINDOWS, Part("recovery", 10, "ntfs")], 2),
        ("mbr", [Part("linux", 12, "ext4", "boot"), ROOT, SWAP, Part("linux", 20, "ext4", "data")], 2),
        ("mbr", [ROOT, Part("swap", 12, "swap", logical=True)], 1),
        ("mbr", [ROOT, Part("linux", 30, "ext4", "data", logical=True), Part("swap", 12, "swap", logical=True)], 1),
        ("mbr", [Part("linux", 12, "ext4", "boot"), Part("linux", 40, "ext4", "linux", logical=True)], 5),
        (
            "mbr",
            [
                Part("linux", 12, "ext4", "boot"),
                Part("swap", 8, "swap", logical=True),
                Part("linux", 40, "ext4", "linux", logical=True),
                Part("linux", 16, "ext4", "data", logical=True),
                Part("windows", 12, "ntfs", "data"),
            ],
            6,
        ),
    ],
)
async def test_the_system_grows_and_its_neighbours_stay_whole(
    tmp_path: Path, table: str, parts: list[Part], root: int
) -> None:
    sector_bytes = 4096 if len(parts) % 2 else 512
    machine = Rehearsal(tmp_path, 400 * MIB)
    golden = image(machine, parts, table=table, sector_bytes=sector_bytes)
    known = numbers(parts, table)
    before = {number: _known(golden, number, part) for number, part in known.items() if part.filesystem}
    with whole(machine.disk, sector_bytes) as device:
        outcome = await machine.on(Path(device)).steps(APPLY, MARK)
        assert outcome.outcome is Outcome.SUCCEEDED, outcome
        assert outcome.remarks == (), outcome
    disk = DiskFile(machine.disk, sector_bytes)
    check_table(disk)
    with disk.files(root) as files:
        assert (files / "marker.txt").read_text() == "hello"
        room = 400 - sum(part.size_mib + 2 * part.logical for number, part in known.items() if number != root)
        assert shutil.disk_usage(files).total > (room - 12) * 0.9 * MIB - 12 * MIB
    after = {number: _known(disk, number, part) for number, part in known.items() if part.filesystem}
    assert {**after, root: 0} == {**before, root: 0}
    assert after[root][:2] == before[root][:2]


def _known(disk: DiskFile, number: int, part: Part) -> tuple[str, ...]:
    found = disk.about(number)
    if part.filesystem == "swap":
        return found["TYPE"], found["UUID"]
    if part.filesystem == "vfat":
        return found["TYPE"], found["UUID"], found.get("LABEL", "")
    with disk.files(number) as root:
        return found["TYPE"], found["UUID"], tree_digest(root)


async def test_what_a_disk_was_before_does_not_keep_the_system_from_growing(machine: Rehearsal) -> None:
    image(machine, [ESP, ROOT])
    old = make_disk(machine.disk, 300, [Part("esp", 10, "vfat"), Part("raid", 287)])
    put_raid_member(machine.disk, *_region(old, 2), "1.0")
    put_raid_member(machine.disk, 0, 300 * MIB, "0.90")
    assert old.about(2)["TYPE"] == "linux_raid_member"
    disk = await applied(machine, MARK)
    check_table(disk)
    assert disk.about(2)["TYPE"] == "ext4"
    with disk.files(2) as root:
        assert shutil.disk_usage(root).total > 260 * MIB
    with whole(machine.disk) as device:
        assert tool("wipefs", "--noheadings", "--output", "TYPE", device).split() == ["gpt", "gpt", "PMBR"]


async def test_an_old_volume_group_and_old_file_systems_are_gone_from_what_the_image_does_not_cover(
    machine: Rehearsal,
) -> None:
    image(machine, [ESP, ROOT], table="mbr")
    old = make_disk(machine.disk, 300, [Part("linux", 60, "ext4"), Part("lvm", 120), Part("swap", 60, "swap")])
    places = old.places()
    with old.partition(2) as device:
        tool(
            "pvcreate",
            "--driverloaded",
            "n",
            "--nolocking",
            "--config",
            f'devices{{filter=["a|^{device}$|","r|.*|"]}}',
            device,
        )
        assert about(device)["TYPE"] == "LVM2_member"
    outcome = await machine.steps("apply-operating-system: {image: golden, disk: system, grow: false}")
    assert outcome.outcome is Outcome.SUCCEEDED, outcome
    with whole(machine.disk) as device:
        assert tool("wipefs", "--noheadings", "--output", "TYPE", device).split() == ["dos"]
    for start, size in (places[2], places[3]):
        with attached(machine.disk, start, size) as device:
            assert about(device) == {}


def _region(disk: DiskFile, number: int) -> tuple[int, int]:
    start, size = disk.places()[number]
    return start, start + size


@pytest.mark.parametrize(("image_bytes", "disk_bytes"), [(512, 4096), (4096, 512)])
@pytest.mark.parametrize("table", ["gpt", "mbr"])
async def test_an_image_for_other_sectors_is_refused_before_the_first_byte(
    machine: Rehearsal, image_bytes: int, disk_bytes: int, table: str
) -> None:
    image(machine, [Part("linux", 20, "ext4", "linux"), ROOT], table=table, sector_bytes=image_bytes)
    with whole(machine.disk, disk_bytes) as device:
        outcome = await machine.on(Path(device)).steps("apply-operating-system: {image: golden, disk: system}")
    assert f"made from a disk with sectors of {image_bytes} bytes" in outcome.message
    assert f"has sectors of {disk_bytes}" in outcome.message
    assert machine.disk.stat().st_blocks == 0


async def test_an_image_without_a_partition_for_a_system_is_refused_before_the_first_byte(machine: Rehearsal) -> None:
    image(machine, [ESP, SWAP])
    outcome = await machine.steps(APPLY)
    assert "has no partition that could be 'root': it has partition 1 (EFI system partition" in outcome.message
    assert machine.disk.stat().st_blocks == 0


async def test_an_image_without_a_table_is_refused_before_the_first_byte_where_a_volume_shall_have_a_name(
    machine: Rehearsal,
) -> None:
    (machine.content / "golden").write_bytes(bytes(8 * MIB))
    outcome = await machine.steps(APPLY)
    assert "has no partition table, so there is no volume to call 'root'" in outcome.message
    assert machine.disk.stat().st_blocks == 0


async def test_an_image_with_a_damaged_table_is_refused_before_the_first_byte(machine: Rehearsal) -> None:
    golden = image(machine, [ESP, ROOT])
    content = bytearray(golden.path.read_bytes())
    content[1024 + 32] ^= 1  # where the first partition begins, as its checksum does not have it
    golden.path.write_bytes(content)
    outcome = await machine.steps(APPLY)
    assert "golden is damaged: the partition table (GPT) at its beginning is damaged" in outcome.message
    assert machine.disk.stat().st_blocks == 0


async def test_the_beginning_of_an_image_is_refused_before_the_first_byte(machine: Rehearsal) -> None:
    golden = image(machine, [ESP, Part("linux", 400, "ext4", "linux")])
    with golden.path.open("r+b") as file:
        file.truncate(64 * MIB)
    outcome = await machine.steps(APPLY)
    assert "is only a part of an image: it has partitions up to" in outcome.message
    assert machine.disk.stat().st_blocks == 0


async def test_of_two_systems_none_is_taken_for_the_other(machine: Rehearsal) -> None:
    image(machine, [ESP, Part("linux", 20, "ext4", "linux", "one"), Part("linux", 20, "ext4", "linux", "two")])
    outcome = await machine.steps(APPLY)
    assert "several partitions that may be the system: partition 2 (ext4 'one', 20 MiB), partition 3" in outcome.message
    outcome = await machine.steps(
        "apply-operating-system: {image: golden, disk: system}",
        "copy-files: {volume: 'label:two', destination: /marker.txt, content: hello}",
    )
    assert outcome.outcome is Outcome.SUCCEEDED, outcome
    assert "nothing was grown: golden has several partitions that may be the system" in sentences(outcome)


async def test_what_cannot_grow_is_said_in_the_outcome(machine: Rehearsal) -> None:
    golden = image(machine, [Part("linux", 40, "ext4", "linux", "root"), Part("bios", 2)])
    outcome = await machine.steps(APPLY, MARK)
    assert outcome.outcome is Outcome.SUCCEEDED, outcome
    assert "BIOS boot partition" in sentences(outcome)
    assert DiskFile(machine.disk).places() == golden.places()
    with golden.partition(1) as device:
        tool(
            "cryptsetup",
            "luksFormat",
            "--batch-mode",
            "--pbkdf",
            "pbkdf2",
            "--pbkdf-force-iterations",
            "1000",
            device,
            "/etc/hostname",
        )
    outcome = await machine.steps("apply-operating-system: {image: golden, disk: system}")
    assert outcome.outcome is Outcome.SUCCEEDED, outcome


async def test_each_file_system_is_made_for_the_sectors_of_its_disk(tmp_path: Path) -> None:
    machine = Rehearsal(tmp_path, 1600 * MIB)
    volumes_wanted = "\n".join(
        f"{{name: {name}, type: {kind}, size: {size}MiB, filesystem: {filesystem}, label: {name}}},"
        for name, kind, size, filesystem in (
            ("efi", "esp", 300, "fat32"),
            ("windows", "windows", 200, "ntfs"),
            ("root", "linux-root", 200, "ext4"),
            ("data", "linux", 320, "xfs"),
            ("swap", "swap", 100, "swap"),
        )
    )
    with whole(machine.disk, 4096) as device:
        outcome = await machine.on(Path(device)).steps(
            f"partition-disk: {{partitions: [{' '.join(volumes_wanted.split())}]}}",
            "copy-files: {volume: efi, destination: /EFI/BOOT/a.txt, content: a}",
            "copy-files: {volume: data, destination: /a.txt, content: a}",
        )
        assert outcome.outcome is Outcome.SUCCEEDED, outcome
    disk = DiskFile(machine.disk, 4096)
    check_table(disk)
    for number in (1, 2):
        with disk.partition(number) as device:
            assert bytes_per_sector(device) == 4096
    for number in (2, 3, 4):  # through a loop of 4096: with smaller sectors the kernel refuses XFS
        with disk.files(number):
            pass
    assert disk.about(5)["TYPE"] == "swap"
    with disk.partition(1) as device:
        assert tool("mtype", "-i", device, "::/EFI/BOOT/a.txt") == "a"
        assert tool("fsck.fat", "-n", device)


async def test_bios_is_not_promised_to_start_from_sectors_of_4096_bytes(machine: Rehearsal) -> None:
    with whole(machine.disk, 4096) as device:
        outcome = await machine.on(Path(device)).steps(
            "partition-disk: {layout: bios}",
            "copy-files: {volume: root, destination: /boot/vmlinuz-6.1, content: kernel}",
            "copy-files: {volume: root, destination: /etc/fstab, content: ''}",
            "configure-boot: {volume: root}",
        )
    assert "BIOS starts only from sectors of 512" in outcome.message


async def test_errors_name_the_path_on_the_volume(machine: Rehearsal) -> None:
    outcome = await machine.steps(
        "partition-disk: {layout: bios}",
        "copy-files: {volume: root, destination: /etc/motd, content: a}",
        "copy-files: {volume: root, destination: /etc/motd/deeper, content: a}",
    )
    assert outcome.message.startswith("/etc/motd")


@pytest.mark.parametrize("way", ["by-id", "by-path", "by-uuid-of-a-link", "mapper"])
async def test_a_disk_is_the_same_by_every_name_that_udev_gives_it(machine: Rehearsal, way: str) -> None:
    image(machine, [ESP, ROOT, SWAP])
    directory = machine.directory / "dev/disk" / way
    directory.mkdir(parents=True)
    names = {"by-id": "nvme-Samsung_SSD_980_S64", "by-path": "pci-0000:00:17.0-ata-1", "mapper": "mpatha"}
    with whole(machine.disk) as device:
        link = directory / names.get(way, "disk1")
        link.symlink_to(device)
        outcome = await machine.on(link).steps(APPLY, MARK)
        assert outcome.outcome is Outcome.SUCCEEDED, outcome
        outcome = await machine.steps("partition-disk: {layout: bios}", MARK)
        assert outcome.outcome is Outcome.SUCCEEDED, outcome


@pytest.mark.parametrize("filesystem", ["vfat", "ntfs", "ext4"])
async def test_an_image_of_a_volume_for_other_sectors_is_refused_before_the_first_byte(
    machine: Rehearsal, filesystem: str
) -> None:
    golden = image(machine, [Part("linux", 20, filesystem)])
    start, size = golden.places()[1]
    content = golden.path.read_bytes()[start : start + size]
    golden.path.write_bytes(content)
    table = "partition-disk: {partitions: [{name: data}]}"
    apply = "apply-data-image: {image: golden, volume: data}"
    with whole(machine.disk, 4096) as device:
        outcome = await machine.on(Path(device)).steps(table, apply)
    assert "and the disk has sectors of 4096: it could not be used there" in outcome.message
    assert DiskFile(machine.disk, 4096).about(1) == {}
    with whole(machine.disk) as device:
        assert (await machine.on(Path(device)).steps(table, apply)).outcome is Outcome.SUCCEEDED
