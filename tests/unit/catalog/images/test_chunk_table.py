import numpy as np
from fleetcast_catalog.images.chunk_table import ChunkTable, chunk_key, chunk_keys
from hypothesis import given
from hypothesis import strategies as st


def table_of(*rows: tuple[bytes, int, int]) -> ChunkTable:
    digests = np.frombuffer(b"".join(digest for digest, _, _ in rows), np.uint8).reshape(-1, 32)
    sizes = np.array([size for _, size, _ in rows], np.uint32)
    return ChunkTable(digests, sizes, np.array([encoding for _, _, encoding in rows], np.uint8))


@given(st.lists(st.tuples(st.binary(min_size=32, max_size=32), st.integers(0, 2**32 - 1), st.integers(0, 255))))
def test_a_packed_table_unpacks_to_itself(rows: list[tuple[bytes, int, int]]) -> None:
    table = table_of(*rows)
    unpacked = ChunkTable.unpack(table.pack())
    assert np.array_equal(unpacked.digests, table.digests)
    assert np.array_equal(unpacked.stored_sizes, table.stored_sizes)
    assert np.array_equal(unpacked.encodings, table.encodings)


def test_a_table_of_zeros_packs_to_next_to_nothing() -> None:
    assert len(table_of(*[(bytes(32), 0, 1)] * 100_000).pack()) < 1000


def test_each_distinct_chunk_counts_once() -> None:
    a, b = b"a" * 32, b"b" * 32
    table = table_of((a, 100, 2), (bytes(32), 0, 1), (b, 30, 2), (a, 100, 2))
    assert table.distinct_stored_bytes == 130
    assert table.zero.tolist() == [False, True, False, False]
    assert table_of().distinct_stored_bytes == 0


@given(st.binary(min_size=32, max_size=32))
def test_the_key_of_one_digest_is_the_key_of_its_row(digest: bytes) -> None:
    assert chunk_keys(table_of((digest, 1, 1)).digests).tolist() == [chunk_key(digest)]
