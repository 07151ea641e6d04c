"""Images whose system is on a logical volume or in a subvolume of btrfs, with the real tools."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from fleetcast_agent.sequence.disks import loops
from fleetcast_agent.sequence.engine.records import Outcome

from tests.support.disk_images import (
    DiskFile,
    Part,
    VolumeGroup,
    about,
    attached,
    make_disk,
    make_file_system,
    mounted,
    put_system,
    tree_digest,
)
from tests.support.sequences import MIB, Rehearsal, needs_disks, tool

pytestmark = [
    *needs_disks,
    pytest.mark.skipif(shutil.which("pvs") is None, reason="LVM is not installed: apt-get install lvm2"),
    pytest.mark.skipif(shutil.which("mkfs.btrfs") is None, reason="btrfs-progs is not installed"),
]

APPLY = "apply-operating-system: {image: golden, disk: system, root: root}"
MARK = "copy-files: {volume: root, destination: /etc/marker.txt, content: hello}"
ESP = Part("esp", 10, "vfat", label="EFI")


@pytest.fixture
def machine(tmp_path: Path) -> Rehearsal:
    return Rehearsal(tmp_path, 500 * MIB)


@contextlib.contextmanager
def group(disk: DiskFile, number: int) -> Iterator[VolumeGroup]:
    with disk.partition(number) as device:
        yield VolumeGroup.on(device)


@contextlib.contextmanager
def logical(disk: DiskFile, number: int, name: str) -> Iterator[str]:
    """Yields a block device that is a logical volume in one part."""
    with group(disk, number) as found:
        begin, size = found.place(name)
    with attached(disk.path, disk.places()[number][0] + begin, size, disk.sector_bytes) as device:
        yield device


def put(disk: DiskFile, number: int, name: str, part: Part) -> None:
    with logical(disk, number, name) as device:
        make_file_system(device, part, disk.path.parent)


@pytest.mark.parametrize("table", ["gpt", "mbr"])
@pytest.mark.parametrize("order", [("root", "swap_1"), ("swap_1", "root"), ("root", "swap_1", "swap_2")])
async def test_root_on_a_volume_group_grows_with_group_and_partition(
    machine: Rehearsal, table: str, order: tuple[str, ...]
) -> None:
    # As Debian's installer lays it out on BIOS: the group in a logical partition.
    parts = [Part("linux", 24, "ext4", "boot"), Part("lvm", 120, logical=table == "mbr")]
    golden = make_disk(machine.content / "golden", 150, parts, table=table)
    number = 5 if table == "mbr" else 2
    with golden.partition(number) as device:
        made = VolumeGroup(device, "pc-vg")
        for name in order:
            made.add(name, 60 if name == "root" else 16)
    put(golden, number, "root", Part("", 0, "ext4", "linux", "root"))
    swaps = {}
    for name in order:
        if name != "root":
            put(golden, number, name, Part("", 0, "swap", label=name))
            with logical(golden, number, name) as device:
                swaps[name] = about(device)["UUID"]
    outcome = await machine.steps(APPLY, MARK)
    assert outcome.outcome is Outcome.SUCCEEDED, outcome
    assert outcome.remarks == (), outcome
    disk = DiskFile(machine.disk)
    with logical(disk, number, "root") as device, mounted(device, machine.directory) as root:
        assert (root / "etc/marker.txt").read_text() == "hello"
        assert shutil.disk_usage(root).total > 380 * MIB
    for name, uuid in swaps.items():
        with logical(disk, number, name) as device:
            assert (about(device)["TYPE"], about(device)["UUID"], about(device)["LABEL"]) == ("swap", uuid, name)
    with group(disk, number) as found:
        assert found.rows()[0]["vg_free_count"] == "0"


async def test_a_volume_behind_root_stays_whole_and_what_did_not_grow_is_said(machine: Rehearsal) -> None:
    golden = make_disk(machine.content / "golden", 150, [ESP, Part("lvm", 130)])
    with golden.partition(2) as device:
        made = VolumeGroup(device, "vg")
        made.add("root", 60)
        made.add("home", 40)
    put(golden, 2, "root", Part("", 0, "ext4", "linux"))
    put(golden, 2, "home", Part("", 0, "ext4", "data"))
    with logical(golden, 2, "home") as device, mounted(device, machine.directory) as root:
        home = tree_digest(root)
    outcome = await machine.steps(APPLY, MARK)
    assert outcome.outcome is Outcome.SUCCEEDED, outcome
    disk = DiskFile(machine.disk)
    with logical(disk, 2, "home") as device, mounted(device, machine.directory) as root:
        assert tree_digest(root) == home
    if not loops.has_device_mapper():
        (remark,) = outcome.remarks
        assert "home stands behind it in the volume group vg, and this kernel has no device mapper" in remark.text
        with logical(disk, 2, "root") as device, mounted(device, machine.directory) as root:
            assert (root / "etc/marker.txt").read_text() == "hello"


async def test_a_thin_root_is_named_and_nothing_is_written_into_another_volume(machine: Rehearsal) -> None:
    golden = make_disk(machine.content / "golden", 150, [ESP, Part("lvm", 130)])
    with golden.partition(2) as device:
        made = VolumeGroup(device, "vg")
        made.add("data", 40)
    put(golden, 2, "data", Part("", 0, "swap"))
    outcome = await machine.steps(APPLY)
    assert "of the logical volumes on partition 2, none holds a system that is known" in outcome.message


SUBVOLUMES = {
    "ubuntu": ({"@": "/", "@home": "/home"}, ""),
    "debian": ({"@rootfs": "/"}, ""),
    "fedora": ({"root": "/", "home": "/home"}, ""),
    "opensuse": ({"@/.snapshots/1/snapshot": "/", "@/var": "/var", "@/home": "/home"}, "@/.snapshots/1/snapshot"),
    "plain": ({"": "/"}, ""),
}


@pytest.mark.parametrize("layout", list(SUBVOLUMES))
async def test_root_on_btrfs_grows_and_steps_write_where_the_system_looks(machine: Rehearsal, layout: str) -> None:
    golden = make_disk(machine.content / "golden", 150, [ESP, Part("linux", 120, "btrfs", label="linux")])
    subvolumes, default = SUBVOLUMES[layout]
    with golden.partition(2) as device, mounted(device, machine.directory) as top:
        uuid = about(device)["UUID"]
        for name in subvolumes:
            if name:
                (top / name).parent.mkdir(parents=True, exist_ok=True)
                if not (top / name.split("/")[0]).exists() and "/" in name:
                    tool("btrfs", "subvolume", "create", top / name.split("/")[0])
                tool("btrfs", "subvolume", "create", top / name)
        root = top / next(iter(subvolumes))
        put_system(root, "linux")
        (root / "etc/fstab").write_text(
            "".join(
                f"UUID={uuid} {place} btrfs {'defaults' if default and place == '/' else f'subvol=/{name}'} 0 0\n"
                for name, place in subvolumes.items()
            )
        )
        if default:
            tool("btrfs", "subvolume", "set-default", root)
    places = [place for place in subvolumes.values() if place != "/"]
    marks = [f"copy-files: {{volume: root, destination: {place}/marker.txt, content: hello}}" for place in places]
    outcome = await machine.steps(APPLY, MARK, *marks)
    assert outcome.outcome is Outcome.SUCCEEDED, outcome
    assert outcome.remarks == (), outcome
    disk = DiskFile(machine.disk)
    with disk.partition(2) as device:
        point = machine.directory / "top"
        point.mkdir()
        tool("mount", "-o", "ro,subvolid=5", device, point)
        try:
            for name, place in subvolumes.items():
                inside = "etc/marker.txt" if place == "/" else "marker.txt"
                assert (point / name / inside).read_text() == "hello"
            assert shutil.disk_usage(point).total > 480 * MIB
        finally:
            tool("umount", point)
