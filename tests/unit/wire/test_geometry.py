"""How passes are cut: section 4 of WIRE.md."""

import numpy as np
import pytest
from fleetcast_wire.errors import GeometryError
from fleetcast_wire.geometry import Geometry, PassLayout
from hypothesis import given
from hypothesis import strategies as st


@given(st.integers(1, 40), st.integers(1, 9), st.data())
def test_every_symbol_of_a_window_is_one_row_of_one_codeword(k: int, codewords: int, data: st.DataObject) -> None:
    geometry = Geometry(codeword_symbols=k, window_codewords=codewords)
    count = data.draw(st.integers(1, geometry.window_symbols))
    shape = geometry.shape(count)
    places = {(symbol // shape.codewords, symbol % shape.codewords) for symbol in range(count)}
    assert len(places) == count
    assert shape.codewords <= codewords
    assert max(row for row, _ in places) == shape.rows - 1 <= k - 1


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=40), st.integers(1, 9), st.integers(1, 4))
def test_the_windows_of_a_pass_hold_every_chunk_once_and_in_order(sizes: list[int], k: int, codewords: int) -> None:
    geometry = Geometry(symbol_bytes=512, codeword_symbols=k, window_codewords=codewords)
    layout = PassLayout(geometry, np.arange(len(sizes)), np.array(sizes, np.int64))
    assert layout.stream_bytes == sum(sizes)
    spans = [layout.window_span(window) for window in range(layout.window_count)]
    assert [first for first, _ in spans] == [0, *(end for _, end in spans[:-1])]
    assert spans[-1][1] == layout.stream_bytes
    assert sum(layout.window(window).symbol_count for window in range(layout.window_count)) == layout.symbol_count
    for window, (first, end) in enumerate(spans):
        inside = [i for i in range(len(sizes)) if layout.offsets[i] < end and layout.offsets[i + 1] > first]
        assert list(layout.window_chunks(window)) == inside
    for position in range(len(sizes)):
        holding = [window for window in range(layout.window_count) if position in layout.window_chunks(window)]
        assert list(layout.chunk_windows(position)) == holding


def test_a_pass_sends_the_stored_sizes_of_its_chunks_only() -> None:
    layout = PassLayout(Geometry(), np.array([1, 4]), np.array([7, 100, 0, 9, 50], np.int64))
    assert layout.offsets.tolist() == [0, 100, 150]


@pytest.mark.parametrize(
    "numbers",
    [
        {"symbol_bytes": 1400},
        {"symbol_bytes": 448},
        {"symbol_bytes": 8960},
        {"codeword_symbols": 0},
        {"codeword_symbols": 4097},
        {"window_codewords": 0},
        {"codeword_symbols": 4096, "window_codewords": 65},
        {"parity_symbols": 256},
        {"codec": "leopard-rs16"},
        {"parity_symbols": 1025, "codec": "leopard-rs16"},
    ],
    ids=str,
)
def test_a_geometry_outside_the_limits_is_refused(numbers: dict[str, object]) -> None:
    with pytest.raises(GeometryError):
        Geometry(**numbers)  # type: ignore[arg-type]


def test_what_a_pass_does_not_have_is_refused() -> None:
    geometry = Geometry()
    sizes = np.array([1000, 0], np.int64)
    for chunks in ([], [1]):
        with pytest.raises(GeometryError):
            PassLayout(geometry, np.array(chunks, np.int64), sizes)
    layout = PassLayout(geometry, np.array([0]), sizes)
    for window in (-1, 1):
        with pytest.raises(GeometryError):
            layout.window(window)
    with pytest.raises(GeometryError):
        geometry.shape(geometry.window_symbols + 1)
