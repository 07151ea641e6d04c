"""Parity codecs: systematic MDS codes over the symbols of a codeword. See WIRE.md, section 8."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from fleetcast_wire import native
from fleetcast_wire.errors import GeometryError
from fleetcast_wire.memory import Buffer, Numbers, SymbolMemory, Symbols
from fleetcast_wire.parity.field import Elements, combine, divide, invert_cauchy, multipliers

MemoryT_co = TypeVar("MemoryT_co", bound=Symbols, covariant=True)


@dataclass(frozen=True)
class SymbolPlaces(Generic[MemoryT_co]):
    """Where the source symbols of a codeword lie; one for which there is no place counts as zeros."""

    memory: MemoryT_co
    numbers: Numbers
    """Shape (rows that have a place,): the number of each row's symbol in the memory."""

    def addresses(self, rows: int) -> NDArray[np.uintp]:
        """Returns where each row's symbol lies, shape (rows,): 0 where there is no place."""
        addresses = np.zeros(rows, np.uintp)
        addresses[: len(self.numbers)] = self.memory.addresses[self.numbers]
        return addresses

    def copied(self, rows: int) -> NDArray[np.uint8]:
        """Returns a copy of each row's symbol, shape (rows, T)."""
        symbols = np.zeros((rows, self.memory.symbol_bytes), np.uint8)
        symbols[: len(self.numbers)] = _stacked(self.memory.chosen(self.numbers), self.memory.symbol_bytes)
        return symbols


class ParityCodec(Protocol):
    """A systematic MDS code: any `rows` of the source and parity symbols give all source symbols back."""

    name: str
    """The codec's name in WIRE.md."""

    def encode(self, source: Sequence[bytes], parity_symbols: int) -> list[bytes]:
        """Returns all parity symbols of one codeword. `source` has its rows in order, equally long."""
        ...

    def encode_first(
        self, rows: int, parity_symbols: int, places: SymbolPlaces[Symbols], count: int
    ) -> Sequence[Buffer]:
        """Returns at least the first `count` of the parity symbols of one codeword."""
        ...

    def decode(
        self, rows: int, parity_symbols: int, source: Mapping[int, bytes], parity: Mapping[int, bytes]
    ) -> Mapping[int, bytes]:
        """Returns the missing source symbols by row; `source` and `parity` hold what arrived, by row.

        Raises:
            GeometryError: too few symbols, or symbols that do not fit together.
        """
        ...

    def rebuild(
        self,
        rows: int,
        parity_symbols: int,
        places: SymbolPlaces[SymbolMemory],
        lost: Sequence[int],
        parity: Mapping[int, Buffer],
    ) -> None:
        """Put the `lost` source symbols, by row, into their places; the others are there. See `decode`."""
        ...


class Leopard:
    """The code of the Leopard family, Reed-Solomon over GF(2^16), added up from the formula of its parity rows.

    Of a codeword only a few parity symbols are ever needed, and few symbols are lost: so adding up takes less time than
    the transforms over the whole codeword that the family is known for.

    `in_c` says how the sums are made: in C, or not; None takes C where it was built.
    """

    name = "leopard-rs16"

    def __init__(self, *, in_c: bool | None = None) -> None:
        self._in_c = in_c

    def encode(self, source: Sequence[bytes], parity_symbols: int) -> list[bytes]:
        """See `ParityCodec.encode`."""
        places = _places(dict(enumerate(source)), len(source), len(source[0]))
        return list(map(bytes, self.encode_first(len(source), parity_symbols, places, parity_symbols)))

    def encode_first(
        self, rows: int, parity_symbols: int, places: SymbolPlaces[Symbols], count: int
    ) -> Sequence[Buffer]:
        """See `ParityCodec.encode_first`."""
        sums = np.zeros((count, places.memory.symbol_bytes), np.uint8)
        _add_source((rows, parity_symbols), places, (), range(count), sums, in_c=self._uses_c)
        return [symbol.data for symbol in sums]

    def decode(
        self, rows: int, parity_symbols: int, source: Mapping[int, bytes], parity: Mapping[int, bytes]
    ) -> Mapping[int, bytes]:
        """See `ParityCodec.decode`."""
        lost = [row for row in range(rows) if row not in source]
        if not lost:
            return {}
        try:
            places = _places(source, rows, len(next(iter(parity.values()), b"")))
        except (ValueError, IndexError) as error:
            raise GeometryError(f"{len(source)} symbols are none of a codeword of {rows}: {error}") from error
        self.rebuild(rows, parity_symbols, places, lost, parity)
        return {row: bytes(places.memory.views[row]) for row in lost}

    def rebuild(
        self,
        rows: int,
        parity_symbols: int,
        places: SymbolPlaces[SymbolMemory],
        lost: Sequence[int],
        parity: Mapping[int, Buffer],
    ) -> None:
        """See `ParityCodec.rebuild`."""
        if len(lost) > len(parity):
            raise GeometryError(f"{len(parity)} parity symbols cannot give {len(lost)} of {rows}")
        if not lost:
            return
        used = list(parity)[: len(lost)]
        try:
            sums = _stacked([parity[row] for row in used], places.memory.symbol_bytes).copy()
            _add_source((rows, parity_symbols), places, lost, used, sums, in_c=self._uses_c)
            rebuilt = combine(_inverse(rows, parity_symbols, used, lost), sums, in_c=self._uses_c)
        except (ValueError, IndexError, ZeroDivisionError) as error:
            raise GeometryError(f"a codeword of {rows} + {parity_symbols} is not rebuilt: {error}") from error
        symbols = np.frombuffer(places.memory.content, np.uint8).reshape(len(places.memory), -1)
        symbols[places.numbers[list(lost)]] = rebuilt

    @property
    def _uses_c(self) -> bool:
        return native.accumulates() if self._in_c is None else self._in_c


