"""AES-256-GCM over trains of datagrams that lie in equal slots. See WIRE.md, section 5.

Two ciphers do the same: one by `cryptography`, which is always there, and one in C (`trains.c`) where it was built.
"""

import logging
from collections import deque
from collections.abc import Sequence
from functools import cache
from operator import length_hint
from typing import Protocol

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from numpy.typing import NDArray

from fleetcast_wire.keys import SealKeys
from fleetcast_wire.memory import Buffer, Numbers, Slots, SymbolMemory, Symbols, chosen
from fleetcast_wire.native import NativeCipher, NativeRun
from fleetcast_wire.packet import HEADER_BYTES

_logger = logging.getLogger(__name__)

_NONCE = np.dtype([("salt", "V4"), ("low", ">u8")])


class TrainCipher(Protocol):
    """Seals and opens datagrams of one transmission in the same slots. One thread at a time."""

    def __init__(self, keys: SealKeys, slots: Slots) -> None: ...

    def seal(self, payloads: Symbols | Sequence[Buffer], symbols: Numbers) -> None:
        """Seal symbols into the first slots, whose headers are filled in.

        They are those of `payloads` with the numbers `symbols`, or all of them if it is just the bytes of each.
        """
        ...

    def open(self, slots: Numbers, places: SymbolMemory, symbols: Numbers) -> list[int]:
        """Open `slots`, one into each place with the numbers `symbols`; return the slots that are not genuine.

        The place of a slot that is not genuine holds rubbish: it must be one whose symbol was not held.
        """
        ...

    def run(self, places: SymbolMemory, beginning: bytes, held: NDArray[np.bool_]) -> NativeRun | None:
        """Returns what opens source symbols of one window fast, as they usually come; None if nothing is gained by it.

        Their headers begin with `beginning`, all before the symbol's number; `held`, shape (symbol_count,), says which
        have their place already.
        """
        ...


class PortableCipher:
    """By `cryptography`, one call a datagram.

    The views of every slot are made once: fresh ones and a loop for each datagram would cost half as much again.
    """

    def __init__(self, keys: SealKeys, slots: Slots) -> None:
        self._cipher = AESGCM(keys.key)
        self._counters = slots.headers["counter"]
        nonces = np.zeros(len(slots), _NONCE)
        nonces["salt"] = np.void(keys.salt)
        self._mask = np.uint64(keys.mask)
        self._nonce_low = nonces["low"]
        raw, stride, buffer = nonces.view(np.uint8).data, slots.stride, slots.buffer
        self._nonces = [raw[slot * 12 : slot * 12 + 12] for slot in range(len(slots))]
        starts = range(0, len(buffer), stride)
        self._headers = [buffer[start : start + HEADER_BYTES] for start in starts]
        self._bodies = [buffer[start + HEADER_BYTES : start + stride] for start in starts]

    def seal(self, payloads: Symbols | Sequence[Buffer], symbols: Numbers) -> None:
        """See `TrainCipher.seal`."""
        count = len(symbols)
        self._nonce_low[:count] = self._counters[:count] ^ self._mask
        listed = payloads.chosen(symbols) if isinstance(payloads, Symbols) else payloads
        deque(map(self._cipher.encrypt_into, self._nonces, listed, self._headers, self._bodies), 0)

    def open(self, slots: Numbers, places: SymbolMemory, symbols: Numbers) -> list[int]:
        """See `TrainCipher.open`."""
        self._nonce_low[slots] = self._counters[slots] ^ self._mask
        nonces, bodies, headers = (chosen(views, slots) for views in (self._nonces, self._bodies, self._headers))
        failed: list[int] = []
        rest = iter(places.chosen(symbols))
        calls = map(self._cipher.decrypt_into, nonces, bodies, headers, rest)
        while True:
            try:
                deque(calls, 0)
            except InvalidTag:  # the map goes on with the one after the one that raised
                failed.append(int(slots[len(slots) - length_hint(rest) - 1]))
            else:
                return failed

    def run(self, places: SymbolMemory, beginning: bytes, held: NDArray[np.bool_]) -> None:
        """See `TrainCipher.run`."""
        return


@cache
def best_cipher() -> type[TrainCipher]:
    """Returns the fastest cipher that works here."""
    try:
        _prove(NativeCipher)
    except OSError as error:
        _logger.info("trains are sealed and opened by the portable cipher, which costs more time: %s", error)
        return PortableCipher
    return NativeCipher


def _prove(cipher: type[TrainCipher]) -> None:
    """Have a cipher seal what the portable one opens.

    Raises:
        OSError: it does not.
    """
    keys, slots, opened, number = SealKeys(b"k" * 32, b"v" * 12, 0), Slots(64, 1), SymbolMemory(64, 1), np.arange(1)
    slots.headers["counter"] = 7
    cipher(keys, slots).seal([b"s" * 64], number)
    if PortableCipher(keys, slots).open(number, opened, number) or bytes(opened.content) != b"s" * 64:
        raise OSError("the fast cipher does not compute what it should")
