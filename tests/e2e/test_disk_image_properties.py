"""Any image of a disk on any disk: a system that is the right one, grown, whole; or a refusal before the first byte."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from fleetcast_agent.sequence.engine.interface import SequenceOutcome
from fleetcast_agent.sequence.engine.records import Outcome
from hypothesis import given, note, settings
from hypothesis import strategies as st

from tests.support.disk_images import (
    DiskFile,
    Part,
    about,
    attached,
    make_disk,
    numbers,
    put_raid_member,
    tree_digest,
    whole,
)
from tests.support.examples import examples
from tests.support.sequences import MIB, Rehearsal, needs_disks, tool

pytestmark = [*needs_disks, pytest.mark.skipif(shutil.which("sgdisk") is None, reason="sgdisk is not installed")]

SEQUENCE = (
    "apply-operating-system: {image: golden, disk: system, root: root}",
    "copy-files: {volume: root, destination: /marker.txt, content: hello}",
)

BEFORE = {
    "gpt": [
        Part("esp", 8, "vfat", label="EFI"),
        Part("msr", 4),
        Part("bios", 2),
        Part("linux", 12, "ext4", "boot"),
        Part("maker", 6, "vfat"),
        Part("swap", 5, "swap"),
        Part("linux", 9, "ext4", "data"),
    ],
    "mbr": [Part("windows", 8, "ntfs", "data"), Part("linux", 12, "ext4", "boot"), Part("swap", 5, "swap")],
}
BEHIND = {
    "gpt": [
        Part("recovery", 9, "ntfs", "data", "Recovery"),
        Part("swap", 7, "swap", label="swapspace"),
        Part("linux", 60, "ext4", "data", "data"),
        Part("home", 11, "ext4", "data"),
        Part("windows", 50, "ntfs", "data", "Data"),
        Part("maker", 5, "vfat", label="OEM"),
        Part("esp", 8, "vfat"),
        Part("raid", 5),
        Part("bios", 1),
    ],
    "mbr": [
        Part("recovery", 9, "ntfs", "data"),
        Part("swap", 7, "swap", label="swapspace"),
        Part("linux", 60, "ext4", "data", "data"),
        Part("maker", 5, "vfat"),
    ],
}
ROOTS = [
    Part("linux", 24, "ext4", "linux"),
    Part("linux-root", 24, "ext4", "linux", "root"),
    Part("windows", 30, "ntfs", "windows"),
    Part("linux", 260, "btrfs", "linux"),
    Part("linux-root", 24, "ext4", label="root"),
    Part("windows", 24, "ntfs", label="Windows"),
]
PASTS = ["", "raid-1.0", "raid-0.90", "raid-1.1", "gpt", "pv", "swap", "zfs", "mbr"]


@dataclass(frozen=True)
class Case:
    """An image and a disk."""

    table: str
    parts: tuple[Part, ...]
    root: int
    """Which of the parts is the system."""
    image_sector: int
    disk_sector: int
    past: str
    more_mib: int
    """By how much the disk is larger than the image."""


@st.composite
def cases(draw: st.DrawFn) -> Case:
    table = draw(st.sampled_from(["gpt", "gpt", "mbr"]))
    room = 6 if table == "gpt" else 2
    before = draw(st.lists(st.sampled_from(BEFORE[table]), max_size=room - 1, unique=True))
    behind = draw(st.lists(st.sampled_from(BEHIND[table]), max_size=room - len(before), unique=True))
    parts = [*before, draw(st.sampled_from(ROOTS)), *behind]
    if table == "mbr" and draw(st.booleans()):
        logical_from = draw(st.integers(0, len(parts) - 1))
        parts = [replace(part, logical=index >= logical_from) for index, part in enumerate(parts)]
    image_sector = draw(st.sampled_from([512, 512, 4096]))
    disk_sector = draw(st.sampled_from([image_sector, image_sector, image_sector, 4608 - image_sector]))
    more_mib = draw(st.sampled_from([0, 1, 30, 200]))
    return Case(table, tuple(parts), len(before), image_sector, disk_sector, draw(st.sampled_from(PASTS)), more_mib)


def make_past(path: Path, past: str, sector_bytes: int) -> None:
    """Gives the disk what another owner left on it."""
    end = path.stat().st_size
    if past in ("gpt", "mbr", "pv", "swap"):
        kind = {"pv": "lvm", "swap": "swap"}.get(past, "linux")
        size = end // MIB - 30
        parts = [Part("linux", 20, "ext4", "data", "old"), Part(kind, size, "swap" if past == "swap" else "")]
        old = make_disk(path, end // MIB, parts, table="mbr" if past == "mbr" else "gpt", sector_bytes=sector_bytes)
        put_raid_member(path, old.places()[2][0], sum(old.places()[2]), "1.0")
        if past == "pv":
            with old.partition(2) as device:
                subprocess.run(["wipefs", "-qaf", device], check=True)
                tool("pvcreate", "--driverloaded", "n", "--nolocking", "-ff", "-y", "--config", _only(device), device)
    elif past.startswith("raid"):
        put_raid_member(path, 0, end, past.removeprefix("raid-"))
    elif past == "zfs":
        with path.open("r+b") as file:  # four labels of 256 KiB with uberblocks, two at each end
            for label in (0, 256 << 10, end - (512 << 10), end - (256 << 10)):
                for block in range(128 << 10, 256 << 10, 1024):
                    file.seek(label + block)
                    file.write((0x00BAB10C).to_bytes(8, "little") + (5000).to_bytes(8, "little"))


def _only(device: str) -> str:
    return f'devices {{ filter=["a|^{device}$|","r|.*|"] use_devicesfile=0 }}'


def digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@settings(max_examples=examples(8))
@given(cases())
def test_an_image_becomes_the_right_system_or_is_refused_before_the_first_byte(case: Case) -> None:
    with tempfile.TemporaryDirectory() as directory:
        check(case, Path(directory))


def check(case: Case, directory: Path) -> None:
    image_mib = 3 + sum(part.size_mib + part.logical for part in case.parts)
    machine = Rehearsal(directory, (image_mib + case.more_mib) * MIB)
    golden = make_disk(
        machine.content / "golden", image_mib, case.parts, table=case.table, sector_bytes=case.image_sector
    )
    make_past(machine.disk, case.past, case.disk_sector)
    before = digest_of(machine.disk)
    known = numbers(case.parts, case.table)
    was = {number: look(golden, number, part) for number, part in known.items()}
    with whole(machine.disk, case.disk_sector) as device:
        outcome = asyncio.run(machine.on(Path(device)).steps(*SEQUENCE))
    note(f"{outcome} {machine.log}")
    if case.image_sector != case.disk_sector:
        assert f"sectors of {case.image_sector} bytes" in outcome.message
        assert digest_of(machine.disk) == before
        return
    assert outcome.outcome is Outcome.SUCCEEDED, outcome
    disk = DiskFile(machine.disk, case.disk_sector)
    root = next(number for number, part in known.items() if part is case.parts[case.root])
    check_whole(disk, case)
    places, old_places = disk.places(), golden.places()
    with disk.files(root) as files:
        assert (files / "marker.txt").read_text() == "hello"
        size = shutil.disk_usage(files).total
    grown = places[root][1] - old_places[root][1]
    behind = case.parts[case.root + 1 :]
    worth = case.more_mib > 16 or not behind
    if any(part.kind == "bios" for part in behind):
        assert ("BIOS boot partition" in remarks(outcome)) == worth
        assert grown == 0
    else:
        assert remarks(outcome) == ""
        assert grown >= (case.more_mib - 4) * MIB if worth else grown == 0
        assert size > places[root][1] * 0.8 - 8 * MIB
    for number, part in known.items():
        now = look(disk, number, part)
        if number == root:
            assert now[:3] == was[number][:3]
        else:
            assert now == was[number], (number, part)
            assert places[number][1] == old_places[number][1]


def remarks(outcome: SequenceOutcome) -> str:
    return " ".join(remark.text for remark in outcome.remarks)


def check_whole(disk: DiskFile, case: Case) -> None:
    """Asserts that the table is sound, and that nothing on the disk is taken for what it was before."""
    with whole(disk.path, disk.sector_bytes) as device:
        assert "No errors detected" in tool("sfdisk", "--verify", device)
        kinds = tool("wipefs", "--noheadings", "--output", "TYPE", device).split()
        if case.table == "gpt":
            assert "No problems found" in tool("sgdisk", "--verify", device)
            assert kinds == ["gpt", "gpt", "PMBR"]
        else:
            assert kinds == ["dos"]
    table = disk.table()
    assert [entry["type"] for entry in table["partitions"]]


def look(disk: DiskFile, number: int, part: Part) -> tuple[str, ...]:
    """Returns what must stay: kind, UUID and label of the file system, and what is in its files."""
    start, size = disk.places()[number]
    with attached(disk.path, start, size, disk.sector_bytes) as device:
        found = about(device)
        names = tuple(found.get(key, "") for key in ("TYPE", "UUID", "LABEL"))
        if not part.filesystem:
            return (*names, digest_of(Path(device)))
    if part.filesystem in ("swap", "vfat"):
        return names
    with disk.files(number) as root:
        return (*names, tree_digest(root))