def _add_source(
    code: tuple[int, int],
    places: SymbolPlaces[Symbols],
    lost: Sequence[int],
    chosen: Sequence[int],
    sums: NDArray[np.uint8],
    *,
    in_c: bool,
) -> None:
    """Add to the sums, one for each of the chosen parity rows, what the source rows that are not lost add to it.

    Args:
        code: source rows and parity rows of the codeword.
        places: of the source symbols.
        lost: source rows that are not in their places.
        chosen: parity rows.
        sums: shape (len(chosen), T).
        in_c: whether it is done in C.
    """
    rows, parity_symbols = code
    if in_c:
        addresses = places.addresses(rows)
        addresses[list(lost)] = 0
        native.accumulate(_multipliers(rows, parity_symbols), chosen, addresses, sums)
        return
    source = places.copied(rows)
    source[list(lost)] = 0
    sums ^= combine(_generator(rows, parity_symbols)[list(chosen)], source, in_c=False)


@lru_cache(4)
def _multipliers(rows: int, parity_symbols: int) -> NDArray[np.uint64]:
    """Returns the transposed `_generator` as `native.accumulate` takes it."""
    return multipliers(_generator(rows, parity_symbols).T)


@lru_cache(4)
def _generator(rows: int, parity_symbols: int) -> Elements:
    """Returns what each source row adds to each parity row, shape (parity_symbols, rows)."""
    of_parity, of_source, weights = _formula(rows, parity_symbols)
    return divide(weights, np.bitwise_xor.outer(of_parity, of_source))


def _inverse(rows: int, parity_symbols: int, used: Sequence[int], lost: Sequence[int]) -> Elements:
    """Returns what gives the lost source rows from what they add to the parity rows `used`."""
    of_parity, of_source, weights = _formula(rows, parity_symbols)
    inverse = invert_cauchy(of_parity[list(used)], of_source[list(lost)])
    if len(weights) > 1:
        return divide(inverse, weights[list(used), 0])
    return divide(inverse, weights[0, list(lost), None])


@lru_cache(4)
def _formula(rows: int, parity_symbols: int) -> tuple[Elements, Elements, Elements]:
    """Returns x, y and w of g(p, s) = w / (x[p] + y[s]), with w of shape (1, rows) or (parity_symbols, 1)."""
    of_parity, of_source = np.arange(parity_symbols, dtype=np.uint16), np.arange(rows, dtype=np.uint16)
    least_powers = 1 << (rows - 1).bit_length(), 1 << (parity_symbols - 1).bit_length()
    m = min(least_powers)
    if m == least_powers[1]:
        return of_parity, of_source + np.uint16(m), (of_source // m + 1)[None, :]
    return of_parity + np.uint16(m), of_source, (of_parity // m + 1)[:, None]


def _places(symbols: Mapping[int, bytes], rows: int, symbol_bytes: int) -> SymbolPlaces[SymbolMemory]:
    """Returns places for all rows, with the symbols that are given, by row."""
    memory = SymbolMemory(symbol_bytes, rows)
    content = np.frombuffer(memory.content, np.uint8).reshape(rows, symbol_bytes)
    content[list(symbols)] = _stacked(list(symbols.values()), symbol_bytes)
    return SymbolPlaces(memory, np.arange(rows))


def _stacked(symbols: Sequence[Buffer], symbol_bytes: int) -> NDArray[np.uint8]:
    """Returns symbols as an array of shape (len(symbols), symbol_bytes).

    Raises:
        ValueError: not all of them have that size.
    """
    if any(len(symbol) != symbol_bytes for symbol in symbols):
        raise ValueError(f"not all of {len(symbols)} symbols have {symbol_bytes} bytes")
    return np.frombuffer(b"".join(symbols), np.uint8).reshape(len(symbols), symbol_bytes)


CODECS: Mapping[str, ParityCodec] = {Leopard.name: Leopard()}
"""The codecs that this build has, by name."""
