"""The datagram's header and the body of marks. See WIRE.md, sections 5 and 6."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from fleetcast_wire.errors import PacketError

VERSION = 2
HEADER_BYTES = 24
SEAL_BYTES = 16
SIGNATURE_BYTES = 64
MAX_MARKED_WINDOWS = 64

HEADER = np.dtype(
    [
        ("version", "u1"),
        ("kind", "u1"),
        ("pass", ">u2"),
        ("tag", ">u4"),
        ("window", ">u4"),
        ("symbol", ">u4"),
        ("counter", ">u8"),
    ]
)
"""The header as a numpy record, for views over many datagrams at once."""

_HEADER = struct.Struct(">BBHIIIQ")
_MARK = struct.Struct(">BBHI")
_MARKED_WINDOW = struct.Struct(">IHH")
_FINGERPRINTS = struct.Struct(">16sBBHII")
_CONSECUTIVE = 1


class Kind(IntEnum):
    """What a datagram carries."""

    SOURCE = 1
    PARITY = 2
    MARK = 3
    FINGERPRINTS = 4


@dataclass(frozen=True)
class Header:
    """The header of one datagram."""

    kind: Kind
    pass_number: int
    tag: int
    window: int
    """Of the symbol; in a signed datagram, of the source symbol that is sent next."""
    symbol: int
    """Number of the symbol; in a signed datagram, of the source symbol that is sent next."""
    counter: int


SIGNED_KINDS = frozenset({Kind.MARK, Kind.FINGERPRINTS})


def datagram_bytes(symbol_bytes: int) -> int:
    """Returns the UDP payload of a sealed symbol in bytes."""
    return HEADER_BYTES + symbol_bytes + SEAL_BYTES


def pack_header(header: Header) -> bytes:
    """Returns the 24 bytes of a header."""
    return _HEADER.pack(
        VERSION, header.kind, header.pass_number, header.tag, header.window, header.symbol, header.counter
    )


def unpack_header(datagram: bytes | memoryview) -> Header:
    """Returns the header of a datagram. Whether it is genuine is decided by its seal.

    Raises:
        PacketError: too short, another version, or an unknown kind.
    """
    if len(datagram) < HEADER_BYTES + SEAL_BYTES:
        raise PacketError(f"a datagram of {len(datagram)} bytes is too short")
    version, kind, pass_number, tag, window, symbol, counter = _HEADER.unpack_from(datagram)
    if version != VERSION:
        raise PacketError(f"version {version} is not {VERSION}")
    try:
        return Header(Kind(kind), pass_number, tag, window, symbol, counter)
    except ValueError as error:
        raise PacketError(f"kind {kind} is not known") from error


@dataclass(frozen=True)
class MarkedWindow:
    """A window whose sending has come to the end of a round."""

    window: int
    round: int
    """Rounds completed, from 1: the source symbols with the predicted parity are round 1."""
    parity_rows: int
    """Parity rows sent so far: rows 0 to parity_rows - 1, if not for every codeword."""


@dataclass(frozen=True)
class Mark:
    """Where a pass is: tells receivers when to count their deficits."""

    windows: Sequence[MarkedWindow]
    """The windows that ended a round lately and can still be repaired, oldest first."""
    window_count: int
    """Windows of the pass."""
    ended: bool = False
    """True when no more symbols of this pass will come."""


def pack_mark(mark: Mark) -> bytes:
    """Returns the body of a mark.

    Raises:
        PacketError: too many windows for one mark.
    """
    if len(mark.windows) > MAX_MARKED_WINDOWS:
        raise PacketError(f"{len(mark.windows)} windows do not fit a mark of {MAX_MARKED_WINDOWS}")
    head = _MARK.pack(int(mark.ended), len(mark.windows), 0, mark.window_count)
    return head + b"".join(_MARKED_WINDOW.pack(w.window, w.round, w.parity_rows) for w in mark.windows)


def unpack_mark(body: bytes | memoryview) -> Mark:
    """Returns the mark in an opened body.

    Raises:
        PacketError: the body does not have the length that it states.
    """
    if len(body) < _MARK.size:
        raise PacketError(f"a mark of {len(body)} bytes is too short")
    flags, count, _reserved, window_count = _MARK.unpack_from(body)
    if count > MAX_MARKED_WINDOWS or len(body) != _MARK.size + count * _MARKED_WINDOW.size:
        raise PacketError(f"a mark of {len(body)} bytes does not hold {count} windows")
    windows = tuple(MarkedWindow(*fields) for fields in _MARKED_WINDOW.iter_unpack(body[_MARK.size :]))
    return Mark(windows, window_count, bool(flags & 1))


@dataclass(frozen=True, eq=False)
class Fingerprints:
    """What symbols of one window the sender has sent, and how they are told from others."""

    kind: Kind
    """Source or parity."""
    window: int
    seed: bytes
    symbols: NDArray[np.int64]
    """Their numbers."""
    values: NDArray[np.uint16]
    """The fingerprint of each."""


def most_fingerprints(symbol_bytes: int, *, consecutive: bool) -> int:
    """Returns of how many symbols the fingerprints fit a datagram that is no longer than that of a symbol."""
    return (symbol_bytes - SIGNATURE_BYTES - _FINGERPRINTS.size) // (2 if consecutive else 6)


def pack_fingerprints(fingerprints: Fingerprints) -> bytes:
    """Returns the body of a datagram of fingerprints."""
    symbols, count = fingerprints.symbols, len(fingerprints.symbols)
    first = int(symbols[0])
    consecutive = bool((symbols == np.arange(first, first + count)).all())
    flags = _CONSECUTIVE if consecutive else 0
    head = _FINGERPRINTS.pack(fingerprints.seed, fingerprints.kind, flags, count, fingerprints.window, first)
    numbers = b"" if consecutive else symbols.astype(">u4").tobytes()
    return head + numbers + fingerprints.values.astype(">u2").tobytes()


def unpack_fingerprints(body: bytes | memoryview) -> Fingerprints:
    """Returns the fingerprints in an opened body.

    Raises:
        PacketError: the body does not have the length that it states, or is of no symbols.
    """
    if len(body) < _FINGERPRINTS.size:
        raise PacketError(f"fingerprints of {len(body)} bytes are too short")
    seed, kind, flags, count, window, first = _FINGERPRINTS.unpack_from(body)
    consecutive = bool(flags & _CONSECUTIVE)
    expected = _FINGERPRINTS.size + count * (2 if consecutive else 6)
    if kind not in (Kind.SOURCE, Kind.PARITY) or not count or len(body) != expected:
        raise PacketError(f"fingerprints of {len(body)} bytes do not hold {count} of kind {kind}")
    values = np.frombuffer(body, ">u2", count, len(body) - 2 * count).astype(np.uint16)
    if consecutive:
        return Fingerprints(Kind(kind), window, seed, np.arange(first, first + count), values)
    symbols = np.frombuffer(body, ">u4", count, _FINGERPRINTS.size).astype(np.int64)
    return Fingerprints(Kind(kind), window, seed, symbols, values)
