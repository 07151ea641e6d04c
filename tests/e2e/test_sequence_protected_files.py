"""Files that are protected, odd or already saved: an erase does not stop at them, and a save does not lose them."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from fleetcast_agent.sequence.disks import volumes
from fleetcast_agent.sequence.engine.records import Outcome

from tests.support.sequences import MIB, Rehearsal, needs_disks, tool

pytestmark = needs_disks

SAVE = "capture-user-state: {volume: 'label:root', paths: ['home/*'], store: kept}"
ERASE = "format-volume: {volume: 'label:root', keep: [kept]}"
RESTORE = "restore-user-state: {volume: 'label:root', store: kept, delete_store: true}"


@asynccontextmanager
async def mounted(machine: Rehearsal) -> AsyncIterator[Path]:
    """Yields where the volume of the machine is mounted."""
    context = machine.context()
    async with volumes.mounted(context, await volumes.find(context, "label:root")) as root:
        yield root


@pytest.fixture
async def machine(tmp_path: Path) -> Rehearsal:
    machine = Rehearsal(tmp_path, 120 * MIB)
    outcome = await machine.steps("partition-disk: {partitions: [{name: root, filesystem: ext4, label: root}]}")
    assert outcome.outcome is Outcome.SUCCEEDED, outcome
    async with mounted(machine) as root:
        for path in ("home/anna/notes", "etc/resolv.conf", "var/log/audit", "aaa/first"):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(path)
    return machine


def flags(path: Path) -> str:
    return tool("lsattr", "-d", path).split()[0]


async def test_an_erase_takes_away_what_chattr_protects(machine: Rehearsal) -> None:
    async with mounted(machine) as root:
        (root / "var/empty").mkdir()
        tool("chattr", "+i", root / "etc/resolv.conf")
        tool("chattr", "+a", root / "var/log/audit")
        tool("chattr", "+i", root / "var/empty")
        tool("chattr", "+i", root / "var")
    outcome = await machine.steps(SAVE, ERASE, RESTORE)
    assert outcome.outcome is Outcome.SUCCEEDED, outcome
    async with mounted(machine) as root:
        assert sorted(os.listdir(root)) == ["home", "lost+found"]
        assert (root / "home/anna/notes").read_text() == "home/anna/notes"


async def test_saved_files_get_the_flags_of_chattr_back(machine: Rehearsal) -> None:
    async with mounted(machine) as root:
        (root / "home/anna/fixed").mkdir()
        (root / "home/anna/fixed/inside").touch()
        tool("chattr", "+i", root / "home/anna/notes")
        tool("chattr", "+i", root / "home/anna/fixed")
        tool("chattr", "+a", root / "home/anna/fixed/inside")
    again = RESTORE.replace(", delete_store: true", "")
    outcome = await machine.steps(SAVE, ERASE, again, again)
    assert outcome.outcome is Outcome.SUCCEEDED, outcome
    async with mounted(machine) as root:
        assert "i" in flags(root / "home/anna/notes")
        assert "i" in flags(root / "home/anna/fixed")
        assert "a" in flags(root / "home/anna/fixed/inside")


async def test_lists_of_access_and_capabilities_come_back(machine: Rehearsal) -> None:
    async with mounted(machine) as root:
        tool("setfacl", "-m", "u:1234:r-x,m::r-x", root / "home/anna/notes")
        tool("setfacl", "-d", "-m", "g:4321:rwx", root / "home/anna")
        (root / "home/anna/ping").write_bytes(b"ELF")
        tool("setcap", "cap_net_raw+ep", root / "home/anna/ping")
        paths = [root / "home/anna/notes", root / "home/anna", root / "home/anna/ping"]
        before = [{name: os.getxattr(path, name) for name in os.listxattr(path)} for path in paths]
        assert all(before)
    outcome = await machine.steps(SAVE, ERASE, RESTORE)
    assert outcome.outcome is Outcome.SUCCEEDED, outcome
    async with mounted(machine) as root:
        paths = [root / "home/anna/notes", root / "home/anna", root / "home/anna/ping"]
        assert [{name: os.getxattr(path, name) for name in os.listxattr(path)} for path in paths] == before


async def test_names_that_are_no_text_come_back(machine: Rehearsal) -> None:
    names = [b"latin-\xfc", b"new\nline", b"tab\tand \\ back", b"-rf", b"quote'\""]
    async with mounted(machine) as root:
        for name in names:
            (root / "home/anna" / os.fsdecode(name)).write_bytes(name)
    outcome = await machine.steps(SAVE, ERASE, RESTORE)
    assert outcome.outcome is Outcome.SUCCEEDED, outcome
    async with mounted(machine) as root:
        assert set(os.listdir(os.fsencode(root / "home/anna"))) == {*names, b"notes"}


async def test_a_directory_that_cannot_be_read_is_no_empty_directory(machine: Rehearsal) -> None:
    async with mounted(machine) as root:
        (root / "home/anna/thesis").mkdir()
        (root / "home/anna/thesis/chapter").write_text("x")
    context = machine.context()
    async with volumes.attached(context, await volumes.find(context, "label:root")) as device:
        # Its block is no directory any more: the kernel finds the damage when it is read.
        blocks = tool("debugfs", "-R", "blocks /home/anna/thesis", device).split()
        size = int(tool("debugfs", "-R", "show_super_stats -h", device).split("Block size:")[1].split()[0])
        with device.open("r+b") as file:
            file.seek(int(blocks[0]) * size)
            file.write(b"\xff" * size)
    outcome = await machine.steps(SAVE, ERASE)
    assert (outcome.outcome, outcome.step) == (Outcome.FAILED, "capture-user-state")
    assert "/home/anna/thesis cannot be read" in outcome.message


async def test_a_second_save_does_not_replace_the_only_copy_of_what_was_erased(machine: Rehearsal) -> None:
    outcome = await machine.steps(SAVE, ERASE)
    assert outcome.outcome is Outcome.SUCCEEDED, outcome
    async with mounted(machine) as root:
        (root / "home/default").mkdir(parents=True)
        (root / "home/default/new").touch()
    outcome = await machine.steps(SAVE)
    assert outcome.outcome is Outcome.FAILED
    assert "/kept holds a saved state whose originals have been erased" in outcome.message
    outcome = await machine.steps(RESTORE, SAVE)
    assert outcome.outcome is Outcome.SUCCEEDED, outcome
    async with mounted(machine) as root:
        assert (root / "home/anna/notes").read_text() == "home/anna/notes"


async def test_a_second_save_replaces_one_whose_originals_are_there(machine: Rehearsal) -> None:
    outcome = await machine.steps(SAVE, SAVE, ERASE, RESTORE.replace(", delete_store: true", ""), SAVE)
    assert outcome.outcome is Outcome.SUCCEEDED, outcome
