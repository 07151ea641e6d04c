"""Parity: section 8 of WIRE.md."""

import contextlib
import random

import pytest
from fleetcast_wire.errors import GeometryError
from fleetcast_wire.fec import CODECS, ParityCodec
from hypothesis import given
from hypothesis import strategies as st

SYMBOL_BYTES = 512
PARITY_SYMBOLS = 16


@pytest.fixture(params=sorted(CODECS))
def codec(request: pytest.FixtureRequest) -> ParityCodec:
    return CODECS[request.param]


@pytest.mark.parametrize("rows", [1, 2, 3, 40, 1000])
def test_any_rows_of_source_and_parity_give_the_source_back(codec: ParityCodec, rows: int) -> None:
    rng = random.Random(rows)
    source = [rng.randbytes(SYMBOL_BYTES) for _ in range(rows)]
    parity = codec.encode(source, PARITY_SYMBOLS)
    assert len(parity) == PARITY_SYMBOLS
    for lost_count in {1, min(rows, 3), min(rows, PARITY_SYMBOLS)}:
        lost = rng.sample(range(rows), lost_count)
        arrived = {row: symbol for row, symbol in enumerate(source) if row not in lost}
        spare = {row: parity[row] for row in rng.sample(range(PARITY_SYMBOLS), lost_count)}
        decoded = codec.decode(rows, PARITY_SYMBOLS, arrived, spare)
        assert [bytes(decoded[row]) for row in lost] == [source[row] for row in lost]


@given(st.integers(1, 9), st.integers(0, 9), st.integers(0, 9), st.binary(min_size=0, max_size=130))
def test_no_symbols_raise_anything_but_a_geometry_error(rows: int, given_count: int, row: int, symbol: bytes) -> None:
    for codec in CODECS.values():
        with contextlib.suppress(GeometryError):
            codec.decode(rows, PARITY_SYMBOLS, {row + i: symbol for i in range(given_count)}, {row: symbol})


def test_too_few_symbols_are_refused(codec: ParityCodec) -> None:
    with pytest.raises(GeometryError):
        codec.decode(3, PARITY_SYMBOLS, {0: bytes(SYMBOL_BYTES)}, {1: bytes(SYMBOL_BYTES)})


@pytest.mark.parametrize("lost_count", [1, 20, 21, 64])
@pytest.mark.parametrize("rows", [64, 100, 333])
def test_few_and_many_losses_are_rebuilt(codec: ParityCodec, rows: int, lost_count: int) -> None:
    rng = random.Random(rows + lost_count)
    source = [rng.randbytes(SYMBOL_BYTES) for _ in range(rows)]
    parity = codec.encode(source, 64)
    lost = rng.sample(range(rows), lost_count)
    arrived = {row: symbol for row, symbol in enumerate(source) if row not in lost}
    spare = {row: parity[row] for row in rng.sample(range(64), lost_count)}
    decoded = codec.decode(rows, 64, arrived, spare)
    assert [bytes(decoded[row]) for row in lost] == [source[row] for row in lost]
