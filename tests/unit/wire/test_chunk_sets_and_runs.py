"""Chunk sets and run-length coded deficits: sections 3 and 7 of WIRE.md."""

import contextlib

import numpy as np
import pytest
import zstandard
from fleetcast_wire.chunkset import pack_chunk_set, unpack_chunk_set
from fleetcast_wire.errors import ChunkSetError, RunsError
from fleetcast_wire.runs import pack_runs, unpack_runs
from hypothesis import given
from hypothesis import strategies as st


@given(st.lists(st.booleans(), max_size=5000))
def test_a_chunk_set_survives_packing(members: list[bool]) -> None:
    bitmap, compressed = pack_chunk_set(np.array(members, np.bool_))
    assert unpack_chunk_set(bitmap, compressed, len(members)).tolist() == members


def test_a_large_regular_set_is_compressed() -> None:
    bitmap, compressed = pack_chunk_set(np.ones(50_000, np.bool_))
    assert compressed
    assert len(bitmap) < 64


def test_an_empty_bitmap_is_the_empty_set() -> None:
    assert not unpack_chunk_set(b"", False, 9).any()


@pytest.mark.parametrize(
    ("bitmap", "compressed", "chunk_count"),
    [
        (b"\x01", False, 9),
        (b"\x01\x02\x03", False, 9),
        (b"\xff\xff", False, 9),
        (b"not zstd", True, 9),
        (zstandard.compress(bytes(1 << 20)), True, 9),
        (b"\x28\xb5\x2f\xfd\xe0" + (1 << 50).to_bytes(8, "little") + b"\x01\x00\x00", True, 9),
    ],
    ids=[
        "short",
        "long",
        "beyond the count",
        "not a frame",
        "a frame of far too much",
        "a frame that says petabytes",
    ],
)
def test_a_bitmap_that_does_not_fit_is_refused(bitmap: bytes, compressed: bool, chunk_count: int) -> None:
    with pytest.raises(ChunkSetError):
        unpack_chunk_set(bitmap, compressed, chunk_count)


@given(st.binary(max_size=300), st.booleans(), st.integers(0, 2000))
def test_no_bitmap_raises_anything_but_its_own_error(bitmap: bytes, compressed: bool, chunk_count: int) -> None:
    with contextlib.suppress(ChunkSetError):
        assert unpack_chunk_set(bitmap, compressed, chunk_count).shape == (chunk_count,)


@given(st.lists(st.integers(0, 1000), max_size=300))
def test_runs_survive_packing(values: list[int]) -> None:
    run_values, run_lengths = pack_runs(np.array(values, np.int32))
    assert unpack_runs(run_values, run_lengths, len(values)).tolist() == values


@given(
    st.lists(st.integers(-(2**31), 2**31 - 1), max_size=9),
    st.lists(st.integers(-(2**31), 2**31 - 1), max_size=9),
    st.integers(0, 3000),
)
def test_no_runs_raise_anything_but_their_own_error(values: list[int], lengths: list[int], count: int) -> None:
    try:
        unpacked = unpack_runs(values, lengths, count)
    except RunsError:
        return
    assert unpacked.shape == (count,)
    assert (unpacked >= 0).all()


def test_runs_that_claim_a_huge_length_cost_nothing() -> None:
    with pytest.raises(RunsError):
        unpack_runs([1], [2**31 - 1], 32)
