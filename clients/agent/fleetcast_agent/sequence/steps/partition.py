"""Steps that partition disks and format volumes."""

from __future__ import annotations

import asyncio

from fleetcast_sequence.steps.disk import LAYOUTS, FormatVolume, PartitionDisk

from fleetcast_agent.sequence.context import StepContext
from fleetcast_agent.sequence.disks import files, filesystems, volumes
from fleetcast_agent.sequence.disks import partition_tables as tables
from fleetcast_agent.sequence.errors import StepError


async def partition_disk(arguments: PartitionDisk, context: StepContext) -> None:
    """Writes the table, formats what it says, and names the volumes."""
    wanted = LAYOUTS[arguments.layout] if arguments.layout else arguments
    disk = context.disks.erasable(arguments.disk, arguments.protect)
    await volumes.refuse_if_kept(context, disk)
    planned = tables.plan(wanted.partitions, wanted.table, disk.size_bytes)
    await asyncio.to_thread(context.disks.clean_up, context.step_directory)
    existing = {
        partition.number: partition for partition in await tables.write(context.tools, disk, planned, wanted.table)
    }
    context.results.volumes.update(
        {item.partition.name: volumes.record(arguments.disk, existing[item.number].guid) for item in planned}
    )
    for done, item in enumerate(planned):
        context.progress(done / len(planned))
        await context.control.go()
        if item.partition.filesystem is not None:
            await _format(context, item.partition.name, item.partition.filesystem, item.partition.label)


async def format_volume(arguments: FormatVolume, context: StepContext) -> None:
    """Makes the file system, or empties it."""
    volume = await volumes.find(context, arguments.volume)
    context.disks.guard(volume.backing)
    if arguments.filesystem is not None:
        if volume.keep:
            kept = ", ".join(volume.keep)
            raise StepError(
                f"the volume {volume.name!r} holds what is to be kept ({kept}): use `keep`, not `filesystem`"
            )
        await volumes.hold(context, arguments.volume, volume)
        await _format(context, arguments.volume, arguments.filesystem, arguments.label)
    else:
        volumes.keep(context, arguments.volume, volume, [*volume.keep, *arguments.keep])
        await files.empty(context, await volumes.find(context, arguments.volume))


async def _format(context: StepContext, name: str, filesystem: str, label: str) -> None:
    volume = await volumes.find(context, name)
    async with volumes.attached(context, volume) as device:
        await filesystems.make(context.tools, device, filesystem, label=label, start_bytes=volume.start_bytes)
