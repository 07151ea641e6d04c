"""Steps that write images: raw ones in place, WIM and ESD files by wimlib."""

from __future__ import annotations

import asyncio

from fleetcast_sequence.quantities import format_size
from fleetcast_sequence.steps.content import ApplyDataImage, ApplyOperatingSystem

from fleetcast_agent.receiving.messages import HEAD_BYTES
from fleetcast_agent.sequence.context import StepContext
from fleetcast_agent.sequence.disks import filesystems, leftovers, volumes
from fleetcast_agent.sequence.disks import partition_tables as tables
from fleetcast_agent.sequence.disks.disk_images import logical, settling
from fleetcast_agent.sequence.errors import StepError
from fleetcast_agent.sequence.machine import geometry
from fleetcast_agent.sequence.steps import wim


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

    async def examine(head: bytes) -> bool:
        if len(head) < min(image.size_bytes, HEAD_BYTES) and not settling.shows_table(head, image.size_bytes):
            return True
        settling.refuse_unfit(arguments.image, head, image.size_bytes, disk, root=arguments.root, grow=arguments.grow)
        await asyncio.to_thread(leftovers.clear_uncovered, disk, image.size_bytes)
        return False

    await context.content.fetch(
        arguments.image, disk.path, delivery=arguments.delivery, progress=context.progress, examine=examine
    )
    await tables.tell_kernel(context.tools, disk)
    disk = context.disks.find(selector)  # a file has the sectors of the table in it
    if arguments.grow or arguments.root is not None:
        found = await settling.settle(
            context, selector, disk, arguments.image, root=arguments.root, grow=arguments.grow
        )
        if arguments.root is not None and found is not None:
            context.results.volumes[arguments.root] = found


async def _to_volume(arguments: ApplyOperatingSystem | ApplyDataImage, selector: str, context: StepContext) -> None:
    volume = await volumes.find(context, selector)
    context.disks.guard(volume.backing)
    image = await context.content.describe(arguments.image)
    if image.is_wim:
        await wim.apply(arguments, image, volume, context)
        return
    if volume.keep:
        raise StepError(f"{arguments.image} is a raw image: it would overwrite what the volume {volume.name!r} keeps")
    if image.size_bytes > volume.size_bytes:
        sizes = f"{format_size(image.size_bytes)}, the volume {format_size(volume.size_bytes)}"
        raise StepError(f"{arguments.image} does not fit: it has {sizes}")
    await volumes.hold(context, selector, volume)

    async def examine(head: bytes) -> bool:
        filesystems.refuse_other_sectors(arguments.image, head, geometry.of_path(volume.backing)[1])
        covered = volume.start_bytes + image.size_bytes
        await asyncio.to_thread(leftovers.clear_end, volume.backing, covered, volume.start_bytes + volume.size_bytes)
        return False

    async with volumes.attached(context, volume) as device:
        await context.content.fetch(
            arguments.image, device, delivery=arguments.delivery, progress=context.progress, examine=examine
        )
    if arguments.grow and (problem := await logical.grow_file_system(context, volume)):
        context.remark(f"the file system on {volume.name!r} did not grow: {problem}")
