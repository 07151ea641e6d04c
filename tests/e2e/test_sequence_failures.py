"""Each way a step fails: it says why, and leaves the disk as it was."""

from __future__ import annotations

import asyncio
import os
import tarfile
from pathlib import Path

import pytest
from fleetcast_agent.sequence.disks import volumes
from fleetcast_agent.sequence.engine.records import Outcome
from fleetcast_sequence import step_types

from tests.support.sequences import Rehearsal, let_go, needs_disks, tool

pytestmark = [*needs_disks, pytest.mark.xdist_group("one disk")]  # all of them on the disk that the fixture makes once

MIB = 1 << 20
TABLE = (
    "partition-disk: {partitions: [{name: data, type: windows, size: 60MiB, filesystem: ntfs, label: Data}, "
    "{name: fat, size: 40MiB, filesystem: fat32, label: FAT}, "
    "{name: small, size: 20MiB, filesystem: ext4, label: Small}, {name: root, filesystem: ext4, label: root}]}"
)
OTHER_FIRMWARE = "bios" if os.path.exists("/sys/firmware/efi") else "uefi"
FAILURES = [
    (f"check-readiness: {{firmware: {OTHER_FIRMWARE}}}", f"lacks the firmware {OTHER_FIRMWARE}: it has started with"),
    ("check-readiness: {min_disk: 1MiB, disk: 'serial:none'}", "no disks have the serial number 'none'"),
    ("partition-disk: {layout: bios, disk: /nowhere}", "there is no disk /nowhere"),
    ("partition-disk: {layout: bios, disk: /dev/null}", "neither a block device nor a file"),
    ("format-volume: {volume: data, filesystem: ntfs}", "there is no volume 'data': earlier steps named none so far"),
    ("format-volume: {volume: 'label:Nothing', filesystem: ntfs}", "no volumes have the label 'Nothing'"),
    ("format-volume: {volume: 'label:root', filesystem: xfs}", "mkfs.xfs ended with exit code"),
    ("apply-operating-system: {image: win, disk: system}", "goes onto a volume, not onto a disk"),
    ("apply-operating-system: {image: win, volume: 'label:FAT'}", "the volume 'label:FAT' holds vfat"),
    ("apply-operating-system: {image: none, volume: 'label:Data'}", "there is no image 'none'"),
    ("apply-operating-system: {image: win, volume: 'label:Data', spool: other}", "there is no volume 'other'"),
    ("apply-operating-system: {image: big, volume: 'label:root'}", "does not fit: it has 200 MiB"),
    ("apply-data-image: {image: big, volume: 'label:root'}", "does not fit: it has 200 MiB"),
    ("download-package: {package: none, path_variable: p}", "there is no image 'none'"),
    ("copy-files: {volume: 'label:root', destination: x, source: /nowhere}", "there is nothing at /nowhere to copy"),
    ("copy-files: {volume: 'label:root', destination: x, source: CONTENT/win, template: true}", "is no UTF-8 text"),
    ("copy-files: {volume: 'label:FAT', destination: x, source: CONTENT/big}", "(No space left on|Disk full)"),
    ("apply-windows-settings: {volume: 'label:root', computer_name: A}", "holds no Windows"),
    ("apply-windows-settings: {volume: 'label:Data', answer_file: /nowhere}", "^/nowhere: No such file or directory$"),
    ("apply-linux-settings: {volume: 'label:Data'}", "holds no Linux system: it has no /proc"),
    ("apply-linux-settings: {volume: 'label:root', time_zone: Europe/Berlin}", "knows no time zone 'Europe/Berlin'"),
    (
        "apply-network-settings: {volume: 'label:Small', adapters: [{mac: '52:54:00:12:34:56'}]}",
        "holds no Linux system",
    ),
    (
        f"apply-network-settings: {{volume: 'label:root', adapters: [{', '.join(['{dhcp: true}'] * 99)}]}}",
        "network adapters, and there are settings for number",
    ),
    (
        "apply-driver-package: {volume: 'label:FAT', packages: [{package: pack, when: 'false'}], match_required: true}",
        "no driver package is for .*: add one with a condition that holds",
    ),
    ("apply-driver-package: {volume: 'label:Data', packages: [{package: pack}]}", "there is no .inf file in it"),
    ("configure-boot: {volume: 'label:Small'}", "holds no Linux system: it has no /etc"),
    ("configure-boot: {volume: 'label:root'}", "holds no kernel: there is no /boot/vmlinuz"),
    ("run-command: {command: [pwd], working_directory: /nowhere}", "^/nowhere: No such file or directory$"),
    ("run-command: {command: [pwd], inside: 'label:Small'}", "holds no Linux system: it has no /proc"),
    ("run-script: {file: /nowhere}", "^/nowhere: No such file or directory$"),
    ("run-script: {script: exit 3, success_codes: [4]}", "sh ended with exit code 3 and said nothing"),
    ("run-script: {script: kill -9 $$}", "sh was ended by signal 9"),
    ("set-variables: {variables: {x: '{{ machine.disks[99].path }}'}}", "disks"),
    ("restart: {carry_state_to: 'label:Nothing'}", "no volumes have the label 'Nothing'"),
    (
        "capture-user-state: {volume: 'label:Data', paths: [Large], store: kept}",
        "the copy needs 35.0 MiB, and there is room for 2",
    ),
    ("restore-user-state: {volume: 'label:Data', store: kept}", "there is no saved state in kept"),
    ("restore-user-state: {volume: 'label:Data', image: none}", "there is no image 'none'"),
    ("restore-user-state: {volume: 'label:Data', image: win}", "this is no saved state"),
    ("capture-image: {image: mine, volume: 'label:Nothing'}", "no volumes have the label 'Nothing'"),
    (
        "capture-image: {image: mine, volume: 'label:Data', format: raw, spool: 'label:Small'}",
        "ntfsclone ended with exit code 1: .*ERROR",
    ),
]
"""A step and what it says. Others are where what they do is tested."""


