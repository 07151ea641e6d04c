"""Sealing and opening of datagrams with a nonce from the packet counter. See WIRE.md, section 5."""

from collections.abc import Sequence

import numpy as np
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from numpy.typing import NDArray

from fleetcast_wire.ciphers import TrainCipher, best_cipher
from fleetcast_wire.errors import PacketError
from fleetcast_wire.keys import SealKeys, SenderKeys
from fleetcast_wire.memory import Buffer, Numbers, Slots, Symbols
from fleetcast_wire.packet import (
    HEADER_BYTES,
    SIGNATURE_BYTES,
    VERSION,
    Fingerprints,
    Header,
    Kind,
    pack_fingerprints,
    pack_header,
    unpack_header,
)


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

    def __init__(
        self, keys: SenderKeys, symbol_bytes: int, count: int, cipher: type[TrainCipher] | None = None
    ) -> None:
        self._keys = keys
        self._slots = Slots(symbol_bytes, count)
        self._slots.headers["version"] = VERSION
        self._slots.headers["tag"] = keys.tag
        self._cipher = (cipher or best_cipher())(keys, self._slots)
        self._mark_cipher = AESGCM(keys.key)
        self._steps = np.arange(count, dtype=np.uint64)
        self.counter = 0
        """Packet counter of the next datagram: how many this sealer has made."""
        self.position = (0, 0)
        """Window and number of the source symbol that comes next, as the caller knows: what is signed says it."""

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
        """Returns one signed and sealed mark."""
        return self._seal_signed(Kind.MARK, pass_number, body)

    def seal_fingerprints(self, pass_number: int, fingerprints: Fingerprints) -> bytes:
        """Returns a signed and sealed datagram of the fingerprints of symbols that were all sent before."""
        return self._seal_signed(Kind.FINGERPRINTS, pass_number, pack_fingerprints(fingerprints))

    def _seal_signed(self, kind: Kind, pass_number: int, body: bytes) -> bytes:
        header = pack_header(Header(kind, pass_number, self._keys.tag, *self.position, self.counter))
        nonce = _nonce(self._keys, self.counter)
        self.counter += 1
        signature = self._keys.signing_key.sign(header + body)
        return header + self._mark_cipher.encrypt(nonce, body + signature, header)


class Signed:
    """A datagram that opened and says to be signed; whether it is, only `verify` proves.

    Args:
        header: of the datagram.
        content: the 24 bytes of the header, and the body.
        signature: 64 bytes.
        key: of the sender.
    """

    def __init__(self, header: Header, content: bytes, signature: bytes, key: Ed25519PublicKey | None) -> None:
        self.header = header
        self.body = content[HEADER_BYTES:]
        self._content = content
        self._signature = signature
        self._key = key

    def verify(self) -> None:
        """Returns if the sender has signed it.

        Raises:
            PacketError: somebody else made it, who knows the key of the transmission.
        """
        try:
            if self._key is None:
                raise InvalidSignature
            self._key.verify(self._signature, self._content)
        except InvalidSignature as error:
            raise PacketError("the signature is not the sender's") from error


class Opener:
    """Opens datagrams of one transmission that lie in equal slots. One thread at a time. See `Sealer`."""

    def __init__(self, keys: SealKeys, symbol_bytes: int, count: int, cipher: type[TrainCipher] | None = None) -> None:
        self._keys = keys
        self._slots = Slots(symbol_bytes, count)
        self._cipher = (cipher or best_cipher())(keys, self._slots)
        self._mark_cipher = AESGCM(keys.key)
        self._verification_key = (
            Ed25519PublicKey.from_public_bytes(keys.verification_key) if keys.verification_key else None
        )
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

    def open(self, datagram: Buffer) -> Signed:
        """Returns what one mark or datagram of fingerprints holds, its seal proven, its signature not yet.

        Raises:
            PacketError: it does not parse or does not open.
        """
        header = unpack_header(memoryview(datagram))
        raw = bytes(datagram[:HEADER_BYTES])
        try:
            opened = self._mark_cipher.decrypt(_nonce(self._keys, header.counter), datagram[HEADER_BYTES:], raw)
        except InvalidTag as error:
            raise PacketError("the seal is not genuine") from error
        if len(opened) < SIGNATURE_BYTES:
            raise PacketError(f"{len(opened)} bytes have no room for a signature")
        body, signature = opened[:-SIGNATURE_BYTES], opened[-SIGNATURE_BYTES:]
        return Signed(header, raw + body, signature, self._verification_key)
