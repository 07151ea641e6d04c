"""Users' files that a mount hides or shows in part come through a refresh whole, or the refresh does not begin."""

from __future__ import annotations

import os
import struct
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from fleetcast_agent.sequence.disks import volumes
from fleetcast_agent.sequence.engine.records import Outcome
from fleetcast_agent.sequence.ntfs.file_records import NtfsVolume
from fleetcast_agent.sequence.ntfs.forms import REPARSE_POINT

from tests.support.sequences import MIB, Rehearsal, needs_disks, tool

pytestmark = needs_disks

REPARSE = "system.ntfs_reparse_data"
CLOUD, SYSTEM_COMPRESSED, DEDUPLICATED, APP_LINK = 0x9000701A, 0x80000017, 0x80000013, 0x8000001B
OLD = "partition-disk: {partitions: [{name: windows, type: windows, filesystem: ntfs, label: Windows}]}"
SAVE = "capture-user-state: {volume: 'label:Windows', paths: ['Users/*'], store: kept}"
ERASE = "format-volume: {volume: 'label:Windows', keep: [kept]}"
RESTORE = "restore-user-state: {volume: 'label:Windows', store: kept, delete_store: true}"


def reparse(path: Path, tag: int, data: bytes = bytes(8)) -> None:
    os.setxattr(path, REPARSE, struct.pack("<IHH", tag, len(data), 0) + data)


@asynccontextmanager
async def windows(machine: Rehearsal, **options: Any) -> AsyncIterator[Path]:
    """Yields where the volume of the machine is mounted."""
    context = machine.context()
    async with volumes.mounted(context, await volumes.find(context, "label:Windows"), **options) as root:
        yield root


async def used_machine(tmp_path: Path, fill: Callable[[Path], None], *, size_mib: int = 120) -> Rehearsal:
    """Returns a machine with a profile that `fill` has filled."""
    machine = Rehearsal(tmp_path, size_mib * MIB)
    outcome = await machine.steps(OLD)
    assert outcome.outcome is Outcome.SUCCEEDED, outcome
    async with windows(machine) as root:
        (root / "Users/anna").mkdir(parents=True)
        fill(root / "Users/anna")
    return machine


async def on_the_volume(machine: Rehearsal) -> dict[str, Any]:
    """Returns everything below Users by the volume's records: kind, streams with their content, reparse data."""
    context = machine.context()
    place = await volumes.find(context, "label:Windows")
    found: dict[str, Any] = {}
    with place.backing.open("rb") as disk:
        volume = NtfsVolume(disk, place.start_bytes)

        def walk(number: int, path: str) -> None:
            record = volume.record(number)
            assert record is not None
            point = record.find(REPARSE_POINT)
            found[path] = (
                record.is_directory,
                {name: volume.content(stream) for name, stream in record.streams.items()},
                volume.content(point) if point is not None else None,
                len([name for name in record.names if not name.is_short]),
                volume.security_descriptor(record),
            )
            if record.is_directory:
                for name, child in volume.children(record).items():
                    walk(child, f"{path}/{name}")

        top = volume.record(5)
        assert top is not None
        walk(volume.children(top)["Users"], "Users")
    found.pop("Users")
    return found


def cloud_folder(home: Path) -> None:
    """Makes what OneDrive leaves: folders and files are reparse points, their content is on the disk."""
    folder = home / "OneDrive - Example"
    (folder / "Reports/2024").mkdir(parents=True)
    (folder / "letter.docx").write_bytes(os.urandom(5_000))
    (folder / "Reports/budget.xlsx").write_bytes(os.urandom(300_000))
    (folder / "Reports/2024/größe.txt").write_bytes(b"short")
    os.setxattr(folder / "letter.docx", "user.Zone.Identifier", b"[ZoneTransfer]\r\nZoneId=3\r\n")
    os.link(folder / "letter.docx", folder / "second name.docx")
    with (folder / "online only.iso").open("wb") as file:
        file.truncate(60 * MIB)
    for path in (
        *(path for path in folder.rglob("*") if path.is_file() and path.name != "second name.docx"),
        folder / "Reports/2024",
        folder / "Reports",
        folder,
    ):
        reparse(path, CLOUD)
    # The link to the program that opens them: a reparse point without any content.
    (home / "winget.exe").touch()
    reparse(home / "winget.exe", APP_LINK)


def system_compressed(home: Path) -> None:
    """Makes a file as `compact /exe` leaves it: a hole of the file's size, the content in a stream."""
    with (home / "tool.exe").open("wb") as file:
        file.truncate(400_000)
    os.setxattr(home / "tool.exe", "user.WofCompressedData", os.urandom(60_000))
    reparse(home / "tool.exe", SYSTEM_COMPRESSED, struct.pack("<IIII", 1, 2, 1, 0))


def compressed_by_ntfs(home: Path) -> None:
    """Makes a cloud file in a directory that NTFS compresses: text, noise, a hole, and text again."""
    folder = home / "Compressed"
    folder.mkdir()
    attributes = int.from_bytes(os.getxattr(folder, "system.ntfs_attrib"), "little") | 0x800
    os.setxattr(folder, "system.ntfs_attrib", attributes.to_bytes(4, "little"))
    words = b"".join(b"%d bottles of beer on the wall\r\n" % number for number in range(9_000))
    (folder / "text").write_bytes(words + os.urandom(150_000) + bytes(200_000) + words[:12_345])
    reparse(folder / "text", CLOUD)


