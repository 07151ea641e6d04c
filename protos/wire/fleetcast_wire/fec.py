"""Parity codecs: systematic MDS codes over the symbols of a codeword. See WIRE.md, section 8."""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Protocol

import numpy as np
import reed_solomon_leopard
from numpy.typing import NDArray

from . import native
from .errors import GeometryError
from .field import Elements, combine, invert, pack_elements, unpack_elements

_FEW, _FEW_IN_PYTHON = 40, 15
"""Up to so many lost symbols, solving for them takes less time than decoding: 25 of 500 take 0.55 ms, not 0.95."""


class ParityCodec(Protocol):
    """A systematic MDS code: any `rows` of the source and parity symbols give all source symbols back."""

    name: str
    """The codec's name in WIRE.md."""

    def encode(self, source: Sequence[bytes], parity_symbols: int) -> list[bytes]:
        """Return all parity symbols of one codeword. `source` has its rows in order, equally long."""
        ...

    def decode(
        self, rows: int, parity_symbols: int, source: Mapping[int, bytes], parity: Mapping[int, bytes]
    ) -> Mapping[int, bytes]:
        """Return the missing source symbols by row; `source` and `parity` hold what arrived, by row.

        Raises:
            GeometryError: too few symbols, or symbols that do not fit together.
        """
        ...


class Leopard:
    """The code of the Leopard family (O(n log n) Reed-Solomon over GF(2^16)) as reed-solomon-simd computes it."""

    name = "leopard-rs16"

    def encode(self, source: Sequence[bytes], parity_symbols: int) -> list[bytes]:
        """See `ParityCodec.encode`."""
        return list(reed_solomon_leopard.encode(list(source), parity_symbols))

    def decode(
        self, rows: int, parity_symbols: int, source: Mapping[int, bytes], parity: Mapping[int, bytes]
    ) -> Mapping[int, bytes]:
        """See `ParityCodec.decode`."""
        lost = [row for row in range(rows) if row not in source]
        if len(lost) > len(parity):
            raise GeometryError(f"{len(source)} + {len(parity)} symbols cannot give {rows}")
        try:
            if 0 < len(lost) <= (_FEW if native.combines() else _FEW_IN_PYTHON):
                return _rebuild_few(rows, parity_symbols, source, parity, lost)
            decoded: Mapping[int, bytes] = reed_solomon_leopard.decode(rows, parity_symbols, dict(source), dict(parity))
        except Exception as error:
            raise GeometryError(f"a codeword of {rows} + {parity_symbols} symbols does not decode: {error}") from error
        return decoded


def _rebuild_few(
    rows: int, parity_symbols: int, source: Mapping[int, bytes], parity: Mapping[int, bytes], lost: list[int]
) -> Mapping[int, bytes]:
    """Return the lost symbols by solving for them: what they add to parity is the difference to parity without them.

    An encoding and a small system of equations cost less than the transforms over the whole codeword that decoding is.
    """
    used = list(parity)[: len(lost)]
    nothing = bytes(len(parity[used[0]]))
    without = reed_solomon_leopard.encode([source.get(row, nothing) for row in range(rows)], parity_symbols)
    difference = _stack(parity[row] for row in used) ^ _stack(without[row] for row in used)
    solution = invert(_generator(rows, parity_symbols)[np.ix_(used, lost)])
    rebuilt = combine(solution, difference)
    return {row: symbol.tobytes() for row, symbol in zip(lost, rebuilt, strict=True)}


@lru_cache(4)
def _generator(rows: int, parity_symbols: int) -> Elements:
    """Return what each source symbol adds to each parity symbol, shape (parity_symbols, rows): the parity of ones."""
    ones = pack_elements(np.eye(rows, -(-rows // 32) * 32, dtype=np.uint16))
    parity = reed_solomon_leopard.encode([symbol.tobytes() for symbol in ones], parity_symbols)
    return unpack_elements(_stack(parity))[:, :rows]


def _stack(symbols: Iterable[bytes]) -> NDArray[np.uint8]:
    listed = list(symbols)
    return np.frombuffer(b"".join(listed), np.uint8).reshape(len(listed), -1)


CODECS: Mapping[str, ParityCodec] = {Leopard.name: Leopard()}
"""The codecs that this build has, by name."""
