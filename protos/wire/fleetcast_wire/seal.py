"""Sealing and opening of datagrams with a nonce from the packet counter. See WIRE.md, section 5."""

from collections.abc import Sequence

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from numpy.typing import NDArray

from fleetcast_wire.ciphers import TrainCipher, best_cipher
from fleetcast_wire.errors import PacketError
from fleetcast_wire.keys import SealKeys
from fleetcast_wire.memory import Buffer, Numbers, Slots, Symbols
from fleetcast_wire.packet import HEADER_BYTES, VERSION, Header, Kind, pack_header, unpack_header


def _nonce(keys: SealKeys, counter: int) -> bytes:
    return keys.salt + (counter ^ keys.mask).to_bytes(8, "big")


class Sealer:
    """Seals trains of datagrams of one transmission. Not thread-safe: the packet counter must never repeat.

    Args:
        keys: of the transmission.
        symbol_bytes: of every symbol.
        count: most symbols of a train.
        cipher: by default the fastest that works here.
    """

    def __init__(self, keys: SealKeys, symbol_bytes: int, count: int, cipher: type[TrainCipher] | None = None) -> None:
        self._keys = keys
        self._slots = Slots(symbol_bytes, count)
        self._slots.headers["version"] = VERSION
        self._slots.headers["tag"] = keys.tag
        self._cipher = (cipher or best_cipher())(keys, self._slots)
        self._mark_cipher = AESGCM(keys.key)
        self._steps = np.arange(count, dtype=np.uint64)
        self.counter = 0
        """Packet counter of the next datagram: how many this sealer has made."""

    def seal_symbols(
        self,
        kind: Kind,
        pass_number: int,
        window: int,
        symbols: Numbers,
        payloads: Symbols | Sequence[Buffer],
    ) -> memoryview:
        """Returns a train of sealed symbols of one window, end to end; valid until the next call.

        `payloads` has the `symbol_bytes` bytes of each of `symbols`: in the same order, or, as `Symbols`, by number.
        """
        count = len(symbols)
        headers = self._slots.headers[:count]
        headers["kind"] = kind
        headers["pass"] = pass_number
        headers["window"] = window
        headers["symbol"] = symbols
        headers["counter"] = self._steps[:count] + np.uint64(self.counter)
        self.counter += count
        self._cipher.seal(payloads, symbols)
        return self._slots.buffer[: count * self._slots.stride]

    def seal_mark(self, pass_number: int, body: bytes) -> bytes:
        """Returns one sealed mark."""
        header = pack_header(Header(Kind.MARK, pass_number, self._keys.tag, 0, 0, self.counter))
        nonce = _nonce(self._keys, self.counter)
        self.counter += 1
        return header + self._mark_cipher.encrypt(nonce, body, header)


class Opener:
    """Opens datagrams of one transmission that lie in equal slots. One thread at a time. See `Sealer`."""

    def __init__(self, keys: SealKeys, symbol_bytes: int, count: int, cipher: type[TrainCipher] | None = None) -> None:
        self._keys = keys
        self._slots = Slots(symbol_bytes, count)
        self._cipher = (cipher or best_cipher())(keys, self._slots)
        self._mark_cipher = AESGCM(keys.key)
        self.stride = self._slots.stride
        """Bytes of a slot: a sealed symbol."""
        self.buffer = self._slots.buffer
        """Where datagrams are received: datagram i at i * stride."""
        self.headers: NDArray[np.void] = self._slots.headers
        """Shape (count,), dtype HEADER: the headers in the slots, unproven until opened."""
        self.open_symbols = self._cipher.open
        """See `TrainCipher.open`."""
        self.run = self._cipher.run
        """See `TrainCipher.run`."""

    def open(self, datagram: Buffer) -> bytes:
        """Returns the body of one datagram of any length.

        Raises:
            PacketError: it does not parse or is not genuine.
        """
        counter = unpack_header(memoryview(datagram)).counter
        nonce = _nonce(self._keys, counter)
        try:
            return self._mark_cipher.decrypt(nonce, datagram[HEADER_BYTES:], bytes(datagram[:HEADER_BYTES]))
        except InvalidTag as error:
            raise PacketError("the seal is not genuine") from error
