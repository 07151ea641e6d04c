"""An image of a disk on a disk that may be larger: what it must be, and what is done to it once it is there."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Any

from fleetcast_sequence.quantities import format_size

from fleetcast_agent.sequence.context import StepContext
from fleetcast_agent.sequence.disks import files, filesystems, leftovers, volumes
from fleetcast_agent.sequence.disks import partition_tables as disk_tables
from fleetcast_agent.sequence.disks.disk_images import growing, logical, looking, moving, roles, winre
from fleetcast_agent.sequence.disks.disk_images.foreign import foreign_kind
from fleetcast_agent.sequence.disks.disk_images.growing import Move, Plan
from fleetcast_agent.sequence.disks.disk_images.roles import Choice, Facts
from fleetcast_agent.sequence.disks.tables import table as tables
from fleetcast_agent.sequence.disks.tables.model import DamagedTableError, Existing, Table
from fleetcast_agent.sequence.disks.volumes import Volume
from fleetcast_agent.sequence.errors import StepError
from fleetcast_agent.sequence.machine.disks import Disk
from fleetcast_agent.sequence.machine.geometry import SECTOR_SIZES, gpt_sector_bytes
from fleetcast_agent.sequence.slices import in_slices


def shows_table(head: bytes, size_bytes: int) -> bool:
    """Returns whether the beginning of an image tells its table and its sectors, or that it has none.

    A GPT does so by its place. Of the sectors of an MBR table the beginnings of partitions tell, which come later.
    """

    def read(offset: int, length: int) -> bytes:
        return head[offset : offset + length]

    try:
        table = tables.read_from(read, gpt_sector_bytes(read) or SECTOR_SIZES[0], size_bytes)
    except DamagedTableError:
        return False
    return table is None or table.kind == "gpt"


def refuse_unfit(image: str, head: bytes, size_bytes: int, disk: Disk, *, root: str | None, grow: bool) -> None:
    """Does nothing if an image that begins with `head` can become a system on the disk, by all that its table says.

    Raises:
        StepError: it cannot; nothing was written yet.
    """
    if kind := foreign_kind(head):
        raise StepError(
            f"{image} is {kind}, and no image of a disk: import the file again (`fleetcast image import` converts or "
            "refuses it), or convert it first. Nothing was written"
        )

    def read(offset: int, length: int) -> bytes:
        return head[offset : offset + length]

    sector_bytes = tables.sector_bytes_of(read, size_bytes)
    if disk.is_device and sector_bytes not in (None, disk.sector_bytes):
        raise StepError(
            f"{image} was made from a disk with sectors of {sector_bytes} bytes, and {disk.path} has sectors of "
            f"{disk.sector_bytes}: nothing could read its partition table there. Take an image of such a disk, or "
            "a WIM with `partition-disk`"
        )
    try:
        table = tables.read_from(read, sector_bytes or disk.sector_bytes, size_bytes)
    except DamagedTableError as error:
        if root is None and not grow:
            return
        raise StepError(f"{image} is damaged: {error}. Nothing was written") from error
    if table is None:
        if root is not None:
            raise StepError(f"{image} has no partition table, so there is no volume to call {root!r}")
        return
    end = max(partition.end_bytes for partition in table.partitions)
    if end > disk.size_bytes:
        sizes = f"partitions up to {format_size(end)}, and {disk.path} has {format_size(disk.size_bytes)}"
        raise StepError(f"{image} is only a part of an image: it has {sizes}")
    # What the head does not show may be the system: a logical partition.
    if root is not None and table.extended is None and not any(map(roles.may_hold_system, table.volumes)):
        found = ", ".join(map(roles.named, table.volumes))
        raise StepError(f"{image} has no partition that could be {root!r}: it has {found}")


async def settle(
    context: StepContext, selector: str, disk: Disk, image: str, *, root: str | None, grow: bool
) -> dict[str, Any] | None:
    """Grows the system of an image that is on the disk, and returns what later steps need to find it.

    None is returned where no system could be chosen, and none was asked for.

    Raises:
        StepError: `root` was asked for and cannot be told from others, or a tool failed.
    """
    table = await disk_tables.table_of(disk)
    if table is None or not table.volumes:
        if root is not None:
            raise StepError(f"{image} has no partition table, so there is no volume to call {root!r}")
        if grow:
            context.remark(f"nothing was grown: {image} has no partition table")
        return None
    settling = _Settling(context, disk, table, await looking.facts_of(context, disk, table))
    try:
        choice = roles.system(table, settling.facts)
        if choice.partition is None:
            raise StepError(_not_chosen(image, choice, table, settling.facts))
        system = await settling.inside(choice.partition)
    except StepError as error:
        if root is not None:
            advice = "Leave out `root`, and name volumes in later steps by `label:...`"
            raise StepError(f"{error.message}. {advice}") from error
        if grow:
            await settling.place(Plan({}, ()))
            context.remark(f"nothing was grown: {error.message}")
        return None
    if grow:
        system = await settling.grow(choice.partition, system)
    inside = {"logical_volume": system.logical_volume, "subvolume": system.subvolume}
    return volumes.record(selector, choice.partition.guid, **inside)


@dataclass(frozen=True)
class _Settling:
    """A disk with the image on it."""

    context: StepContext
    disk: Disk
    table: Table
    facts: dict[int, Facts]

    async def inside(self, target: Existing) -> Volume:
        """Returns the volume with the system on the partition chosen."""
        volume = volumes.of_partition(self.context, str(target.number), self.disk, target)
        return await logical.inside(self.context, volume, self.facts[target.number])

    async def grow(self, target: Existing, system: Volume) -> Volume:
        """Grows the partition with the system, and the system in it; returns the system's volume as it is then."""
        plan = growing.plan(self.table, target, self.facts, self.disk.size_bytes)
        await self.place(plan)
        for move in plan.moves:
            await self._follow(target, move)
        start, size = plan.places.get(target.number, (target.start_bytes, target.size_bytes))
        grown = replace(target, start_bytes=start, size_bytes=size)
        partition = volumes.of_partition(self.context, str(target.number), self.disk, grown)
        if not system.logical_volume:
            system = replace(partition, subvolume=system.subvolume)
        system, problem = await logical.grow(self.context, partition, system)
        for reason in filter(None, (plan.problem, problem)):
            what = roles.named(target, self.facts[target.number])
            self.context.remark(f"{what} did not grow as far as it could: {reason}")
        return system

    async def place(self, plan: Plan) -> None:
        """Moves the partitions and writes the table, with its copy at the end of the disk."""
        for move in plan.moves:
            how = "is made anew" if move.recreate else "is moved"
            self.context.log(f"{roles.named(move.partition)} {how}: it stands behind the one that grows")
        disk = self.disk.path
        await in_slices(self.context.control, moving.moved(disk, plan.moves, self.table.sector_bytes))
        moved = {move.partition.number for move in plan.moves}
        anew = {move.partition.number for move in plan.moves if move.recreate}
        for partition in self.table.volumes:
            start, size = plan.places.get(partition.number, (0, 0))
            if partition.number in anew:
                await asyncio.to_thread(leftovers.clear_both_ends, disk, start, start + size)
            elif size and partition.number not in moved:
                await asyncio.to_thread(leftovers.clear_end, disk, partition.end_bytes, start + size)
        if self.table.kind == "gpt" or plan.places:
            await asyncio.to_thread(tables.write, disk, self.table, self.disk.size_bytes, plan.places)
        await disk_tables.tell_kernel(self.context.tools, self.disk)

    async def _follow(self, target: Existing, move: Move) -> None:
        """Does what a moved partition needs to be found where it is now."""
        context, about = self.context, self.facts[move.partition.number]
        if move.recreate:
            there = replace(move.partition, start_bytes=move.start_bytes)
            swap = volumes.of_partition(context, str(there.number), self.disk, there)
            async with volumes.attached(context, swap) as device:
                await filesystems.make_swap_again(context.tools, device, label=about.label, uuid=about.uuid)
            return
        if self.facts[target.number].content != "windows" or not roles.is_recovery(move.partition, about):
            return
        windows = volumes.of_partition(context, "Windows", self.disk, target)
        async with files.opened(context, windows) as tree:
            noted = await winre.note_move(tree, move.partition.start_bytes, move.start_bytes)
        if noted and self.table.kind == "mbr":
            context.remark(
                f"{roles.named(move.partition, about)} was moved. Windows' boot menu may look for it where it was: "
                "run `reagentc /disable` and `reagentc /enable` in the new system"
            )


def _not_chosen(image: str, choice: Choice, table: Table, facts: dict[int, Facts]) -> str:
    found = choice.rivals or table.volumes
    names = ", ".join(roles.named(partition, facts.get(partition.number)) for partition in found)
    if choice.rivals:
        return f"{image} has several partitions that may be the system: {names}"
    return f"{image} has no partition with a system that is known: it has {names}"
