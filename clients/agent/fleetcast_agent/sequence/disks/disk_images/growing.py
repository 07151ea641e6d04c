"""What becomes of the partitions of an image on a larger disk: which grows, and where those behind it go. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from fleetcast_sequence.quantities import format_size

from fleetcast_agent.sequence.disks.disk_images import roles
from fleetcast_agent.sequence.disks.disk_images.roles import Facts
from fleetcast_agent.sequence.disks.tables import table as tables
from fleetcast_agent.sequence.disks.tables.model import Existing, Table
from fleetcast_agent.sequence.machine.geometry import ALIGNMENT_BYTES, aligned_down

_FIXED_SIZE = ("BitLocker",)
"""What knows its own size and is grown by its own system alone."""

_WORTH_MOVING_BYTES = 16 << 20
"""For less room nothing is moved: installers leave so much at the end of a disk."""


@dataclass(frozen=True)
class Move:
    """A partition that goes to another place."""

    partition: Existing
    start_bytes: int
    """Its new begin."""
    recreate: bool
    """It is swap: nothing in it needs to be copied."""


@dataclass(frozen=True)
class Plan:
    """The new places."""

    places: dict[int, tuple[int, int]]
    """New begin and size of each partition that changes, by its number; the extended one included."""
    moves: tuple[Move, ...]
    """In the order in which none overwrites another: from the end of the disk."""
    problem: str = ""
    """Why the partition cannot grow, or not as far as the disk reaches; empty if it can."""


def plan(table: Table, target: Existing, facts: Mapping[int, Facts], size_bytes: int) -> Plan:
    """Returns how `target` grows to the end of a disk of `size_bytes`, what stands behind it keeping its size."""
    here = facts.get(target.number, Facts())
    end = aligned_down(tables.usable_bytes(table, size_bytes))
    behind = [partition for partition in table.volumes if partition.start_bytes > target.start_bytes]
    last_end = max([target.end_bytes, *(partition.end_bytes for partition in behind)])
    if end - last_end < (_WORTH_MOVING_BYTES if behind else ALIGNMENT_BYTES):
        return Plan({}, (), _unreached(table, size_bytes))
    stays = _what_stays(table, target, here, behind, facts)
    if stays:
        return Plan({}, (), stays)
    places, moves, limit = {}, [], end
    for partition in reversed(behind):
        start = aligned_down(limit - partition.size_bytes)
        places[partition.number] = (start, partition.size_bytes)
        swap = facts.get(partition.number, Facts()).filesystem == "swap"
        moves.append(Move(partition, start, recreate=swap))
        limit = start - (partition.start_bytes - partition.link_bytes if partition.logical else 0)
        if partition.logical and not target.logical and _is_first(table, partition):
            limit -= ALIGNMENT_BYTES  # for the first record, where the extended partition begins
    size = aligned_down(limit) - target.start_bytes
    if size <= target.size_bytes:
        return Plan({}, (), _unreached(table, size_bytes))
    places[target.number] = (target.start_bytes, size)
    extended = table.extended
    if extended is not None and extended.end_bytes > target.start_bytes:
        places[extended.number] = _around_logical(table, target, places, end)
    return Plan(places, tuple(moves), _unreached(table, size_bytes))


def _what_stays(table: Table, target: Existing, here: Facts, behind: list[Existing], facts: Mapping[int, Facts]) -> str:
    """Returns what keeps the partition from growing."""
    if table.hybrid:
        return "its partitions are in two tables (a hybrid MBR beside the GPT), which must stay the same"
    if any(one.end_bytes > other.start_bytes for one, other in pairwise(table.volumes)):
        return "its partitions overlap"
    if here.filesystem in _FIXED_SIZE:
        return f"{roles.named(target, here)} is encrypted by {here.filesystem}: only its own system can grow it"
    for partition in behind:
        if roles.is_fixed(partition):
            found = roles.named(partition, facts.get(partition.number))
            return f"{found} stands behind it, which the bootloader finds by its place"
    extended = table.extended
    if extended is not None and extended.start_bytes > target.start_bytes and not any(p.logical for p in behind):
        return f"an empty extended partition ({extended.number}) stands behind it"
    return ""


def _is_first(table: Table, partition: Existing) -> bool:
    return partition == min((each for each in table.partitions if each.logical), key=lambda each: each.start_bytes)


def _around_logical(table: Table, target: Existing, places: Mapping[int, tuple[int, int]], end: int) -> tuple[int, int]:
    """Returns the place of the extended partition around its logical ones in their new places."""
    extended = table.extended
    assert extended is not None  # noqa: S101 - its caller looked
    logical = [each for each in table.partitions if each.logical]
    now = {each.number: places.get(each.number, (each.start_bytes, each.size_bytes)) for each in logical}
    start = extended.start_bytes
    if not target.logical:
        first = min(logical, key=lambda each: each.start_bytes)
        start = now[first.number][0] - (first.start_bytes - first.link_bytes) - ALIGNMENT_BYTES
    behind = [place[0] for number, place in places.items() if number not in now and place[0] > target.start_bytes]
    reach = min(behind) if target.logical and behind else max(begin + size for begin, size in now.values())
    return start, (reach if behind else end) - start


def _unreached(table: Table, size_bytes: int) -> str:
    """Returns what of the disk the table cannot reach."""
    left = size_bytes - tables.usable_bytes(table, size_bytes)
    if table.kind == "mbr" and left > table.sector_bytes:
        return f"its table (MBR) does not reach the last {format_size(left)} of the disk: such a disk wants a GPT"
    return ""
