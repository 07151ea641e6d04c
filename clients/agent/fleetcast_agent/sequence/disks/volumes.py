"""Volumes: found by what a sequence calls them, reached as block devices, mounted.

A partition is reached by a loop device of its own over its place on the disk, so that disks and files that stand for
disks are the same, and nothing depends on device nodes of partitions.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from fleetcast_agent.sequence.context import StepContext
from fleetcast_agent.sequence.disks import btrfs, filesystems, loops, lvm
from fleetcast_agent.sequence.disks import partition_tables as tables
from fleetcast_agent.sequence.disks.tables.model import Existing
from fleetcast_agent.sequence.errors import StepError
from fleetcast_agent.sequence.machine import geometry
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
    pieces: tuple[loops.Piece, ...] = ()
    """Where a logical volume in several parts has them."""
    logical_volume: str = ""
    """Identifier of the logical volume on the partition; empty if it is none."""
    subvolume: str = ""
    """The btrfs subvolume that is meant, where it is not the default one."""


def record(disk_selector: str, partition_guid: str, *, logical_volume: str = "", subvolume: str = "") -> dict[str, Any]:
    """Returns what later steps, also after a restart, need to find a partition again, or a volume on it."""
    inside = {"logical_volume": logical_volume, "subvolume": subvolume}
    return {"disk": disk_selector, "guid": partition_guid} | {key: value for key, value in inside.items() if value}


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
                volume = of_partition(context, selector, disk, partition)
                volume = replace(volume, subvolume=known.get("subvolume", ""))
                identifier = known.get("logical_volume", "")
                return await _logical(context, volume, identifier) if identifier else volume
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
    disk = known["disk"] if known else context.disks.selector(volume.backing)
    return record(disk, volume.guid, logical_volume=volume.logical_volume, subvolume=volume.subvolume)


def _kept(context: StepContext, guid: str) -> tuple[str, ...]:
    """Returns the directories that are kept on a partition, by whichever name a step called it."""
    known = {**context.volumes, **context.results.volumes}.values()
    return tuple(name for item in known if item["guid"] == guid for name in item.get("keep", ()))


def of_partition(context: StepContext, name: str, disk: Disk, partition: Existing) -> Volume:
    """Returns the partition as a volume of that name."""
    kept = _kept(context, partition.guid)
    return Volume(name, disk.path, partition.start_bytes, partition.size_bytes, kept, partition.guid)


async def logical_volumes(context: StepContext, partition: Volume) -> list[tuple[lvm.LogicalVolume, Volume]]:
    """Returns the logical volumes on a partition, each also as a volume.

    Raises:
        StepError: it is no physical volume, or the tools for it are not there.
    """
    async with attached(context, partition, read_only=True) as device:
        group = await lvm.read(context.tools, device)
    return [(found, _on_group(partition, found)) for found in group.volumes if found.pieces]


def _on_group(partition: Volume, found: lvm.LogicalVolume) -> Volume:
    pieces = tuple((partition.start_bytes + begin, size) for begin, size in found.pieces)
    return replace(
        partition,
        start_bytes=pieces[0][0],
        size_bytes=found.size_bytes,
        pieces=pieces if len(pieces) > 1 else (),
        logical_volume=found.identifier,
    )


async def _logical(context: StepContext, partition: Volume, identifier: str) -> Volume:
    for found, volume in await logical_volumes(context, partition):
        if found.identifier == identifier:
            return volume
    raise StepError(f"the volume {partition.name!r} is gone: its partition has no logical volume {identifier} any more")


async def _by_label(context: StepContext, selector: str) -> Volume:
    wanted = selector.removeprefix("label:")
    encrypted = 0
    found = []
    for disk in context.disks.all():
        for partition in await tables.read(context.tools, disk):
            volume = of_partition(context, selector, disk, partition)
            known = await about(context, volume)
            encrypted += known.get("TYPE") == "BitLocker"
            inside = [volume]
            if known.get("TYPE") == lvm.MEMBER:
                inside = [each for _, each in await logical_volumes(context, volume)]
            found += [each for each in inside if (await about(context, each)).get("LABEL") == wanted]
    if len(found) != 1:
        hint = f"; {encrypted} of the volumes are encrypted by BitLocker, so their labels cannot be read"
        raise StepError(f"{len(found) or 'no'} volumes have the label {wanted!r}" + (hint if encrypted else ""))
    return found[0]


@contextlib.asynccontextmanager
async def attached(context: StepContext, volume: Volume, *, read_only: bool = False) -> AsyncIterator[Path]:
    """Yields the block device that is the volume. Its sectors are those of its disk.

    Raises:
        StepError: it cannot be had; making loop devices needs root.
    """
    if volume.whole and volume.backing.is_block_device():
        yield volume.backing
        return
    tools, sector_bytes = context.tools, geometry.of_path(volume.backing)[1]
    if volume.pieces:
        device = loops.mapping(tools, volume.backing, volume.pieces, sector_bytes=sector_bytes, read_only=read_only)
    else:
        detach_stale_loops(volume.backing, offset_bytes=volume.start_bytes)
        piece = (volume.start_bytes, volume.size_bytes)
        device = loops.loop(tools, volume.backing, piece, sector_bytes=sector_bytes, read_only=read_only)
    async with device as path:
        yield path


async def about(context: StepContext, volume: Volume) -> dict[str, str]:
    """Returns what blkid knows about the file system on the volume: `TYPE`, `UUID`, `LABEL`; empty if it knows none."""
    if volume.pieces:
        async with attached(context, volume, read_only=True) as device:
            return await filesystems.probe(context.tools, device)
    return await filesystems.probe(
        context.tools, volume.backing, offset_bytes=volume.start_bytes, size_bytes=volume.size_bytes
    )


@contextlib.asynccontextmanager
async def mounted(
    context: StepContext, volume: Volume, *, read_only: bool = False, streams: Literal["xattr", "windows"] = "xattr"
) -> AsyncIterator[Path]:
    """Yields the directory at which the volume is mounted. What fails inside is said with the paths on the volume.

    The named streams of NTFS are extended attributes there, or files called `FILE:STREAM` as in Windows.

    Raises:
        StepError: it has no file system that can be mounted here, or not for writing.
    """
    async with attached(context, volume, read_only=read_only) as device, directory(context) as point:
        kind = (await filesystems.probe(context.tools, device)).get("TYPE", "")
        mode = "ro" if read_only else "rw"
        try:
            if kind == "ntfs":
                options = f"{mode},streams_interface={streams}"
                await context.tools.run(["ntfs-3g", "-o", options, device, point])
            elif kind == "btrfs":
                await btrfs.mount(context.tools, device, point, mode=mode, subvolume=volume.subvolume)
            elif kind in _KERNEL_FILESYSTEMS:
                # A running system that came from the same image has a file system of the same identity.
                options = f"{mode},nouuid" if kind == "xfs" else mode
                await context.tools.run(["mount", "-t", kind, "-o", options, device, point])
            else:
                raise StepError(f"the volume {volume.name!r} cannot be mounted: it holds {kind or 'no file system'}")
            if not read_only and _is_read_only(point):
                hint = "Windows on it was not shut down, or it is damaged" if kind == "ntfs" else "it is damaged"
                raise StepError(f"the volume {volume.name!r} can only be read: {hint}")
            with _named_as_on_volume(point):
                yield point
        finally:
            if point.is_mount():
                await unmount(context, point)


@contextlib.contextmanager
def _named_as_on_volume(point: Path) -> Iterator[None]:
    """Lets errors name the files as a person finds them on the volume, not by where it is mounted for a moment."""
    try:
        yield
    except StepError as error:
        if str(point) not in error.message:
            raise
        raise StepError(_below(point, error.message), exit_code=error.exit_code) from error
    except OSError as error:
        if error.filename is None or str(point) not in os.fsdecode(error.filename):
            raise
        other = None if error.filename2 is None else _below(point, os.fsdecode(error.filename2))
        raise OSError(error.errno, error.strerror, _below(point, os.fsdecode(error.filename)), None, other) from error


def _below(point: Path, text: str) -> str:
    return text.replace(f"{point}/", "/").replace(str(point), "/")


@contextlib.asynccontextmanager
async def directory(context: StepContext) -> AsyncIterator[Path]:
    """Yields an empty directory to mount something at."""
    point = Path(tempfile.mkdtemp(prefix="mount-", dir=context.step_directory))
    try:
        yield point
    finally:
        await asyncio.to_thread(point.rmdir)


async def unmount(context: StepContext, point: Path) -> None:
    """Unmounts what is mounted at `point`, and below it, once nothing uses it any more.

    Raises:
        StepError: something uses it for long.
    """
    for attempt in range(20):
        finished = await context.tools.run(["umount", "--recursive", point], success_codes=(0, 1, 32), quiet=True)
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
