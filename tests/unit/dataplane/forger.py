"""A member of a transmission that forges: it has the key, hears everything, and is as fast as it likes."""

from collections.abc import Callable
from dataclasses import replace
from random import Random

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from fleetcast_wire.keys import SealKeys
from fleetcast_wire.packet import (
    HEADER_BYTES,
    Header,
    Kind,
    Mark,
    MarkedWindow,
    pack_header,
    pack_mark,
    unpack_header,
)

Forge = Callable[[Header, bytes], tuple[Header, bytes]]
"""Makes another header and body of one that was heard, or is about to be."""


class Forger:
    """Adds to what the sender sends.

    Args:
        keys: what a member is told.
        seed: the same gives the same forgeries.
        ways: what it does, any of `WAYS`.
        share: of the sender's datagrams that it makes something of.
        ahead: whether its own come first.
    """

    def __init__(self, keys: SealKeys, seed: int, ways: list[str], *, share: float, ahead: bool) -> None:
        self._keys = keys
        self._cipher = AESGCM(keys.key)
        self._random = Random(seed)
        self._ways = ways
        self._share = share
        self._ahead = ahead
        self._signing_key = Ed25519PrivateKey.from_private_bytes(self._random.randbytes(32))
        self._heard: list[bytes] = []
        self.count = 0

    def __call__(self, datagrams: list[bytes]) -> list[bytes]:
        """Returns what the others hear instead of what the sender sent."""
        result = []
        for datagram in datagrams:
            forged = [self._forge(datagram)] if self._random.random() < self._share else []
            self.count += len(forged)
            result += [*forged, datagram] if self._ahead else [datagram, *forged]
            self._heard = [*self._heard[-200:], datagram]
        return result

    def _forge(self, datagram: bytes) -> bytes:
        way = self._random.choice(self._ways)
        if way == "replay":
            return self._random.choice(self._heard or [datagram])
        header, body = self._open(datagram)
        return self.seal(*WAYS[way](self, header, body))

    def _open(self, datagram: bytes) -> tuple[Header, bytes]:
        header = unpack_header(datagram)
        return header, self._cipher.decrypt(self._nonce(header), datagram[HEADER_BYTES:], datagram[:HEADER_BYTES])

    def _nonce(self, header: Header) -> bytes:
        return self._keys.salt + (header.counter ^ self._keys.mask).to_bytes(8, "big")

    def seal(self, header: Header, body: bytes) -> bytes:
        """Returns a datagram with the seal of the transmission."""
        packed = pack_header(header)
        return packed + self._cipher.encrypt(self._nonce(header), body, packed)

    def other_body(self, header: Header, body: bytes) -> tuple[Header, bytes]:
        """The datagram that the sender would send, with something else in it."""
        return header, self._spoilt(body)

    def other_counter(self, header: Header, body: bytes) -> tuple[Header, bytes]:
        """Another packet counter."""
        near = header.counter + self._random.randrange(-50, 5000)
        return replace(header, counter=self._random.choice([max(near, 0), 0, 1 << 62, (1 << 64) - 1])), body

    def other_window(self, header: Header, body: bytes) -> tuple[Header, bytes]:
        """Another window: next to this one, the last, or none."""
        step = self._random.choice([1, 2, 3, 5, -1, 1 << 20])
        return replace(header, window=max(0, header.window + step)), self._spoilt(body)

    def other_symbol(self, header: Header, body: bytes) -> tuple[Header, bytes]:
        """Another symbol of the window, sent, not yet sent, or none."""
        return replace(header, symbol=self._random.choice([self._random.randrange(200), 1 << 31])), self._spoilt(body)

    def other_pass(self, header: Header, body: bytes) -> tuple[Header, bytes]:
        """An earlier or later pass."""
        return replace(header, pass_number=(header.pass_number + self._random.choice([1, 2, -1, 999])) & 0xFFFF), body

    def other_kind(self, header: Header, body: bytes) -> tuple[Header, bytes]:
        """A symbol that says to be parity, and so on."""
        return replace(header, kind=self._random.choice(list(Kind))), self._spoilt(body)

    def parity(self, header: Header, body: bytes) -> tuple[Header, bytes]:
        """Parity of any window and row."""
        window = max(0, header.window - self._random.randrange(3))
        symbol = self._random.randrange(4 * 32)
        return replace(header, kind=Kind.PARITY, window=window, symbol=symbol), self._random.randbytes(512)

    def mark(self, header: Header, body: bytes) -> tuple[Header, bytes]:
        """A mark of its own, with a signature of its own."""
        number = self._random.choice([0, header.window, header.window + 1, header.window + 40])
        entry = MarkedWindow(number, self._random.randrange(1, 9), self._random.randrange(40))
        mark = pack_mark(Mark(self._random.choice([(), (entry,)]), 99, ended=self._random.random() < 0.5))
        counter = self._random.choice([header.counter, header.counter + 1, (1 << 64) - 1])
        header = replace(header, kind=Kind.MARK, window=number, counter=counter)
        return header, mark + self._signing_key.sign(pack_header(header) + mark)

    def _spoilt(self, body: bytes) -> bytes:
        spoilt = bytearray(body)
        for _ in range(self._random.randrange(1, 4)):
            spoilt[self._random.randrange(len(spoilt))] ^= self._random.randrange(1, 256)
        return bytes(spoilt)


WAYS = {
    "other body": Forger.other_body,
    "other counter": Forger.other_counter,
    "other window": Forger.other_window,
    "other symbol": Forger.other_symbol,
    "other pass": Forger.other_pass,
    "other kind": Forger.other_kind,
    "parity": Forger.parity,
    "mark": Forger.mark,
}
ALL_WAYS = [*WAYS, "replay"]
