"""A machine gets a new system and its users keep their files."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest
from fleetcast_agent.sequence.disks import volumes
from fleetcast_agent.sequence.engine.records import Outcome
from fleetcast_sequence.ready import ready_sequences

from tests.e2e.test_sequence_streaming import facts
from tests.support.sequences import Rehearsal, needs_disks, tool

pytestmark = needs_disks

MIB = 1 << 20
OLD = "partition-disk: {partitions: [{name: windows, type: windows, filesystem: ntfs, label: Windows}]}"
REFRESH = ready_sequences()["refresh-windows"].replace("min_memory: 2GiB", "min_memory: 64MiB")


def write_image(machine: Rehearsal, directory: Path) -> None:
    tree = directory / "new"
    (tree / "Windows/System32").mkdir(parents=True)
    (tree / "Windows/System32/new.dll").write_bytes(b"MZ" + bytes(100_000))
    tool("wimlib-imagex", "capture", tree, machine.content / "windows-11", "New")


async def used_machine(tmp_path: Path) -> Rehearsal:
    """Returns a machine whose old Windows has been used."""
    machine = Rehearsal(tmp_path, 100 * MIB)
    write_image(machine, tmp_path)
    outcome = await machine.steps(OLD)
    assert outcome.outcome is Outcome.SUCCEEDED, outcome
    context = machine.context()
    async with volumes.mounted(context, await volumes.find(context, "windows")) as root:
        documents = root / "Users" / "Jürgen" / "Dokumente"
        documents.mkdir(parents=True)
        (root / "Windows").mkdir()
        (root / "Windows/old.dll").write_bytes(b"old")
        (root / "Users/Public").mkdir()
        (documents / "brief äöü.txt").write_bytes(os.urandom(50_000))
        (documents / "leer").touch()
        os.link(documents / "brief äöü.txt", documents / "zweiter Name.txt")
        os.setxattr(documents / "brief äöü.txt", "user.Zone.Identifier", b"[ZoneTransfer]\r\nZoneId=3\r\n")
        attributes = int.from_bytes(os.getxattr(documents / "leer", "system.ntfs_attrib"), "little") | 0x2
        os.setxattr(documents / "leer", "system.ntfs_attrib", attributes.to_bytes(4, "little"))
        for path in (documents / "brief äöü.txt", documents / "leer", documents, documents.parent):
            os.utime(path, ns=(1_500_000_000_000_000_000, 1_400_000_000_123_456_700))
    return machine


async def users_files(machine: Rehearsal) -> dict[str, tuple[object, ...]]:
    """Returns content, times, modes, links, streams and NTFS attributes of every file of the users."""
    context = machine.context()
    found: dict[str, tuple[object, ...]] = {}
    async with volumes.mounted(context, await volumes.find(context, "label:Windows"), read_only=True) as root:
        for path in sorted((root / "Users").rglob("*")):
            status = path.stat()
            found[str(path.relative_to(root))] = (
                path.read_bytes() if path.is_file() else None,
                status.st_mtime_ns,
                status.st_mode,
                status.st_nlink if path.is_file() else 0,
                {name: os.getxattr(path, name) for name in os.listxattr(path)},
                os.getxattr(path, "system.ntfs_attrib"),
                os.getxattr(path, "system.ntfs_acl"),
                os.getxattr(path, "system.ntfs_times")[:16],
            )
    return found


async def test_users_files_survive_bit_for_bit(tmp_path: Path) -> None:
    machine = await used_machine(tmp_path)
    before = await users_files(machine)
    outcome = await machine.run(REFRESH, administrator_password="x" * 12)
    assert outcome.restart == "installed", outcome
    after = await users_files(machine)
    before.pop("Users/Public")
    assert after == before
    context = machine.context()
    async with volumes.mounted(context, await volumes.find(context, "label:Windows"), read_only=True) as root:
        assert (root / "Windows/System32/new.dll").exists()
        assert not (root / "Windows/old.dll").exists()
        assert not (root / "fleetcast-state").exists()
        assert (root / "Windows/Panther/unattend.xml").exists()


async def test_users_files_on_linux_survive_with_owners_permissions_and_times(tmp_path: Path) -> None:
    machine = Rehearsal(tmp_path, 100 * MIB)
    outcome = await machine.steps("partition-disk: {partitions: [{name: root, filesystem: ext4, label: root}]}")
    assert outcome.outcome is Outcome.SUCCEEDED, outcome
    context = machine.context()
    async with volumes.mounted(context, await volumes.find(context, "root")) as root:
        home = root / "home/jürgen"
        home.mkdir(parents=True)
        (root / "old").touch()
        (home / "brief").write_bytes(os.urandom(50_000))
        os.link(home / "brief", home / "zweiter Name")
        (home / "link").symlink_to("/etc/passwd")
        os.mkfifo(home / "fifo")
        with (home / "sparse").open("wb") as file:
            file.truncate(10 * MIB)
        os.setxattr(home / "brief", "user.origin", b"scan")
        for path in (*home.iterdir(), home):
            os.chown(path, 1000, 1001, follow_symlinks=False)
            os.utime(path, ns=(1_500_000_000_000_000_000, 1_400_000_000_123_456_789), follow_symlinks=False)
        (home / "brief").chmod(0o2751)
        home.chmod(0o700)
    before = await facts(machine, "label:root")
    outcome = await machine.steps(
        "capture-user-state: {volume: 'label:root', paths: ['home/*'], store: kept}",
        "format-volume: {volume: 'label:root', keep: [kept]}",
        "restore-user-state: {volume: 'label:root', store: kept, delete_store: true}",
    )
    assert outcome.outcome is Outcome.SUCCEEDED, outcome
    after = await facts(machine, "label:root")
    assert after.keys() == before.keys() - {"old"}
    assert {path: after[path] for path in after if path.startswith("home/")} == {
        path: before[path] for path in before if path.startswith("home/")
    }
    context = machine.context()
    async with volumes.mounted(context, await volumes.find(context, "label:root"), read_only=True) as root:
        assert os.getxattr(root / "home/jürgen/brief", "user.origin") == b"scan"
        assert (root / "home/jürgen/sparse").stat().st_blocks == 0


async def test_a_failure_before_the_erase_leaves_the_machine_as_it_was(tmp_path: Path) -> None:
    machine = await used_machine(tmp_path)
    before = await users_files(machine)
    failing = REFRESH.replace(
        "  - name: Replace\n", "  - {name: Fault, type: run-command, with: {command: ['false']}}\n  - name: Replace\n"
    )
    outcome = await machine.run(failing, administrator_password="x" * 12)
    assert (outcome.outcome, outcome.step) == (Outcome.FAILED, "Fault")
    assert await users_files(machine) == before
    context = machine.context()
    async with volumes.mounted(context, await volumes.find(context, "label:Windows"), read_only=True) as root:
        assert (root / "Windows/old.dll").read_bytes() == b"old"


async def test_after_a_failure_behind_the_erase_another_run_brings_the_files_back(tmp_path: Path) -> None:
    machine = await used_machine(tmp_path)
    before = await users_files(machine)
    image = machine.content / "windows-11"
    image.rename(tmp_path / "away")
    failing = REFRESH.replace("attempts: 3, delay: 30s", "attempts: 2, delay: 0")
    outcome = await machine.run(failing, administrator_password="x" * 12)
    assert (outcome.outcome, outcome.step) == (Outcome.FAILED, "Apply the image")
    (tmp_path / "away").rename(image)
    rest = (
        "name: rest\nvariables:"
        + REFRESH.split("variables:")[1].split("steps:")[0]
        + "steps:\n"
        + "  - name: Replace"
        + REFRESH.split("  - name: Replace")[1]
    )
    outcome = await machine.run(rest, administrator_password="x" * 12)
    assert outcome.restart == "installed", outcome
    before.pop("Users/Public")
    assert await users_files(machine) == before


async def test_a_saved_state_that_was_damaged_is_not_restored(tmp_path: Path) -> None:
    machine = await used_machine(tmp_path)
    outcome = await machine.steps("capture-user-state: {volume: 'label:Windows', paths: ['Users/*'], store: kept}")
    assert outcome.outcome is Outcome.SUCCEEDED, outcome
    context = machine.context()
    async with volumes.mounted(context, await volumes.find(context, "label:Windows")) as root:
        with (root / "kept/state.tar").open("r+b") as file:
            file.seek(2000)
            file.write(b"damage")
    outcome = await machine.steps("restore-user-state: {volume: 'label:Windows', store: kept}")
    assert "is damaged" in outcome.message


async def test_state_can_be_kept_on_the_server(tmp_path: Path) -> None:
    machine = await used_machine(tmp_path)
    before = await users_files(machine)
    outcome = await machine.steps(
        "capture-user-state: {volume: 'label:Windows', paths: [Users], image: state-of-pc1}",
        OLD,
        "restore-user-state: {volume: 'label:Windows', image: state-of-pc1}",
    )
    assert outcome.outcome is Outcome.SUCCEEDED, outcome
    assert await users_files(machine) == before


@pytest.mark.parametrize("paths", ["[Nothing]", "[Users/Nobody]"])
async def test_nothing_to_save_is_a_failure(tmp_path: Path, paths: str) -> None:
    machine = await used_machine(tmp_path)
    outcome = await machine.steps(f"capture-user-state: {{volume: 'label:Windows', paths: {paths}, store: kept}}")
    assert "nothing on the volume matches" in outcome.message


@pytest.mark.parametrize(
    "erase",
    [
        "format-volume: {volume: 'label:Windows', filesystem: ntfs}",
        "partition-disk: {layout: bios}",
    ],
)
async def test_a_sequence_cannot_erase_what_it_saved(tmp_path: Path, erase: str) -> None:
    machine = await used_machine(tmp_path)
    before = await users_files(machine)
    outcome = await machine.steps("capture-user-state: {volume: 'label:Windows', paths: [Users], store: kept}", erase)
    assert "holds what is to be kept" in outcome.message
    assert await users_files(machine) == before


async def test_links_of_windows_stay_links_of_windows(tmp_path: Path) -> None:
    machine = await used_machine(tmp_path)
    name = "system.ntfs_reparse_data"

    def reparse_data(tag: int, target: str) -> bytes:
        """Returns what [MS-FSCC] 2.1.2.5 describes, a mount point without a name for display."""
        text = target.encode("utf-16-le")
        paths = struct.pack("<4H", 0, len(text), len(text) + 2, 0) + text + bytes(4)
        return struct.pack("<IHH", tag, len(paths), 0) + paths

    wanted = reparse_data(0xA0000003, r"\??\C:\Users\Public")
    context = machine.context()
    async with volumes.mounted(context, await volumes.find(context, "label:Windows")) as root:
        (root / "Users/Jürgen/Eigene Dateien").mkdir()
        os.setxattr(root / "Users/Jürgen/Eigene Dateien", name, wanted)
    outcome = await machine.run(REFRESH, administrator_password="x" * 12)
    assert outcome.restart == "installed", outcome
    context = machine.context()
    async with volumes.mounted(context, await volumes.find(context, "label:Windows"), read_only=True) as root:
        assert os.getxattr(root / "Users/Jürgen/Eigene Dateien", name, follow_symlinks=False) == wanted
