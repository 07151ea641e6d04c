"""Steps that write images: raw ones in place, WIM and ESD files by wimlib."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from fleetcast_sequence.quantities import format_size
from fleetcast_sequence.steps.content import ApplyDataImage, ApplyOperatingSystem

from fleetcast_agent.sequence import files, filesystems, spool, tables, volumes
from fleetcast_agent.sequence.content import delete_content
from fleetcast_agent.sequence.context import StepContext
from fleetcast_agent.sequence.errors import StepError
from fleetcast_agent.sequence.volumes import Volume

FETCH_SHARE = 0.6
"""Part of the step's progress that fetching a WIM is; the rest is applying it."""
_PERCENT = re.compile(r"\((\d+)%\)")


async def apply_operating_system(arguments: ApplyOperatingSystem, context: StepContext) -> None:
    """Writes the system."""
    if arguments.disk is not None:
        await _to_disk(arguments, arguments.disk, context)
    else:
        await _to_volume(arguments, str(arguments.volume), context)


async def apply_data_image(arguments: ApplyDataImage, context: StepContext) -> None:
    """Writes the data."""
    await _to_volume(arguments, arguments.volume, context)


async def _to_disk(arguments: ApplyOperatingSystem, selector: str, context: StepContext) -> None:
    image = await context.content.describe(arguments.image)
    if image.is_wim:
        raise StepError(f"{arguments.image} is a WIM: it goes onto a volume, not onto a disk")
    disk = context.disks.erasable(selector)
    if image.size_bytes > disk.size_bytes:
        sizes = f"{format_size(image.size_bytes)}, the disk {disk.path} {format_size(disk.size_bytes)}"
        raise StepError(f"{arguments.image} does not fit: it has {sizes}")
    await volumes.refuse_if_kept(context, disk)
    await context.content.fetch(arguments.image, disk.path, delivery=arguments.delivery, progress=context.progress)
    await tables.tell_kernel(context.tools, disk)
    if arguments.grow:
        grown = await tables.grow_last(context.tools, disk)
        if grown is not None:
            await _grow(context, volumes.of_partition(context, "the last one", disk, grown))
    if arguments.root is not None:
        partitions = await tables.read(context.tools, disk)
        if not partitions:
            raise StepError(
                f"{arguments.image} has no partition table, so there is no volume to call {arguments.root!r}"
            )
        largest = max(partitions, key=lambda partition: partition.size_bytes)
        context.results.volumes[arguments.root] = volumes.record(selector, largest)


async def _to_volume(arguments: ApplyOperatingSystem | ApplyDataImage, selector: str, context: StepContext) -> None:
    volume = await volumes.find(context, selector)
    context.disks.guard(volume.backing)
    image = await context.content.describe(arguments.image)
    if image.is_wim:
        await _wim(arguments, volume, context)
        return
    if volume.keep:
        raise StepError(f"{arguments.image} is a raw image: it would overwrite what the volume {volume.name!r} keeps")
    if image.size_bytes > volume.size_bytes:
        sizes = f"{format_size(image.size_bytes)}, the volume {format_size(volume.size_bytes)}"
        raise StepError(f"{arguments.image} does not fit: it has {sizes}")
    async with volumes.attached(context, volume) as device:
        await context.content.fetch(arguments.image, device, delivery=arguments.delivery, progress=context.progress)
    if arguments.grow:
        await _grow(context, volume)


async def _grow(context: StepContext, volume: Volume) -> None:
    async with volumes.attached(context, volume) as device, volumes.directory(context) as point:
        await filesystems.grow(context.tools, device, point)


async def _wim(arguments: ApplyOperatingSystem | ApplyDataImage, volume: Volume, context: StepContext) -> None:
    kind = await files.kind_of(context, volume)
    if kind not in ("ntfs", "ext4", "xfs"):
        raise StepError(
            f"a WIM goes onto NTFS, ext4 or XFS: the volume {volume.name!r} holds {kind or 'no file system'}"
        )
    async with spool.opened(context, arguments.spool) as directory:
        wim = directory / "image.wim"
        await context.content.fetch(
            arguments.image, wim, delivery=arguments.delivery, progress=_scaled(context.progress, 0, FETCH_SHARE)
        )
        await context.tools.run(["wimlib-imagex", "info", wim, str(arguments.index)], quiet=True)
        await context.control.go()
        await _erase(context, volume, kind)
        await _extract(context, volume, kind, wim, str(arguments.index))
        delete_content(wim)


async def _erase(context: StepContext, volume: Volume, kind: str) -> None:
    """Empties the volume: an attempt before this one may have written half of an image."""
    if volume.keep:
        await files.empty(context, volume)
        return
    place = {"offset_bytes": volume.start_bytes, "size_bytes": volume.size_bytes}
    label = (await filesystems.probe(context.tools, volume.backing, **place)).get("LABEL", "")
    async with volumes.attached(context, volume) as device:
        await filesystems.make(context.tools, device, kind, label=label, start_bytes=volume.start_bytes)


async def _extract(context: StepContext, volume: Volume, kind: str, wim: Path, index: str) -> None:
    def note(line: str) -> None:
        if found := _PERCENT.search(line):
            context.progress(FETCH_SHARE + (1 - FETCH_SHARE) * int(found[1]) / 100)

    command: list[str | Path] = ["wimlib-imagex", "apply", wim, index]
    if kind == "ntfs":
        async with volumes.attached(context, volume) as device:
            # Given a path that does not exist, wimlib makes a directory of that name and succeeds.
            if not device.is_block_device():
                raise StepError(f"{device} is no block device")
            await context.tools.run([*command, device], progress=note)
    else:
        async with volumes.mounted(context, volume) as root:
            await context.tools.run([*command, root, "--unix-data"], progress=note)


def _scaled(progress: Callable[[float], None], begin: float, end: float) -> Callable[[float], None]:
    return lambda fraction: progress(begin + (end - begin) * fraction)
