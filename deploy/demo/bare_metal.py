"""The last chapter: a task sequence turns three empty disks into installed ones, all at once."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleetcast_agent.sequence.disks import volumes

from deploy.demo.inputs import Input, find_tool
from deploy.demo.proof import files_are_equal
from tests.support.attending import AttendingMachine, exit_codes
from tests.support.installation import Installation
from tests.support.sequences import looking_at

DISK_BYTES = 8 * 2**30
"""Size of each disk file; what is not written takes no space."""
COLLECTION = "demo-room"
SEQUENCE = "demo-bare-metal"
TEXT = """\
name: {name}
description: An empty disk becomes an installed one.
steps:
  - {{name: Check readiness, type: check-readiness, with: {{min_memory: 64MiB, min_disk: 8GiB}}}}
  - name: Install
    steps:
      - name: Partition the disk
        type: partition-disk
        with:
          partitions:
            - {{name: efi, type: esp, size: 100MiB, filesystem: fat32}}
            - {{name: system, type: windows, filesystem: ntfs, label: System}}
      - {{name: Apply the image, type: apply-operating-system, with: {{image: {image}, index: 1, volume: system}}}}
  - name: Name the machine
    type: copy-files
    with: {{volume: system, destination: machine.txt, content: "{{{{ machine.name }}}} {{{{ machine.serial }}}}"}}
  - {{name: Start the system, type: restart, with: {{target: installed}}}}
"""

_TOOLS = (
    "sfdisk",
    "losetup",
    "blkid",
    "setpriv",
    "mkfs.fat",
    "mcopy",
    "mkfs.ntfs",
    "ntfs-3g",
    "ntfsfix",
    "wimlib-imagex",
)


@dataclass(frozen=True)
class Installed:
    """What was found on one machine's disk."""

    machine: str
    file_count: int
    """Files that are byte for byte those of the tree."""
    complaint: str
    """What is wrong; empty if nothing is."""


def what_lacks() -> str:
    """Returns why the chapter cannot be told here; empty if it can."""
    if os.geteuid() != 0:
        return "making loop devices and mounting needs root"
    for device in ("/dev/loop-control", "/dev/fuse"):
        if not Path(device).exists():
            return f"there is no {device} here"
    if missing := [tool for tool in _TOOLS if find_tool(tool) is None]:
        return f"not installed: {', '.join(missing)} (deploy/packages.sh names the packages)"
    return ""


def write_sequence(directory: Path, image: Input) -> Path:
    """Returns the file of the task sequence that applies `image`."""
    file = directory / f"{SEQUENCE}.yaml"
    file.write_text(TEXT.format(name=SEQUENCE, image=image.name))
    return file


def start_machines(site: Installation, names: Sequence[str]) -> list[AttendingMachine]:
    """Returns machines with empty disks that have registered and wait for work."""
    machines = [AttendingMachine(name, site, DISK_BYTES) for name in names]
    for machine in machines:
        machine.start()
    for machine in machines:
        machine.wait_for("standby")
    return machines


def prove_installed(machines: Sequence[AttendingMachine], tree: Path) -> list[Installed]:
    """Returns, for each machine, whether its disk has the tree and its own name, once its agent has ended."""
    codes = exit_codes(machines)
    return [asyncio.run(_look(machine, tree, codes[machine.name])) for machine in machines]


async def _look(machine: AttendingMachine, tree: Path, code: int) -> Installed:
    if code:
        return Installed(machine.name, 0, str(machine.events()[-1].get("error", f"exit code {code}")))
    context: Any = looking_at(machine.disk, machine.directory / "looking")
    volume = await volumes.find(context, "label:System")
    async with volumes.attached(context, volume) as device:
        await context.tools.run(["ntfsfix", "--no-action", device])
    async with volumes.mounted(context, volume, read_only=True) as root:
        if not (root / "machine.txt").read_text().startswith(machine.name):
            return Installed(machine.name, 0, "it has not its own name")
        return await asyncio.to_thread(_compare, machine.name, tree, root)


def _compare(machine: str, tree: Path, root: Path) -> Installed:
    count = 0
    for path in tree.rglob("*"):
        if stat.S_ISREG(path.lstat().st_mode):
            found = root / path.relative_to(tree)
            if not found.is_file() or not files_are_equal(path, found):
                return Installed(machine, count, f"{path.relative_to(tree)} differs")
            count += 1
    return Installed(machine, count, "")
