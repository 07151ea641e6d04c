"""Parity codecs: systematic MDS codes over the symbols of a codeword. See WIRE.md, section 8."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Generic, Protocol, TypeVar

import numpy as np
import reed_solomon_leopard
from numpy.typing import NDArray

from fleetcast_wire import native
from fleetcast_wire.errors import GeometryError
from fleetcast_wire.field import Elements, combine, invert, multipliers, pack_elements, unpack_elements
from fleetcast_wire.memory import Buffer, Numbers, SymbolMemory, Symbols

_FEW, _FEW_IN_PYTHON = 40, 15
"""Up to so many lost symbols, solving for them takes less time than decoding, which takes 0.95 ms of 500. Where C adds
up what is there, 5 take 0.17 ms and 25 take 0.57, else 0.63 and 0.87."""
_FEW_PARITY = 32
"""Up to so many parity symbols, adding up takes less time than encoding: 8 of 500 take 0.18 ms, not 0.55."""

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

    def filled(self, rows: int) -> list[Buffer]:
        """Returns each row's symbol."""
        symbols = self.memory.chosen(self.numbers)
        return [*symbols, *[bytes(self.memory.symbol_bytes)] * (rows - len(symbols))]


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
    """The code of the Leopard family (O(n log n) Reed-Solomon over GF(2^16)) as reed-solomon-simd computes it."""

    name = "leopard-rs16"

    def encode(self, source: Sequence[bytes], parity_symbols: int) -> list[bytes]:
        """See `ParityCodec.encode`."""
        return list(reed_solomon_leopard.encode(list(source), parity_symbols))

    def encode_first(
        self, rows: int, parity_symbols: int, places: SymbolPlaces[Symbols], count: int
    ) -> Sequence[Buffer]:
        """See `ParityCodec.encode_first`."""
        if count > _FEW_PARITY or not native.accumulates():
            return self.encode(list(map(bytes, places.filled(rows))), parity_symbols)
        sums = np.zeros((count, places.memory.symbol_bytes), np.uint8)
        native.accumulate(_multipliers(rows, parity_symbols), range(count), places.addresses(rows), sums)
        return [symbol.data for symbol in sums]

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

    def rebuild(
        self,
        rows: int,
        parity_symbols: int,
        places: SymbolPlaces[SymbolMemory],
        lost: Sequence[int],
        parity: Mapping[int, Buffer],
    ) -> None:
        """See `ParityCodec.rebuild`."""
        if not lost:
            return
        if len(lost) <= min(len(parity), _FEW) and native.accumulates():
            try:
                _rebuild_in_place(rows, parity_symbols, places, list(lost), parity)
            except (ValueError, IndexError) as error:
                raise GeometryError(f"a codeword of {rows} + {parity_symbols} is not rebuilt: {error}") from error
            return
        symbols = places.filled(rows)
        source = {row: bytes(symbol) for row, symbol in enumerate(symbols) if row not in lost}
        decoded = self.decode(rows, parity_symbols, source, {row: bytes(symbol) for row, symbol in parity.items()})
        for row in lost:
            memoryview(symbols[row])[:] = decoded[row]


def _rebuild_in_place(
    rows: int,
    parity_symbols: int,
    places: SymbolPlaces[SymbolMemory],
    lost: list[int],
    parity: Mapping[int, Buffer],
) -> None:
    """Do what `_rebuild_few` does, with what is there adding up where it lies and only to the parity that is needed."""
    used = list(parity)[: len(lost)]
    addresses = places.addresses(rows)
    addresses[lost] = 0
    sums = _stack(parity[row] for row in used).copy()
    if sums.shape[1] != places.memory.symbol_bytes:
        raise ValueError(f"parity symbols of {sums.shape[1]} bytes do not fit those of {places.memory.symbol_bytes}")
    native.accumulate(_multipliers(rows, parity_symbols), used, addresses, sums)
    symbols = np.frombuffer(places.memory.content, np.uint8).reshape(len(places.memory), -1)
    symbols[places.numbers[lost]] = _solve(rows, parity_symbols, used, lost, sums)


def _rebuild_few(
    rows: int, parity_symbols: int, source: Mapping[int, bytes], parity: Mapping[int, bytes], lost: list[int]
) -> Mapping[int, bytes]:
    """Returns the lost symbols by solving for them: what they add to parity is the difference to parity without them.

    An encoding and a small system of equations cost less than the transforms over the whole codeword that decoding is.
    """
    used = list(parity)[: len(lost)]
    nothing = bytes(len(parity[used[0]]))
    without = reed_solomon_leopard.encode([source.get(row, nothing) for row in range(rows)], parity_symbols)
    difference = _stack(parity[row] for row in used) ^ _stack(without[row] for row in used)
    rebuilt = _solve(rows, parity_symbols, used, lost, difference)
    return {row: symbol.tobytes() for row, symbol in zip(lost, rebuilt, strict=True)}


def _solve(
    rows: int, parity_symbols: int, used: Sequence[int], lost: Sequence[int], sums: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """Returns the lost symbols, shape (len(lost), T), from what they add to the parity symbols `used`."""
    return combine(invert(_generator(rows, parity_symbols)[np.ix_(used, lost)]), sums)


@lru_cache(4)
def _multipliers(rows: int, parity_symbols: int) -> NDArray[np.uint64]:
    """Returns the transposed `_generator` as `native.accumulate` takes it."""
    return multipliers(_generator(rows, parity_symbols).T)


@lru_cache(4)
def _generator(rows: int, parity_symbols: int) -> Elements:
    """Returns what each source symbol adds to each parity symbol, shape (parity_symbols, rows): the parity of ones."""
    ones = pack_elements(np.eye(rows, -(-rows // 32) * 32, dtype=np.uint16))
    parity = reed_solomon_leopard.encode([symbol.tobytes() for symbol in ones], parity_symbols)
    return unpack_elements(_stack(parity))[:, :rows]


def _stack(symbols: Iterable[Buffer]) -> NDArray[np.uint8]:
    listed = list(symbols)
    return np.frombuffer(b"".join(listed), np.uint8).reshape(len(listed), -1)


CODECS: Mapping[str, ParityCodec] = {Leopard.name: Leopard()}
"""The codecs that this build has, by name."""
