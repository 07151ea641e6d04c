"""Arithmetic in the field of the codec, in C and without."""

import numpy as np
import pytest
from fleetcast_wire.parity.field import combine, divide, invert_cauchy, multiply, pack_elements, unpack_elements
from hypothesis import given
from hypothesis import strategies as st

ELEMENTS = st.one_of(st.just(0), st.just(1), st.integers(0, 0xFFFF))


@given(st.integers(1, 5), st.integers(1, 5), st.sampled_from([64, 128, 1408]), st.data())
def test_sums_of_symbols_are_the_same_in_c_and_without(rows: int, columns: int, size: int, data: st.DataObject) -> None:
    factors = data.draw(st.lists(ELEMENTS, min_size=rows * columns, max_size=rows * columns))
    matrix = np.array(factors, np.uint16).reshape(rows, columns)
    symbols = np.random.default_rng(rows * columns).integers(0, 256, (columns, size), np.uint8)
    assert np.array_equal(combine(matrix, symbols), pack_elements(multiply(matrix, unpack_elements(symbols))))


@pytest.mark.parametrize("size", [1, 2, 9, 64, 300])
def test_the_inverse_of_a_cauchy_matrix_times_the_matrix_is_one(size: int) -> None:
    values = np.random.default_rng(size).permutation(65536)[: 2 * size].astype(np.uint16)
    rows, columns = values[:size], values[size:]
    matrix = divide(np.ones((size, size), np.uint16), np.bitwise_xor.outer(rows, columns))
    assert np.array_equal(multiply(invert_cauchy(rows, columns), matrix), np.eye(size))


def test_a_quotient_times_its_divisor_is_the_dividend() -> None:
    dividends, divisors = np.array([0, 1, 7, 65535, 300], np.uint16), np.array([5, 1, 65535, 2, 300], np.uint16)
    quotients = divide(dividends, divisors)
    assert np.array_equal(multiply(np.diag(quotients), divisors[:, None])[:, 0], dividends)


def test_nothing_is_divided_by_zero() -> None:
    with pytest.raises(ZeroDivisionError):
        divide(np.array([3], np.uint16), np.array([0], np.uint16))
    with pytest.raises(ZeroDivisionError):
        invert_cauchy(np.array([3, 3], np.uint16), np.array([5, 6], np.uint16))
