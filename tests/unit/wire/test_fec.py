"""Parity: section 8 of WIRE.md."""

import contextlib
import random

import numpy as np
import pytest
from fleetcast_wire import native
from fleetcast_wire.errors import GeometryError
from fleetcast_wire.memory import GatheredSymbols, SymbolMemory
from fleetcast_wire.parity.fec import CODECS, Leopard, ParityCodec, SymbolPlaces
from hypothesis import given
from hypothesis import strategies as st

SYMBOL_BYTES = 512
PARITY_SYMBOLS = 16


@pytest.fixture(params=[*sorted(CODECS), "without C"])
def codec(request: pytest.FixtureRequest) -> ParityCodec:
    """Every codec, and the one that is also written in C without that."""
    return CODECS.get(request.param) or Leopard(in_c=False)


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


@pytest.mark.parametrize("lost_count", [0, 1, 2, 7, 40, 41, 64])
@pytest.mark.parametrize("present", [99, 100])
def test_symbols_are_rebuilt_in_their_places_and_nothing_else_changes(
    codec: ParityCodec, present: int, lost_count: int
) -> None:
    rng = random.Random(lost_count)
    memory = SymbolMemory(SYMBOL_BYTES, 3 * present)
    memory.content[:] = whole = rng.randbytes(len(memory.content))
    places = SymbolPlaces(memory, np.arange(1, 3 * present, 3))  # the second of three codewords; one may be short
    source = [bytes(symbol) for symbol in places.copied(100)]
    assert present == 100 or source[99] == bytes(SYMBOL_BYTES)
    parity = codec.encode(source, 64)
    lost = sorted(rng.sample(range(present), lost_count))
    for row in lost:
        memory.views[1 + 3 * row][:] = b"?" * SYMBOL_BYTES
    codec.rebuild(100, 64, places, lost, {row: parity[row] for row in rng.sample(range(64), lost_count)})
    assert bytes(memory.content) == whole


def test_too_few_parity_symbols_rebuild_nothing(codec: ParityCodec) -> None:
    places = SymbolPlaces(SymbolMemory(SYMBOL_BYTES, 10), np.arange(10))
    with pytest.raises(GeometryError):
        codec.rebuild(10, PARITY_SYMBOLS, places, [3, 4], {0: bytes(SYMBOL_BYTES)})


@pytest.mark.parametrize(
    ("row", "symbol_bytes"), [(0, SYMBOL_BYTES - 64), (0, 2 * SYMBOL_BYTES), (0, 7), (PARITY_SYMBOLS, SYMBOL_BYTES)]
)
def test_parity_symbols_that_do_not_fit_rebuild_nothing(codec: ParityCodec, row: int, symbol_bytes: int) -> None:
    memory = SymbolMemory(SYMBOL_BYTES, 10)
    memory.content[:] = whole = bytes(range(10)) * SYMBOL_BYTES
    with pytest.raises(GeometryError):
        codec.rebuild(10, PARITY_SYMBOLS, SymbolPlaces(memory, np.arange(10)), [3], {row: bytes(symbol_bytes)})
    assert bytes(memory.content) == whole


@pytest.mark.parametrize("count", [0, 1, 8, 32, 33, 64])
def test_the_first_parity_symbols_are_those_of_all(codec: ParityCodec, count: int) -> None:
    content = random.Random(count).randbytes(99 * SYMBOL_BYTES)
    gathered, memory = GatheredSymbols(SYMBOL_BYTES, 99), SymbolMemory(SYMBOL_BYTES, 99)
    gathered.append(content[:1000])
    gathered.append(content[1000:])
    memory.content[:] = content
    for symbols in (gathered, memory):
        places = SymbolPlaces(symbols, np.arange(99))
        some = codec.encode_first(100, 64, places, count)
        assert len(some) >= count
        whole = codec.encode([bytes(symbol) for symbol in places.copied(100)], 64)
        assert [bytes(symbol) for symbol in some] == whole[: len(some)]


@pytest.mark.skipif(not native.accumulates(), reason="it was not built here, or this processor lacks AVX2")
@pytest.mark.parametrize(
    ("factors", "columns", "symbols", "sums"),
    [
        ((3, 2, 4), [0, 1], 3, (1, 64)),
        ((3, 2, 4), [0, 1], 2, (2, 64)),
        ((3, 2, 3), [0, 1], 3, (2, 64)),
        ((3, 2, 4), [0, 1], 3, (2, 63)),
        ((3, 2, 4), [0, 2], 3, (2, 64)),
        ((3, 2, 4), [-1, 0], 3, (2, 64)),
    ],
)
def test_what_does_not_fit_is_not_added_up(
    factors: tuple[int, ...], columns: list[int], symbols: int, sums: tuple[int, ...]
) -> None:
    with pytest.raises((ValueError, IndexError)):
        native.accumulate(np.zeros(factors, np.uint64), columns, np.zeros(symbols, np.uintp), np.zeros(sums, np.uint8))
