from __future__ import annotations

import pytest
from fleetcast_agent.sequence.disks.partition_tables import plan, script
from fleetcast_agent.sequence.errors import StepError
from fleetcast_agent.sequence.machine.geometry import ALIGNMENT_BYTES
from fleetcast_sequence.steps.disk import LAYOUTS, Partition
from hypothesis import given
from hypothesis import strategies as st

MIB = 1 << 20
sizes = st.one_of(st.integers(1, 500).map(lambda mib: mib * MIB + 17), st.sampled_from(["5%", "33.3%"]))


@given(st.lists(sizes, max_size=6), st.integers(0, 5), st.integers(1 << 30, 1 << 40), st.sampled_from(["gpt", "mbr"]))
def test_partitions_are_aligned_in_order_and_inside_the_disk(
    wanted: list[int | str], rest_at: int, disk_bytes: int, table: str
) -> None:
    partitions = [Partition(name=f"p{index}", size=size) for index, size in enumerate(wanted)]
    partitions.insert(rest_at, Partition(name="rest"))
    try:
        planned = plan(partitions, table, disk_bytes)
    except StepError:
        return
    end = ALIGNMENT_BYTES
    for item in planned:
        assert item.start_bytes == end
        assert item.size_bytes >= ALIGNMENT_BYTES
        assert item.size_bytes % ALIGNMENT_BYTES == 0
        end += item.size_bytes
    assert end <= disk_bytes - (33 * 512 if table == "gpt" else 0)
    assert end > disk_bytes - 3 * ALIGNMENT_BYTES or end > (2 << 40) - 3 * ALIGNMENT_BYTES


@pytest.mark.parametrize("name", list(LAYOUTS))
def test_the_rest_goes_to_the_system(name: str) -> None:
    layout = LAYOUTS[name]
    planned = {item.partition.name: item for item in plan(layout.partitions, layout.table, 100 << 30)}
    largest = max(planned.values(), key=lambda item: item.size_bytes)
    assert largest.partition.name in ("windows", "root")
    assert largest.size_bytes > 98 << 30


def test_the_table_is_written_in_the_sectors_of_the_disk() -> None:
    planned = plan([Partition(name="data", type="linux", size=8 * MIB)], "gpt", 1 << 30)
    assert "start=256, size=2048" in script(planned, "gpt", 4096)
    assert "start=2048, size=16384" in script(planned, "gpt", 512)


def test_types_may_be_written_out() -> None:
    guid = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
    planned = plan(
        [Partition(name="data", type=guid), Partition(name="swap", type="0x82", size=8 * MIB)], "mbr", 1 << 30
    )
    text = script(planned, "mbr", 512)
    assert f"type={guid}" in text
    assert "type=82" in text


def test_partitions_that_do_not_fit_are_refused_with_what_they_need() -> None:
    with pytest.raises(StepError, match="do not fit on a disk of 1 GiB: they need 2 GiB"):
        plan([Partition(name="data", size=(2 << 30) - 2 * MIB)], "gpt", 1 << 30)
