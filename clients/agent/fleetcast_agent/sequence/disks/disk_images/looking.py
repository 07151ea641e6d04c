"""What the volumes on a disk are and hold, looked at without changing anything."""

from __future__ import annotations

import os
from pathlib import Path

from fleetcast_agent.sequence.context import StepContext
from fleetcast_agent.sequence.disks import btrfs, lvm, volumes
from fleetcast_agent.sequence.disks.disk_images.roles import Content, Facts
from fleetcast_agent.sequence.disks.tables.model import Table
from fleetcast_agent.sequence.disks.volumes import Volume
from fleetcast_agent.sequence.errors import StepError
from fleetcast_agent.sequence.machine.disks import Disk

_READ_ONLY = {
    "ext2": "ro",
    "ext3": "ro,noload",
    "ext4": "ro,noload",
    "xfs": "ro,norecovery,nouuid",
    "btrfs": "ro",
}
"""How the kernel mounts without writing, not even what a system that was not shut down left to be done."""


async def facts_of(context: StepContext, disk: Disk, table: Table) -> dict[int, Facts]:
    """Returns what is on each volume of the table, by their numbers."""
    return {
        partition.number: await facts(context, volumes.of_partition(context, str(partition.number), disk, partition))
        for partition in table.volumes
    }


async def facts(context: StepContext, volume: Volume) -> Facts:
    """Returns what is on one volume."""
    about = await volumes.about(context, volume)
    kind = about.get("TYPE", "")
    content: Content = ""
    if kind == lvm.MEMBER:
        content = await _content_of_group(context, volume)
    elif kind == "ntfs" or kind in _READ_ONLY:
        content = await _content(context, volume, kind)
    return Facts(kind, about.get("LABEL", ""), about.get("UUID", ""), content)


async def _content_of_group(context: StepContext, partition: Volume) -> Content:
    """Returns a system if one of the group's volumes holds one."""
    try:
        inside = [await facts(context, volume) for _, volume in await volumes.logical_volumes(context, partition)]
    except StepError as error:
        context.log(f"{partition.name} cannot be looked into: {error.message}")
        return ""
    return next((facts.content for facts in inside if facts.content in ("linux", "windows")), "")


async def _content(context: StepContext, volume: Volume, kind: str) -> Content:
    async with volumes.attached(context, volume, read_only=True) as device, volumes.directory(context) as point:
        try:
            if kind == "ntfs":
                await context.tools.run(["ntfs-3g", "-o", "ro", device, point], quiet=True)
            else:
                await context.tools.run(["mount", "-t", kind, "-o", _READ_ONLY[kind], device, point], quiet=True)
        except StepError as error:
            context.log(f"partition {volume.name} cannot be looked into: {error.message}")
            return ""
        try:
            return _seen(point) or ("linux" if kind == "btrfs" and btrfs.systems_in(point) else "")
        finally:
            await volumes.unmount(context, point)


def _seen(root: Path) -> Content:
    names = {name.lower() for name in os.listdir(root)}
    if "windows" in names and _has(root, "windows", "system32"):
        return "windows"
    if "etc" in names and names & {"usr", "bin", "sbin", "lib"}:
        return "linux"
    if os.path.lexists(root / "etc/os-release") or os.path.lexists(root / "etc/fstab"):
        return "linux"
    if "recovery" in names and _has(root, "recovery", "windowsre"):
        return "recovery"
    starts = names & {"bootmgr", "grub", "grub2", "loader"} or any(name.startswith("vmlinuz") for name in names)
    return "boot" if starts else ""


def _has(root: Path, *path: str) -> bool:
    """Returns whether there is such a directory, however its names are spelled."""
    here = root
    for wanted in path:
        found = next((name for name in os.listdir(here) if name.lower() == wanted), None)
        if found is None or not (here / found).is_dir():
            return False
        here = here / found
    return True
