"""Parity codecs: systematic MDS codes over the symbols of a codeword. See WIRE.md, section 8."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import reed_solomon_leopard

from .errors import GeometryError


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
        if len(source) + len(parity) < rows:
            raise GeometryError(f"{len(source)} + {len(parity)} symbols cannot give {rows}")
        try:
            decoded: Mapping[int, bytes] = reed_solomon_leopard.decode(rows, parity_symbols, dict(source), dict(parity))
        except Exception as error:
            raise GeometryError(f"a codeword of {rows} + {parity_symbols} symbols does not decode: {error}") from error
        return decoded


CODECS: Mapping[str, ParityCodec] = {Leopard.name: Leopard()}
"""The codecs that this build has, by name."""
