"""Sealing and opening of datagrams: AES-256-GCM with a nonce from the packet counter. See WIRE.md, section 5.

Both classes keep one buffer of equal slots and the views of every slot, made once: building views and looping in
Python for each datagram would cost half as much again as the cipher.
"""

import secrets
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import length_hint

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from numpy.typing import NDArray

from .errors import PacketError
from .packet import HEADER, HEADER_BYTES, SEAL_BYTES, VERSION, Kind, unpack_header

KEY_BYTES = 32
INITIALIZATION_VECTOR_BYTES = 12

_NONCE = np.dtype([("salt", "V4"), ("low", ">u8")])
Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True)
class SealKeys:
    """The secret of one transmission, and the tag that its datagrams carry."""

    key: bytes = field(repr=False)
    initialization_vector: bytes = field(repr=False)
    tag: int

    @staticmethod
    def fresh() -> "SealKeys":
        """Return new random keys: a transmission never uses the keys of another, so a nonce never repeats."""
        return SealKeys(
            secrets.token_bytes(KEY_BYTES), secrets.token_bytes(INITIALIZATION_VECTOR_BYTES), secrets.randbits(32)
        )


def datagram_bytes(symbol_bytes: int) -> int:
    """Return the UDP payload of a sealed symbol in bytes."""
    return HEADER_BYTES + symbol_bytes + SEAL_BYTES


def _nonces(slots: int, initialization_vector: bytes) -> tuple[NDArray[np.void], int, list[memoryview]]:
    """Return `slots` nonces to be filled, the counter mask, and a view of each nonce."""
    nonces = np.zeros(slots, _NONCE)
    nonces["salt"] = np.void(initialization_vector[:4])
    raw = nonces.view(np.uint8).data
    views = [raw[slot * 12 : slot * 12 + 12] for slot in range(slots)]
    return nonces, int.from_bytes(initialization_vector[4:], "big"), views


class Sealer:
    """Seals trains of datagrams of one transmission. Not thread-safe: the packet counter must never repeat."""

    def __init__(self, keys: SealKeys, symbol_bytes: int, slots: int) -> None:
        stride = datagram_bytes(symbol_bytes)
        self._cipher = AESGCM(keys.key)
        self._tag = keys.tag
        self._stride = stride
        self._buffer = memoryview(bytearray(slots * stride))
        self._headers = np.frombuffer(
            self._buffer, np.dtype({"names": ["h"], "formats": [HEADER], "offsets": [0], "itemsize": stride})
        )["h"]
        self._headers["version"] = VERSION
        self._headers["tag"] = keys.tag
        nonces, self._mask, self._nonce_views = _nonces(slots, keys.initialization_vector)
        self._nonce_low = nonces["low"]
        starts = [slot * stride for slot in range(slots)]
        self._header_views = [self._buffer[start : start + HEADER_BYTES] for start in starts]
        self._payload_views = [self._buffer[start + HEADER_BYTES : start + stride] for start in starts]
        self._steps = np.arange(slots, dtype=np.uint64)
        self.counter = 0
        """Packet counter of the next datagram: how many this sealer has made."""

    def seal_symbols(
        self, kind: Kind, pass_number: int, window: int, symbols: NDArray[np.int64], payloads: Sequence[Buffer]
    ) -> memoryview:
        """Return a train of sealed symbols of one window, end to end; valid until the next call.

        `payloads` has the `symbol_bytes` bytes of each of `symbols`, at most as many as there are slots.
        """
        count = len(payloads)
        headers = self._headers[:count]
        headers["kind"] = kind
        headers["pass"] = pass_number
        headers["window"] = window
        headers["symbol"] = symbols
        counters = self._steps[:count] + np.uint64(self.counter)
        headers["counter"] = counters
        self._nonce_low[:count] = counters ^ np.uint64(self._mask)
        self.counter += count
        deque(map(self._cipher.encrypt_into, self._nonce_views, payloads, self._header_views, self._payload_views), 0)
        return self._buffer[: count * self._stride]

    def seal_mark(self, pass_number: int, body: bytes) -> bytes:
        """Return one sealed mark."""
        header = np.zeros((), HEADER)
        for name, value in (("version", VERSION), ("kind", Kind.MARK), ("pass", pass_number), ("tag", self._tag)):
            header[name] = value
        header["counter"] = self.counter
        self._nonce_low[0] = self.counter ^ self._mask
        self.counter += 1
        packed = header.tobytes()
        return packed + self._cipher.encrypt(bytes(self._nonce_views[0]), body, packed)


