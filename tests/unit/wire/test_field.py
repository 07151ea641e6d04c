"""Arithmetic in the field of the codec, in C and without."""

import numpy as np
import pytest
from fleetcast_wire import native
from fleetcast_wire.field import combine, invert, multiply, pack_elements, unpack_elements
from hypothesis import given
from hypothesis import strategies as st

ELEMENTS = st.one_of(st.just(0), st.just(1), st.integers(0, 0xFFFF))


@given(st.integers(1, 5), st.integers(1, 5), st.sampled_from([64, 128, 1408]), st.data())
def test_sums_of_symbols_are_the_same_in_c_and_without(rows: int, columns: int, size: int, data: st.DataObject) -> None:
    factors = data.draw(st.lists(ELEMENTS, min_size=rows * columns, max_size=rows * columns))
    matrix = np.array(factors, np.uint16).reshape(rows, columns)
    symbols = np.random.default_rng(rows * columns).integers(0, 256, (columns, size), np.uint8)
    assert np.array_equal(combine(matrix, symbols), pack_elements(multiply(matrix, unpack_elements(symbols))))


def test_an_inverse_gives_the_symbols_back() -> None:
    random = np.random.default_rng(1)
    matrix, symbols = random.integers(1, 65536, (9, 9), np.uint16), random.integers(0, 256, (9, 192), np.uint8)
    assert np.array_equal(combine(invert(matrix), combine(matrix, symbols)), symbols)


@pytest.mark.parametrize("size", [1, 2, 9, 40, 64, 65])
def test_inverses_are_the_same_in_c_and_without(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = np.random.default_rng(size).integers(0, 65536, (size, size), np.uint16)
    before = matrix.copy()
    inverse = invert(matrix)
    monkeypatch.setattr(native, "combines", lambda: False)
    assert np.array_equal(invert(matrix), inverse)
    assert np.array_equal(multiply(inverse, matrix), np.eye(size))
    assert np.array_equal(matrix, before)


def test_a_singular_matrix_is_refused() -> None:
    if native.combines():
        with pytest.raises(ValueError, match="singular"):
            invert(np.array([[3, 5], [3, 5]], np.uint16))


@pytest.mark.parametrize(("factors", "symbols"), [((2, 3, 16), (2, 64)), ((2, 2, 8), (2, 64)), ((2, 2, 16), (2, 100))])
def test_what_does_not_fit_together_is_refused(factors: tuple[int, ...], symbols: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        native.combine(np.zeros(factors, np.uint16), np.zeros(symbols, np.uint8))