@pytest.mark.parametrize("fill", [cloud_folder, system_compressed, compressed_by_ntfs])
async def test_what_is_behind_reparse_points_comes_back(tmp_path: Path, fill: Callable[[Path], None]) -> None:
    machine = await used_machine(tmp_path, fill)
    before = await on_the_volume(machine)
    outcome = await machine.steps(SAVE, ERASE, RESTORE)
    assert outcome.outcome is Outcome.SUCCEEDED, outcome
    assert await on_the_volume(machine) == before
    remarks = " ".join(remark.text for remark in outcome.remarks)
    assert ("of 1 of the saved files the content is only with the cloud" in remarks) == (fill is cloud_folder)


async def test_a_restore_that_is_repeated_over_its_own_result_gives_the_same(tmp_path: Path) -> None:
    machine = await used_machine(tmp_path, cloud_folder)
    before = await on_the_volume(machine)
    again = RESTORE.replace(", delete_store: true", "")
    outcome = await machine.steps(SAVE, ERASE, again, again)
    assert outcome.outcome is Outcome.SUCCEEDED, outcome
    assert await on_the_volume(machine) == before


async def test_a_named_stream_longer_than_an_extended_attribute_comes_back(tmp_path: Path) -> None:
    machine = await used_machine(tmp_path, lambda home: None)
    async with windows(machine, streams="windows") as root:
        home = root / "Users/anna"
        (home / "photo.jpg").write_bytes(os.urandom(10_000))
        (home / "photo.jpg:thumbnail").write_bytes(os.urandom(700_000))
        (home / "photo.jpg:Zone.Identifier").write_bytes(b"[ZoneTransfer]\r\nZoneId=3\r\n")
        (home.parent / "anna:notes on a folder").write_bytes(os.urandom(70_000))
    before = await on_the_volume(machine)
    assert len(before["Users/anna/photo.jpg"][1]["thumbnail"]) == 700_000
    outcome = await machine.steps(SAVE, ERASE, RESTORE)
    assert outcome.outcome is Outcome.SUCCEEDED, outcome
    assert await on_the_volume(machine) == before


async def test_a_profile_with_thousands_of_files_comes_back(tmp_path: Path) -> None:
    def fill(home: Path) -> None:
        for number in range(6_000):
            (home / f"a file with a name of some length, number {number}").write_text(str(number))

    machine = await used_machine(tmp_path, fill)
    before = await on_the_volume(machine)
    outcome = await machine.steps(SAVE, ERASE, RESTORE)
    assert outcome.outcome is Outcome.SUCCEEDED, outcome
    assert await on_the_volume(machine) == before


async def test_files_whose_content_is_kept_elsewhere_are_refused_before_anything_is_erased(tmp_path: Path) -> None:
    def fill(home: Path) -> None:
        with (home / "film.mkv").open("wb") as file:
            file.truncate(300_000)
        reparse(home / "film.mkv", DEDUPLICATED)

    machine = await used_machine(tmp_path, fill)
    before = await on_the_volume(machine)
    outcome = await machine.steps(SAVE, ERASE)
    assert (outcome.outcome, outcome.step) == (Outcome.FAILED, "capture-user-state")
    assert "data deduplication" in outcome.message
    assert "/Users/anna/film.mkv" in outcome.message
    assert await on_the_volume(machine) == before


async def test_files_that_windows_encrypted_are_refused_by_name_unless_left_out(tmp_path: Path) -> None:
    machine = await used_machine(tmp_path, lambda home: (home / "plain.txt").write_text("plain"))  # type: ignore[arg-type]
    context = machine.context()
    async with volumes.attached(context, await volumes.find(context, "label:Windows")) as device:
        encrypt(device, "Users/anna/salary.xlsx")
    outcome = await machine.steps(SAVE, ERASE)
    assert (outcome.outcome, outcome.step) == (Outcome.FAILED, "capture-user-state")
    assert "encrypted 1 file with" in outcome.message
    assert "(EFS)" in outcome.message
    assert "/Users/anna/salary.xlsx" in outcome.message
    outcome = await machine.steps(SAVE.replace("store:", "exclude: ['*/SALARY.*'], store:"))
    assert outcome.outcome is Outcome.SUCCEEDED, outcome


def encrypt(device: Path, name: str) -> None:
    """Makes a file as EFS leaves it: ciphertext in multiples of 512 with the size of its padding, and its key."""
    point = Path(tempfile.mkdtemp())
    tool("ntfs-3g", "-o", "efs_raw,streams_interface=xattr", device, point)
    try:
        (point / name).write_bytes(os.urandom(8192) + struct.pack("<H", 100))
        information = bytearray(512)
        struct.pack_into("<IIII", information, 0, 512, 0, 2, 0)
        os.setxattr(point / name, "system.ntfs_efsinfo", bytes(information))
    finally:
        tool("umount", point)
        point.rmdir()
