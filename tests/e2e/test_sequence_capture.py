"""Images are made of whole volumes alone: what would be missing is said by name before anything is made."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest
from fleetcast_agent.sequence.disks import volumes
from fleetcast_agent.sequence.engine.records import Outcome

from tests.e2e.test_sequence_hidden_files import (
    OLD,
    cloud_folder,
    encrypt,
    system_compressed,
    used_machine,
    windows,
)
from tests.support.sequences import Rehearsal, needs_disks, tool

pytestmark = needs_disks

CAPTURE = "capture-image: {volume: 'label:Windows', image: golden}"
RAW = "capture-image: {volume: 'label:Windows', image: golden, format: raw}"
SAVE = "capture-user-state: {volume: 'label:Windows', paths: ['Users/*'], store: kept}"


def names_in(wim: Path) -> set[str]:
    return set(tool("wimlib-imagex", "dir", wim, "1").splitlines())


async def test_files_that_windows_encrypted_are_named_unless_left_out(tmp_path: Path) -> None:
    machine = await used_machine(tmp_path, lambda home: (home / "plain").mkdir())
    context = machine.context()
    async with volumes.attached(context, await volumes.find(context, "label:Windows")) as device:
        encrypt(device, "Users/anna/salary.xlsx")
    outcome = await machine.steps(CAPTURE)
    assert outcome.outcome is Outcome.FAILED
    assert "Windows has encrypted /Users/anna/salary.xlsx (7.9 KiB) (EFS)" in outcome.message
    assert not (machine.content / "golden").exists()
    outcome = await machine.steps(CAPTURE.replace("golden", "golden, exclude: [salary.xlsx]"))
    assert outcome.outcome is Outcome.SUCCEEDED, outcome
    assert "/Users/anna/plain" in names_in(machine.content / "golden")


async def test_a_cloud_folder_is_named_and_can_be_left_out(tmp_path: Path) -> None:
    machine = await used_machine(tmp_path, cloud_folder)
    outcome = await machine.steps(CAPTURE)
    assert outcome.outcome is Outcome.FAILED
    assert "a WIM would not hold /Users/anna/OneDrive - Example" in outcome.message
    outcome = await machine.steps(CAPTURE.replace("golden", "golden, exclude: ['/Users/*/OneDrive*']"))
    assert outcome.outcome is Outcome.SUCCEEDED, outcome
    assert "/Users/anna/winget.exe" in names_in(machine.content / "golden")


async def test_what_windows_compressed_and_empty_reparse_points_are_captured(tmp_path: Path) -> None:
    machine = await used_machine(tmp_path, system_compressed)
    outcome = await machine.steps(CAPTURE, "apply-operating-system: {image: golden, volume: 'label:Windows'}")
    assert outcome.outcome is Outcome.SUCCEEDED, outcome
    async with windows(machine) as root:
        os.removexattr(root / "Users/anna/tool.exe", "system.ntfs_reparse_data", follow_symlinks=False)
    async with windows(machine) as root:
        assert (root / "Users/anna/tool.exe").stat().st_size == 400_000
        assert len(os.getxattr(root / "Users/anna/tool.exe", "user.WofCompressedData")) == 60_000


async def test_files_of_one_machine_alone_are_no_part_of_an_image(tmp_path: Path) -> None:
    machine = await used_machine(tmp_path, lambda home: (home / "pagefile.sys").touch())
    async with windows(machine) as root:
        for name in ("PAGEFILE.SYS", "swapfile.sys", "hiberfil.sys"):
            (root / name).write_bytes(bytes(100_000))
        (root / "System Volume Information").mkdir()
        (root / "System Volume Information/tracking.log").touch()
        (root / "$Recycle.Bin").mkdir()
    outcome = await machine.steps(CAPTURE.replace("golden", "golden, spool: 'label:Windows'"))
    assert outcome.outcome is Outcome.SUCCEEDED, outcome
    assert names_in(machine.content / "golden") == {"/", "/Users", "/Users/anna", "/Users/anna/pagefile.sys"}


@pytest.mark.parametrize("step", [CAPTURE, RAW, SAVE])
async def test_a_hibernated_windows_is_not_copied(tmp_path: Path, step: str) -> None:
    machine = await used_machine(tmp_path, lambda home: None)
    async with windows(machine) as root:
        (root / "hiberfil.sys").write_bytes(b"HIBR" + bytes(8188))
    outcome = await machine.steps(step)
    assert outcome.outcome is Outcome.FAILED
    assert "Windows on it is hibernated" in outcome.message
    assert "shutdown /s /t 0" in outcome.message


@pytest.mark.parametrize("step", [CAPTURE, RAW, SAVE])
async def test_a_windows_that_was_not_shut_down_is_not_copied(tmp_path: Path, step: str) -> None:
    machine = await used_machine(tmp_path, lambda home: None)
    context = machine.context()
    async with volumes.attached(context, await volumes.find(context, "label:Windows")) as device:
        set_dirty(device)
    outcome = await machine.steps(step)
    assert outcome.outcome is Outcome.FAILED
    assert "chkdsk /f" in outcome.message


async def test_a_disk_encrypted_by_bitlocker_is_not_copied(tmp_path: Path) -> None:
    machine = await used_machine(tmp_path, lambda home: None)
    context = machine.context()
    async with volumes.attached(context, await volumes.find(context, "label:Windows")) as device:
        with device.open("r+b") as file:
            # What blkid knows BitLocker by: its name in the place of NTFS', and its identifier.
            file.seek(3)
            file.write(b"-FVE-FS-")
            file.seek(0xA0)
            file.write(bytes.fromhex("3bd66749292ed84a8399f6a339e3d001"))
    outcome = await machine.steps(f"capture-image: {{disk: '{machine.disk}', image: golden, format: raw}}")
    assert outcome.outcome is Outcome.FAILED
    assert "is encrypted by BitLocker" in outcome.message
    assert "manage-bde -off" in outcome.message


async def test_a_linux_that_was_not_shut_down_is_not_copied(tmp_path: Path) -> None:
    machine = Rehearsal(tmp_path, 60 << 20)
    outcome = await machine.steps(OLD.replace("type: windows, filesystem: ntfs", "filesystem: ext4"))
    assert outcome.outcome is Outcome.SUCCEEDED, outcome
    context = machine.context()
    async with volumes.attached(context, await volumes.find(context, "label:Windows")) as device:
        tool("debugfs", "-w", "-R", "feature needs_recovery", device)
    outcome = await machine.steps(CAPTURE)
    assert outcome.outcome is Outcome.FAILED
    assert "was not taken down cleanly" in outcome.message


def set_dirty(device: Path) -> None:
    """Marks a volume as one that Windows must check: the flag in $VOLUME_INFORMATION, in the table and its copy."""
    with device.open("r+b") as file:
        content = file.read(1 << 22)
        cluster_bytes = int.from_bytes(content[11:13], "little") * content[13]
        for at in (48, 56):
            record = int.from_bytes(content[at : at + 8], "little") * cluster_bytes + 3 * 1024
            file.seek(record)
            raw = file.read(1024)
            (attribute,) = struct.unpack_from("<H", raw, 20)
            while (kind := int.from_bytes(raw[attribute : attribute + 4], "little")) != 0x70:
                assert kind != 0xFFFFFFFF
                attribute += int.from_bytes(raw[attribute + 4 : attribute + 8], "little")
            file.seek(record + attribute + int.from_bytes(raw[attribute + 20 : attribute + 22], "little") + 10)
            file.write(b"\x01\x00")
