"""Partition tables out of bytes that may come from anybody."""

from fleetcast_catalog.images.inspection.partition_tables import Read, read_table
from hypothesis import given
from hypothesis import strategies as st


def reader(content: bytes) -> Read:
    return lambda offset, size: content[offset : offset + size]


SIGNATURES = st.sampled_from([b"", b"EFI PART", b"\x55\xaa"])


@given(st.binary(min_size=512, max_size=12_000), SIGNATURES, st.sampled_from([510, 512, 4096]))
def test_whatever_the_bytes_are_the_answer_is_a_table_or_none(content: bytes, signature: bytes, place: int) -> None:
    changed = content[:place].ljust(place, b"\0") + signature + content[place + len(signature) :]
    for sector_bytes in (512, 4096):
        table = read_table(reader(changed), len(changed), mbr_sector_bytes=sector_bytes)
        assert table is None or table.kind in ("gpt", "mbr")


def test_extended_partitions_that_go_round_in_a_circle_end() -> None:
    entry = bytes(4) + b"\x05" + bytes(3) + (1).to_bytes(4, "little") + (9).to_bytes(4, "little")
    first = bytes(446) + entry + bytes(48) + b"\x55\xaa"
    following = bytes(4) + b"\x05" + bytes(3) + bytes(4) + (9).to_bytes(4, "little")
    logical = bytes(446) + entry + following + bytes(32) + b"\x55\xaa"
    table = read_table(reader(first + logical + bytes(10 * 512)), 12 * 512)
    assert table is not None
    assert [partition.number for partition in table.partitions] == [1, 5]
