from __future__ import annotations

from dataclasses import replace

from fleetcast_agent.sequence.disks.disk_images.growing import plan
from fleetcast_agent.sequence.disks.disk_images.roles import Facts
from fleetcast_agent.sequence.disks.tables import table as tables
from fleetcast_agent.sequence.disks.tables.model import Existing, Table
from hypothesis import given
from hypothesis import strategies as st

MIB = 1 << 20
LINUX, SWAP, BIOS = (
    "0FC63DAF-8483-4772-8E79-3D69D8477DE4",
    "0657FD6D-A4AB-43C4-84E5-0933C84B4F4F",
    "21686148-6449-6E6F-744E-656564454649",
)


@st.composite
def layouts(draw: st.DrawFn) -> tuple[Table, int, int]:
    """Returns a table, the number of the partition to grow, and the size of the disk."""
    kind = draw(st.sampled_from(["gpt", "mbr"]))
    sector = draw(st.sampled_from([512, 4096]))
    sizes = draw(st.lists(st.integers(1, 500 * MIB // sector), min_size=1, max_size=6 if kind == "gpt" else 3))
    logical = draw(st.lists(st.integers(1, 500 * MIB // sector), max_size=4)) if kind == "mbr" else []
    gap = draw(st.sampled_from([1, 63, 2, MIB // sector]))
    found, at = [], draw(st.sampled_from([63, MIB // sector]))
    for number, size in enumerate(sizes, 1):
        at += draw(st.integers(0, 5000))
        found.append(Existing(number, at * sector, size * sector, f"{number}", LINUX if kind == "gpt" else "83"))
        at += size
    if logical:
        base = at
        for number, size in enumerate(logical, 5):
            link, at = at, at + gap
            found.append(Existing(number, at * sector, size * sector, f"{number}", "83", link_bytes=link * sector))
            at += size
        found.append(Existing(len(sizes) + 1, base * sector, (at - base) * sector, "e", "5"))
    found.sort(key=lambda each: (each.start_bytes, -each.size_bytes))
    table = Table("gpt" if kind == "gpt" else "mbr", sector, tuple(found))
    target = draw(st.sampled_from([each.number for each in table.volumes]))
    disk = at * sector + draw(st.sampled_from([0, MIB, 20 * MIB, 1000 * MIB, 3 << 40])) + 40 * sector
    return table, target, disk // sector * sector


@given(layouts())
def test_places_lie_one_after_the_other_inside_the_disk_and_none_but_one_changes_its_size(
    case: tuple[Table, int, int],
) -> None:
    table, number, disk_bytes = case
    target = next(each for each in table.volumes if each.number == number)
    made = plan(table, target, {}, disk_bytes)
    now = {each.number: made.places.get(each.number, (each.start_bytes, each.size_bytes)) for each in table.partitions}
    end = 0
    for each in table.volumes:
        start, size = now[each.number]
        link = start - (each.start_bytes - each.link_bytes) if each.logical else start
        assert link >= end, "each is behind the one before it, and so is the record before a logical one"
        end = start + size
        if each.number == number:
            assert start == each.start_bytes
            assert size >= each.size_bytes
        else:
            assert size == each.size_bytes
            assert start == each.start_bytes or each.start_bytes > target.start_bytes
        assert start % table.sector_bytes == size % table.sector_bytes == 0
    if made.places:
        assert end <= tables.usable_bytes(table, disk_bytes)
    if table.extended is not None:
        start, size = now[table.extended.number]
        inside = [each for each in table.partitions if each.logical]
        assert all(start <= now[each.number][0] - table.sector_bytes for each in inside)
        assert all(now[each.number][0] + now[each.number][1] <= start + size for each in inside)
        outside = [now[each.number] for each in table.volumes if not each.logical]
        assert all(begin + length <= start or begin >= start + size for begin, length in outside)


@given(layouts())
def test_moves_come_in_an_order_in_which_none_overwrites_what_is_yet_to_be_moved(
    case: tuple[Table, int, int],
) -> None:
    table, number, disk_bytes = case
    target = next(each for each in table.volumes if each.number == number)
    moves = plan(table, target, {}, disk_bytes).moves
    for index, move in enumerate(moves):
        end = move.start_bytes + move.partition.size_bytes
        assert move.start_bytes > move.partition.start_bytes
        for later in moves[index + 1 :]:
            assert later.partition.end_bytes <= move.start_bytes or later.partition.start_bytes >= end


def disk(*types: str) -> Table:
    found = [Existing(n, n * 100 * MIB, 100 * MIB, f"{n}", kind) for n, kind in enumerate(types, 1)]
    return Table("gpt", 512, tuple(found))


def test_swap_is_made_anew_and_not_copied() -> None:
    table = disk(LINUX, SWAP)
    made = plan(table, table.partitions[0], {2: Facts("swap")}, 1000 * MIB)
    assert [(move.partition.number, move.recreate) for move in made.moves] == [(2, True)]
    # A hibernated system is in it: that is content.
    made = plan(table, table.partitions[0], {2: Facts("swsuspend")}, 1000 * MIB)
    assert [(move.partition.number, move.recreate) for move in made.moves] == [(2, False)]


def test_what_the_bootloader_finds_by_its_place_is_not_moved() -> None:
    table = disk(LINUX, BIOS)
    made = plan(table, table.partitions[0], {}, 1000 * MIB)
    assert not made.places
    assert "BIOS boot partition" in made.problem


def test_two_tables_of_one_disk_stay_the_same() -> None:
    made = plan(replace(disk(LINUX), hybrid=True), disk(LINUX).partitions[0], {}, 1000 * MIB)
    assert not made.places
    assert "hybrid MBR" in made.problem


def test_what_an_mbr_table_cannot_reach_is_said() -> None:
    table = Table("mbr", 512, (Existing(1, MIB, 100 * MIB, "1", "7"),))
    made = plan(table, table.partitions[0], {}, 4 << 40)
    assert sum(made.places[1]) <= (1 << 32) * 512
    assert "does not reach the last 2.0 TiB" in made.problem or "does not reach the last 2 TiB" in made.problem
