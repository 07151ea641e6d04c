"""Systems inside a partition, on a logical volume or in a subvolume of btrfs: found, and grown with it."""

from __future__ import annotations

from dataclasses import replace

from fleetcast_agent.sequence.context import StepContext
from fleetcast_agent.sequence.disks import btrfs, filesystems, loops, lvm, volumes
from fleetcast_agent.sequence.disks.disk_images import looking, roles
from fleetcast_agent.sequence.disks.disk_images.roles import Facts
from fleetcast_agent.sequence.disks.lvm import Group, LogicalVolume
from fleetcast_agent.sequence.disks.volumes import Volume
from fleetcast_agent.sequence.errors import StepError


async def inside(context: StepContext, partition: Volume, facts: Facts) -> Volume:
    """Returns the volume with the system inside a partition: the partition itself if there is nothing else.

    Raises:
        StepError: none of its logical volumes is the system, or several may be.
    """
    if facts.filesystem == lvm.MEMBER:
        found = {each.name: volume for each, volume in await volumes.logical_volumes(context, partition)}
        best = roles.best_volume({name: await looking.facts(context, volume) for name, volume in found.items()})
        if len(best) != 1:
            which = f"several may be the system ({', '.join(best)})" if best else "none holds a system that is known"
            raise StepError(f"of the logical volumes on partition {partition.name}, {which}: name one by `label:...`")
        return await inside(context, found[best[0]], await looking.facts(context, found[best[0]]))
    if facts.filesystem == "btrfs":
        async with (
            volumes.attached(context, partition, read_only=True) as device,
            volumes.directory(context) as point,
        ):
            return replace(partition, subvolume=await btrfs.root_subvolume(context.tools, device, point))
    return partition


async def grow(context: StepContext, partition: Volume, system: Volume) -> tuple[Volume, str]:
    """Grows what is inside a partition to fill it. Returns the system's volume as it is then, and what did not grow.

    Raises:
        StepError: a tool failed.
    """
    if not system.logical_volume:
        return system, await grow_file_system(context, system)
    problem = await _grow_group(context, partition, system.logical_volume)
    for found, volume in await volumes.logical_volumes(context, partition):
        if found.identifier == system.logical_volume:
            system = replace(volume, name=system.name, subvolume=system.subvolume)
    return system, problem or await grow_file_system(context, system)


async def grow_file_system(context: StepContext, volume: Volume) -> str:
    """Grows the file system of a volume to fill it; returns why it cannot be.

    Raises:
        StepError: a tool failed.
    """
    async with volumes.attached(context, volume) as device, volumes.directory(context) as point:
        return await filesystems.grow(context.tools, device, point)


async def _grow_group(context: StepContext, partition: Volume, identifier: str) -> str:
    async with volumes.attached(context, partition) as device:
        await lvm.grow_group(context.tools, device)
        group = await lvm.read(context.tools, device)
    if group.disk_count > 1:
        return f"the volume group {group.name} is on {group.disk_count} disks"
    root = next(volume for volume in group.volumes if volume.identifier == identifier)
    end = root.extents[-1][1] + 1
    behind = sorted((each for each in group.volumes if each.extents and each.extents[0][0] >= end), key=_first)
    swaps = await _swaps(context, partition, behind)
    if behind and len(swaps) == len(behind):
        await _move_swaps(context, partition, group, behind, swaps)
    elif group.free_after(end) == 0 and not loops.has_device_mapper():
        names = ", ".join(volume.name for volume in behind)
        return f"{names} stands behind it in the volume group {group.name}, and this kernel has no device mapper"
    async with volumes.attached(context, partition) as device:
        group = await lvm.read(context.tools, device)
        if group.free_extents:
            await lvm.extend(context.tools, device, group, root)
    return ""


async def _swaps(context: StepContext, partition: Volume, found: list[LogicalVolume]) -> dict[str, Facts]:
    """Returns what is on those logical volumes that are swap space in one part, by their names."""
    facts = {
        each.name: await looking.facts(context, volume)
        for each, volume in await volumes.logical_volumes(context, partition)
        if each in found and len(each.extents) == 1
    }
    return {name: about for name, about in facts.items() if about.filesystem == "swap"}


async def _move_swaps(
    context: StepContext, partition: Volume, group: Group, behind: list[LogicalVolume], swaps: dict[str, Facts]
) -> None:
    """Makes the swap volumes anew at the end of the group, so that the system before them grows in one part."""
    limit = group.extent_count
    async with volumes.attached(context, partition) as device:
        for swap in reversed(behind):
            first, last = swap.extents[0]
            limit -= last - first + 1
            if limit > first:
                await lvm.place_anew(context.tools, device, group, swap, limit)
    for each, volume in await volumes.logical_volumes(context, partition):
        if each.name in swaps:
            about = swaps[each.name]
            async with volumes.attached(context, volume) as device:
                await filesystems.make_swap_again(context.tools, device, label=about.label, uuid=about.uuid)


def _first(volume: LogicalVolume) -> int:
    return volume.extents[0][0]
