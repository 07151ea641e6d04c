"""Packages as their makers and vendors ship them, on their way onto a Windows volume."""

from __future__ import annotations

import os
import shutil
import tarfile
from pathlib import Path

import pytest
from fleetcast_agent.sequence.disks import volumes
from fleetcast_agent.sequence.engine.records import Outcome

from tests.support.sequences import MIB, Rehearsal, needs_disks, tool
from tests.unit.agent.sequence.content.test_unpacking import of_windows

pytestmark = needs_disks

OLD = "partition-disk: {partitions: [{name: windows, type: windows, filesystem: ntfs, label: Windows}]}"
DRIVERS = "apply-driver-package: {volume: 'label:Windows', packages: [{package: pack}]}"
INF = b'[Version]\r\nSignature="$WINDOWS NT$"\r\n'


@pytest.fixture
async def machine(tmp_path: Path) -> Rehearsal:
    machine = Rehearsal(tmp_path, 100 * MIB)
    outcome = await machine.steps(OLD, "copy-files: {volume: windows, destination: Windows/x, content: x}")
    assert outcome.outcome is Outcome.SUCCEEDED, outcome
    return machine


async def drivers(machine: Rehearsal) -> set[str]:
    context = machine.context()
    async with volumes.mounted(context, await volumes.find(context, "label:Windows"), read_only=True) as root:
        found = (Path(directory, name) for directory, _, names in os.walk(root / "Drivers") for name in names)
        return {path.relative_to(root / "Drivers").as_posix() for path in found}


async def test_drivers_that_windows_packed_keep_their_directories(machine: Rehearsal) -> None:
    (machine.content / "pack").write_bytes(of_windows({"net\\e1d\\E1D.INF": INF, "chipset\\heci.inf": INF}))
    outcome = await machine.steps(DRIVERS)
    assert outcome.outcome is Outcome.SUCCEEDED, outcome
    assert await drivers(machine) == {"net/e1d/E1D.INF", "chipset/heci.inf"}


@pytest.mark.skipif(not shutil.which("gcab") or not shutil.which("cabextract"), reason="gcab and cabextract are needed")
async def test_a_cabinet_of_drivers_is_unpacked(machine: Rehearsal, tmp_path: Path) -> None:
    (tmp_path / "e1d.inf").write_bytes(INF)
    (tmp_path / "e1d.sys").write_bytes(os.urandom(200_000))
    tool("gcab", "-c", "-n", machine.content / "pack", tmp_path / "e1d.inf", tmp_path / "e1d.sys")
    outcome = await machine.steps(DRIVERS)
    assert outcome.outcome is Outcome.SUCCEEDED, outcome
    assert await drivers(machine) == {"e1d.inf", "e1d.sys"}


@pytest.mark.skipif(not shutil.which("gcab") or not shutil.which("cabextract"), reason="gcab and cabextract are needed")
async def test_a_damaged_cabinet_is_refused(machine: Rehearsal, tmp_path: Path) -> None:
    (tmp_path / "e1d.inf").write_bytes(INF + os.urandom(100_000))
    tool("gcab", "-c", "-n", machine.content / "pack", tmp_path / "e1d.inf")
    with (machine.content / "pack").open("r+b") as file:
        file.truncate(50_000)
    outcome = await machine.steps(DRIVERS)
    assert outcome.outcome is Outcome.FAILED
    assert "the package pack cannot be unpacked: cabextract" in outcome.message


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"MZ" + bytes(1000), "is a Windows program (EXE), not an archive of drivers: unpack it as its vendor says"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "is a Windows Installer package (MSI), not an archive of drivers"),
        (b"7z\xbc\xaf\x27\x1c", "is a 7-Zip archive, not an archive of drivers: unpack it"),
        (b"<!DOCTYPE html><html>", "is a page of HTML"),
        (b"text", "is no archive"),
    ],
)
async def test_what_is_no_archive_of_drivers_is_named(machine: Rehearsal, content: bytes, reason: str) -> None:
    (machine.content / "pack").write_bytes(content)
    outcome = await machine.steps(DRIVERS)
    assert reason in outcome.message


async def test_names_that_clash_on_windows_are_refused_before_anything_is_copied(
    machine: Rehearsal, tmp_path: Path
) -> None:
    for name in ("Net/Driver.inf", "net/driver.inf", "other.inf"):
        (tmp_path / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "source" / name).write_bytes(INF)
    with tarfile.open(machine.content / "pack", "w") as archive:
        archive.add(tmp_path / "source", ".")
    outcome = await machine.steps(DRIVERS)
    assert outcome.outcome is Outcome.FAILED
    assert "'Drivers/Net/Driver.inf' and 'Drivers/net/driver.inf' differ only in case" in outcome.message
    assert await drivers(machine) == set()


async def test_files_without_room_are_refused_before_anything_is_copied(machine: Rehearsal, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    for number in range(12):
        (tmp_path / "source" / str(number)).write_bytes(bytes(10 * MIB))
    outcome = await machine.steps(
        f"copy-files: {{volume: 'label:Windows', source: '{tmp_path}/source', destination: D}}"
    )
    assert "the files have 120 MiB, and the volume has" in outcome.message
    assert await drivers(machine) == set()


async def test_a_link_that_would_be_left_out_is_refused(machine: Rehearsal, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source/gone").symlink_to("nowhere")
    outcome = await machine.steps(
        f"copy-files: {{volume: 'label:Windows', source: '{tmp_path}/source', destination: D}}"
    )
    assert "gone in" in outcome.message
    assert "a link to a directory, or to nothing" in outcome.message