async def facts(machine: Rehearsal) -> dict[str, tuple[str, ...]]:
    """Returns what the test can see of each volume."""
    context, found = machine.context(), {}
    for name in ("label:Data", "label:Small", "label:root"):
        async with volumes.mounted(context, await volumes.find(context, name), read_only=True) as root:
            found[name] = tuple(sorted(f"{path.relative_to(root)} {path.stat().st_size}" for path in root.rglob("*")))
    return found


async def prepare(directory: Path) -> Rehearsal:
    machine = Rehearsal(directory, 220 * MIB)
    (directory / "tree/Windows").mkdir(parents=True)
    (directory / "tree/Windows/kernel.exe").write_bytes(b"MZ\x90\xff")
    tool("wimlib-imagex", "capture", directory / "tree", machine.content / "win", "W")
    with (machine.content / "big").open("wb") as file:
        file.truncate(200 * MIB)
    with tarfile.open(machine.content / "pack", "w") as tar:
        tar.add(directory / "tree/Windows/kernel.exe", "readme.txt")
    large = directory / "large"
    large.write_bytes(os.urandom(35 * MIB))
    places = ("etc/hostname", "proc/x", "sys/x", "dev/x")
    outcome = await machine.steps(
        TABLE,
        f"copy-files: {{volume: data, destination: Large, source: {large}}}",
        "copy-files: {volume: data, destination: Windows/System32/x, content: x}",
        "copy-files: {volume: small, destination: here.txt, content: here}",
        *(f"copy-files: {{volume: root, destination: {place}, content: x}}" for place in places),
    )
    assert outcome.outcome is Outcome.SUCCEEDED, outcome
    return machine


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Rehearsal:
    return asyncio.run(prepare(tmp_path_factory.mktemp("failures")))


@pytest.mark.parametrize(("step", "message"), FAILURES, ids=[step.replace(":", "")[:60] for step, _ in FAILURES])
async def test_a_step_that_fails_says_why_and_lets_go_of_the_disk(machine: Rehearsal, step: str, message: str) -> None:
    outcome = await machine.steps(step.replace("CONTENT", str(machine.content)))
    assert outcome.outcome is Outcome.FAILED
    assert outcome.step == step.partition(":")[0]
    with pytest.raises(AssertionError, match=f"(?s){message}"):
        raise AssertionError(outcome.message)
    assert let_go(machine.disk)
    assert str(machine.directory) not in await asyncio.to_thread(Path("/proc/mounts").read_text)


async def test_steps_that_fail_before_they_write_leave_every_volume_as_it_was(
    machine: Rehearsal, tmp_path: Path
) -> None:
    untouched = await prepare(tmp_path)
    assert await facts(machine) == await facts(untouched)


def test_every_step_type_that_can_fail_fails_here() -> None:
    failing = {step.partition(":")[0] for step, _ in FAILURES}
    assert set(step_types()) - failing == {"gather-inventory", "run-task-sequence"}