class Opener:
    """Opens datagrams of one transmission that lie in equal slots of `buffer`. One thread at a time."""

    def __init__(self, keys: SealKeys, symbol_bytes: int, slots: int) -> None:
        stride = datagram_bytes(symbol_bytes)
        self._cipher = AESGCM(keys.key)
        self.stride = stride
        """Bytes of a slot: a sealed symbol."""
        self.buffer = memoryview(bytearray(slots * stride))
        """Where datagrams are received: datagram i at i * stride."""
        self.headers: NDArray[np.void] = np.frombuffer(
            self.buffer, np.dtype({"names": ["h"], "formats": [HEADER], "offsets": [0], "itemsize": stride})
        )["h"]
        """Shape (slots,), dtype HEADER: the headers in the slots, unproven until opened."""
        nonces, self._mask, self._nonce_views = _nonces(slots, keys.initialization_vector)
        self._nonce_low = nonces["low"]
        self._salt = keys.initialization_vector[:4]
        starts = [slot * stride for slot in range(slots)]
        self._header_views = [self.buffer[start : start + HEADER_BYTES] for start in starts]
        self._payload_views = [self.buffer[start + HEADER_BYTES : start + stride] for start in starts]

    def open_symbols(self, first: int, destinations: Sequence[memoryview]) -> list[int]:
        """Open the slots from `first` on, one into each of `destinations`; return the slots that failed.

        Each destination has `symbol_bytes` bytes. That of a slot that failed holds rubbish: it must be one whose
        symbol was not held.
        """
        end = first + len(destinations)
        self._nonce_low[first:end] = self.headers["counter"][first:end] ^ np.uint64(self._mask)
        nonces, payloads = self._nonce_views[first:end], self._payload_views[first:end]
        return [first + index for index in self._open(nonces, payloads, self._header_views[first:end], destinations)]

    def open_scattered(self, slots: Sequence[int], destinations: Sequence[Buffer]) -> list[int]:
        """Open each of `slots` into its one of `destinations`; return the slots that failed. See `open_symbols`."""
        self._nonce_low[slots] = self.headers["counter"][slots] ^ np.uint64(self._mask)
        nonces = [self._nonce_views[slot] for slot in slots]
        payloads = [self._payload_views[slot] for slot in slots]
        headers = [self._header_views[slot] for slot in slots]
        return [slots[index] for index in self._open(nonces, payloads, headers, destinations)]

    def _open(
        self,
        nonces: Sequence[memoryview],
        payloads: Sequence[memoryview],
        headers: Sequence[memoryview],
        destinations: Sequence[Buffer],
    ) -> list[int]:
        """Open each payload into its destination; return the indices of those that failed."""
        failed: list[int] = []
        rest = iter(destinations)
        calls = map(self._cipher.decrypt_into, nonces, payloads, headers, rest)
        while True:
            try:
                deque(calls, 0)
            except InvalidTag:  # the map goes on with the one after the one that raised
                failed.append(len(destinations) - length_hint(rest) - 1)
            else:
                return failed

    def open(self, datagram: Buffer) -> bytes:
        """Return the body of one datagram of any length.

        Raises:
            PacketError: it does not parse or is not genuine.
        """
        counter = unpack_header(memoryview(datagram)).counter
        nonce = self._salt + (counter ^ self._mask).to_bytes(8, "big")
        try:
            return self._cipher.decrypt(nonce, datagram[HEADER_BYTES:], bytes(datagram[:HEADER_BYTES]))
        except InvalidTag as error:
            raise PacketError("the seal is not genuine") from error
