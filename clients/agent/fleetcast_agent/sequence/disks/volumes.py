"""Volumes: found by what a sequence calls them, reached as block devices, mounted.

A partition is reached by a loop device of its own over its place on the disk, so that disks and files that stand for
disks are the same, and nothing depends on device nodes of partitions.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleetcast_agent.sequence.context import StepContext
from fleetcast_agent.sequence.disks import filesystems
from fleetcast_agent.sequence.disks import partition_tables as tables
from fleetcast_agent.sequence.disks.partition_tables import Existing
from fleetcast_agent.sequence.errors import StepError
from fleetcast_agent.sequence.machine.disks import Disk, detach_stale_loops

_KERNEL_FILESYSTEMS = ("ext2", "ext3", "ext4", "xfs", "vfat")

_PROBE = ".fleetcast-writable"
"""Made and removed in each volume that is mounted for writing; one that a killed agent left goes the next time."""


@dataclass(frozen=True)
class Volume:
    """A partition, or a whole device or file with a file system."""

    name: str
    """How the sequence calls it."""
    backing: Path
    """The disk, device or file it is on."""
    start_bytes: int
    size_bytes: int
    keep: tuple[str, ...] = ()
    """Directories at its top that survive its being emptied."""
    guid: str = ""
    """Of its partition; empty if it is none."""
    whole: bool = False
    """It is all of `backing`."""


def record(disk_selector: str, partition: Existing) -> dict[str, Any]:
    """Returns what later steps, also after a restart, need to find the partition again."""
    return {"disk": disk_selector, "guid": partition.guid}


def keep(context: StepContext, selector: str, volume: Volume, directories: Iterable[str]) -> None:
    """Lets no later step erase these directories at the top of the volume, and all others again.

    Raises:
        StepError: the volume is no partition, so it could not be told from another after a restart.
    """
    if not volume.guid:
        raise StepError(f"{volume.name} is no partition of a disk, so nothing on it can be kept: name a partition")
    names = sorted({name.strip("/").split("/")[0] for name in directories})
    context.results.volumes[selector] = _record_of(context, selector, volume) | {"keep": names}


async def hold(context: StepContext, selector: str, volume: Volume, **facts: str) -> None:
    """Notes durably which volume is meant, before what it is known by may be half overwritten.

    After an interruption `find` finds it again, and the checkpoint has the `facts`.
    """
    await context.save({"volumes": {selector: _record_of(context, selector, volume)} if volume.guid else {}, **facts})


async def refuse_if_kept(context: StepContext, disk: Disk) -> None:
    """Does nothing if the whole disk may be erased.

    Raises:
        StepError: an earlier step wants something on it to be kept.
    """
    guids = {partition.guid for partition in await tables.read(context.tools, disk)}
    kept = [
        f"{name}: {directory}"
        for name, known in context.volumes.items()
        if known["guid"] in guids
        for directory in known.get("keep", ())
    ]
    if kept:
        raise StepError(f"{disk.path} holds what is to be kept ({', '.join(kept)}): it will not be erased")


async def find(context: StepContext, selector: str) -> Volume:
    """Returns the volume that a name, `label:...` or a path says.

    Raises:
        StepError: there is none, or it is not where it was.
    """
    known = _known(context, selector)
    if known is not None:
        disk = context.disks.find(known["disk"])
        for partition in await tables.read(context.tools, disk):
            if partition.guid == known["guid"]:
                return of_partition(context, selector, disk, partition)
        raise StepError(
            f"the volume {selector!r} is not on {disk.path} any more: its partition {known['guid']} is gone"
        )
    if selector.startswith("label:"):
        return await _by_label(context, selector)
    if selector.startswith("/"):
        disk = context.disks.find(selector)
        return Volume(selector, disk.path, 0, disk.size_bytes, whole=True)
    names = ", ".join(sorted({*context.volumes, *context.results.volumes})) or "none so far"
    raise StepError(f"there is no volume {selector!r}: earlier steps named {names}")


def _known(context: StepContext, selector: str) -> dict[str, Any] | None:
    """Returns what steps noted of the volume of that name, this one included."""
    held = (context.checkpoint or {}).get("volumes", {})
    return context.results.volumes.get(selector) or context.volumes.get(selector) or held.get(selector)


def _record_of(context: StepContext, selector: str, volume: Volume) -> dict[str, Any]:
    known = _known(context, selector)
    return {"disk": known["disk"] if known else context.disks.selector(volume.backing), "guid": volume.guid}


def _kept(context: StepContext, guid: str) -> tuple[str, ...]:
    """Returns the directories that are kept on a partition, by whichever name a step called it."""
    known = {**context.volumes, **context.results.volumes}.values()
    return tuple(name for item in known if item["guid"] == guid for name in item.get("keep", ()))


def of_partition(context: StepContext, name: str, disk: Disk, partition: Existing) -> Volume:
    """Returns the partition as a volume of that name."""
    kept = _kept(context, partition.guid)
    return Volume(name, disk.path, partition.start_bytes, partition.size_bytes, kept, partition.guid)


async def _by_label(context: StepContext, selector: str) -> Volume:
    wanted = selector.removeprefix("label:")
    found = []
    for disk in context.disks.all():
        for partition in await tables.read(context.tools, disk):
            place = {"offset_bytes": partition.start_bytes, "size_bytes": partition.size_bytes}
            about = await filesystems.probe(context.tools, disk.path, **place)
            if about.get("LABEL") == wanted:
                found.append(of_partition(context, selector, disk, partition))
    if len(found) != 1:
        raise StepError(f"{len(found) or 'no'} volumes have the label {wanted!r}")
    return found[0]


@contextlib.asynccontextmanager
async def attached(context: StepContext, volume: Volume, *, read_only: bool = False) -> AsyncIterator[Path]:
    """Yields the block device that is the volume.

    Raises:
        StepError: it cannot be had; making loop devices needs root.
    """
    if volume.whole and context.disks.find(str(volume.backing)).is_device:
        yield volume.backing
        return
    detach_stale_loops(volume.backing, offset_bytes=volume.start_bytes)
    place = ["--offset", str(volume.start_bytes), "--sizelimit", str(volume.size_bytes)]
    options = [*place, *(["--read-only"] if read_only else [])]
    device = await _loop(context, ["losetup", "--find", "--show", *options, str(volume.backing)])
    try:
        yield device
    finally:
        await context.tools.run(["losetup", "--detach", device])


async def _loop(context: StepContext, command: list[str]) -> Path:
    attempts = 5
    while True:
        finished = await context.tools.run(command, success_codes=(0, 1), quiet=True)
        if finished.exit_code == 0:
            return Path(finished.output.strip())
        attempts -= 1
        # Two runs that ask at the same moment are offered the same free device.
        if attempts == 0 or "busy" not in finished.error_output:
            raise StepError(f"no loop device for {command[-1]}: {finished.error_output.strip()}", exit_code=1)


@contextlib.asynccontextmanager
async def mounted(context: StepContext, volume: Volume, *, read_only: bool = False) -> AsyncIterator[Path]:
    """Yields the directory at which the volume is mounted.

    Raises:
        StepError: it has no file system that can be mounted here, or not for writing.
    """
    async with attached(context, volume, read_only=read_only) as device, directory(context) as point:
        kind = (await filesystems.probe(context.tools, device)).get("TYPE", "")
        mode = "ro" if read_only else "rw"
        if kind == "ntfs":
            options = f"{mode},streams_interface=xattr"
            await context.tools.run(["ntfs-3g", "-o", options, device, point])
        elif kind in _KERNEL_FILESYSTEMS:
            await context.tools.run(["mount", "-t", kind, "-o", mode, device, point])
        else:
            raise StepError(f"the volume {volume.name!r} cannot be mounted: it holds {kind or 'no file system'}")
        try:
            if not read_only and _is_read_only(point):
                hint = "Windows on it was not shut down, or it is damaged" if kind == "ntfs" else "it is damaged"
                raise StepError(f"the volume {volume.name!r} can only be read: {hint}")
            yield point
        finally:
            await _unmount(context, point)


@contextlib.asynccontextmanager
async def directory(context: StepContext) -> AsyncIterator[Path]:
    """Yields an empty directory to mount something at."""
    point = Path(tempfile.mkdtemp(prefix="mount-", dir=context.step_directory))
    try:
        yield point
    finally:
        await asyncio.to_thread(point.rmdir)


async def _unmount(context: StepContext, point: Path) -> None:
    for attempt in range(20):
        finished = await context.tools.run(["umount", point], success_codes=(0, 32), quiet=True)
        if finished.exit_code == 0:
            return
        await asyncio.sleep(0.05 * attempt)
    raise StepError(f"{point} cannot be unmounted: {finished.error_output.strip()}")


def kernel_has(filesystem: str) -> bool:
    """Returns whether the running kernel can mount this file system by itself."""
    return filesystem in Path("/proc/filesystems").read_text().split()


def _is_read_only(point: Path) -> bool:
    probe = point / _PROBE
    try:
        probe.touch()
        probe.unlink()
    except OSError:
        return True
    return False
