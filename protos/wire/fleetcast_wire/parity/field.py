"""Arithmetic in the field of the Leopard family: GF(2^16) over Cantor's basis, where addition is exclusive or.

A symbol of T bytes, T a multiple of 64, is T / 2 elements: each 64 bytes hold the low bytes of 32 elements, then the
high bytes of the same.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from fleetcast_wire import native

Elements = NDArray[np.uint16]

_ORDER = (1 << 16) - 1
"""Elements other than zero, each a power of the generator."""
_NO_LOGARITHM = 2 * _ORDER
"""Stands for the logarithm of zero: whatever is added to it is no logarithm of a product either."""
_POLYNOMIAL = 0x1002D
_CANTOR_BASIS = (
    *(0x0001, 0xACCA, 0x3C0E, 0x163E, 0xC582, 0xED2E, 0x914C, 0x4012),
    *(0x6C98, 0x10D8, 0x6A72, 0xB900, 0xFDB8, 0xFB34, 0xFF38, 0x991E),
)


@cache
def _tables() -> tuple[NDArray[np.int32], Elements]:
    """Returns the logarithm of each element, and the element of each sum of two logarithms."""
    power = np.zeros(1 << 16, np.int32)  # of the generator, by element over the usual basis
    element = 1
    for exponent in range(_ORDER):
        power[element] = exponent
        element = element << 1 ^ (_POLYNOMIAL if element >> 15 else 0)
    usual = np.zeros(1, np.int32)
    for vector in _CANTOR_BASIS:
        usual = np.concatenate((usual, usual ^ vector))
    logarithms = power[usual]
    logarithms[0] = _NO_LOGARITHM
    elements = np.zeros(2 * _NO_LOGARITHM + 1, np.uint16)
    elements[logarithms[1:]] = np.arange(1, 1 << 16)
    elements[_ORDER : 2 * _ORDER] = elements[:_ORDER]
    return logarithms, elements


def unpack_elements(symbols: NDArray[np.uint8]) -> Elements:
    """Returns the elements of symbols: from shape (n, T) to (n, T / 2).

    Raises:
        ValueError: T is no multiple of 64.
    """
    pairs = np.ascontiguousarray(symbols.reshape(len(symbols), -1, 2, 32).swapaxes(2, 3))
    return pairs.view("<u2").astype(np.uint16, copy=False).reshape(len(symbols), -1)


def pack_elements(elements: Elements) -> NDArray[np.uint8]:
    """Returns the symbols of elements, their number a multiple of 32: from shape (n, m) to (n, 2 m)."""
    pairs = elements.astype("<u2").view(np.uint8).reshape(len(elements), elements.shape[1] // 32, 32, 2)
    return pairs.swapaxes(2, 3).reshape(len(elements), 2 * elements.shape[1])


def divide(dividends: Elements, divisors: Elements) -> Elements:
    """Returns the quotients, element by element.

    Raises:
        ZeroDivisionError: a divisor is zero.
    """
    logarithms, elements = _tables()
    of_dividends, of_divisors = logarithms[dividends], _logarithms_of_nonzero(divisors)
    return elements[np.where(of_dividends == _NO_LOGARITHM, of_dividends, (of_dividends - of_divisors) % _ORDER)]


def invert_cauchy(rows: Elements, columns: Elements) -> Elements:
    """Returns the inverse of the square matrix of 1 / (rows[i] + columns[j]): a product of sums, without elimination.

    Raises:
        ZeroDivisionError: it has no inverse: not all of the rows and columns are different.
    """
    _, elements = _tables()
    sums = _logarithms_of_nonzero(np.bitwise_xor.outer(rows, columns))
    numerators = sums.sum(1)[:, None] + sums.sum(0)
    denominators = sums + _differences(rows)[:, None] + _differences(columns)
    inverse: Elements = elements[(numerators - denominators) % _ORDER].T
    return inverse


def _differences(values: Elements) -> NDArray[np.int64]:
    """Returns, for each value, the logarithm of the product of its differences to all the others."""
    differences = np.bitwise_xor.outer(values, values)
    np.fill_diagonal(differences, 1)
    sums: NDArray[np.int64] = _logarithms_of_nonzero(differences).sum(1)
    return sums


def _logarithms_of_nonzero(values: Elements) -> NDArray[np.int64]:
    if not values.all():
        raise ZeroDivisionError("zero has no inverse")
    return _tables()[0][values].astype(np.int64)


def multiply(matrix: Elements, vectors: Elements) -> Elements:
    """Returns the product of a matrix of shape (l, m) and vectors of shape (m, n)."""
    logarithms, elements = _tables()
    rows, columns = logarithms[matrix][:, :, None], logarithms[vectors]
    product = np.empty((len(matrix), vectors.shape[1]), np.uint16)
    sums, terms = np.empty_like(columns), np.empty(columns.shape, np.uint16)
    for row, into in zip(rows, product, strict=True):
        np.add(columns, row, out=sums)
        np.take(elements, sums, out=terms, mode="clip")  # nothing is out of range: unchecked, it takes half the time
        np.bitwise_xor.reduce(terms, axis=0, out=into)
    return product


def combine(matrix: Elements, symbols: NDArray[np.uint8], *, in_c: bool | None = None) -> NDArray[np.uint8]:
    """Returns the product of a matrix of shape (l, m) and symbols of shape (m, T): symbols of shape (l, T).

    `in_c` says how: in C, or not; None takes C where it was built.
    """
    if not (native.accumulates() if in_c is None else in_c):
        return pack_elements(multiply(matrix, unpack_elements(symbols)))
    symbols = np.ascontiguousarray(symbols)
    sums = np.zeros((len(matrix), symbols.shape[1]), np.uint8)
    addresses = symbols.ctypes.data + np.arange(len(symbols), dtype=np.uintp) * np.uintp(symbols.shape[1])
    native.accumulate(multipliers(matrix.T), range(len(matrix)), addresses, sums)
    return sums


def multipliers(matrix: Elements) -> NDArray[np.uint64]:
    """Returns a matrix of factors, shape (l, m), as `native.accumulate` takes it: shape (l, m, 4).

    Raises:
        OSError: see there.
    """
    return native.multipliers(_images(matrix))


def _images(matrix: Elements) -> Elements:
    """Returns what each factor, shape (l, m), makes of each bit of an element: shape (l, m, 16)."""
    logarithms, elements = _tables()
    bits = logarithms[1 << np.arange(16)]
    images: Elements = elements[logarithms[matrix][:, :, None] + bits]
    return images
