"""The cipher in C (`trains.c`), where it was built. See `hatch_build.py`."""

import ctypes
import weakref
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .keys import SealKeys
from .memory import Buffer, Numbers, Slots, SymbolMemory

_LIBRARY = Path(__file__).with_name("trains.so")


class NativeCipher:
    """By `trains.c`, one call a train, during which other threads run.

    Raises:
        OSError: it was not built here, or the library behind it is missing.
        NotImplementedError: this processor lacks what it needs.
    """

    def __init__(self, keys: SealKeys, slots: Slots) -> None:
        self._library = _library()
        self._slots = slots
        self._cipher = self._library.fleetcast_cipher_new(keys.key, keys.initialization_vector)
        if not self._cipher:
            raise NotImplementedError("this processor lacks the instructions of the fast cipher")
        weakref.finalize(self, self._library.fleetcast_cipher_free, self._cipher)

    def seal(self, payloads: SymbolMemory | Sequence[Buffer], symbols: Numbers) -> None:
        """See `TrainCipher.seal`."""
        slots, count = self._slots, len(symbols)
        _check(np.arange(count), len(slots))
        if isinstance(payloads, SymbolMemory):
            addresses = _addresses(payloads, symbols, slots)
            first = addresses.ctypes.data
        else:
            if len(payloads) != count or any(len(payload) != slots.symbol_bytes for payload in payloads):
                raise ValueError(f"not {count} symbols of {slots.symbol_bytes} bytes")
            kept = (ctypes.c_char_p * count)(*map(bytes, payloads))
            first = ctypes.addressof(kept)
        self._library.fleetcast_seal(self._cipher, slots.address, slots.stride, first, count)

    def open(self, slots: Numbers, places: SymbolMemory, symbols: Numbers) -> list[int]:
        """See `TrainCipher.open`."""
        room, count = self._slots, len(symbols)
        numbers = np.ascontiguousarray(slots, np.int64)
        _check(numbers, len(room))
        addresses = _addresses(places, symbols, room)
        if len(numbers) != count:
            raise ValueError(f"{len(numbers)} slots are not {count} symbols")
        failed = np.empty(count, np.bool_)
        given = numbers.ctypes.data, addresses.ctypes.data, count, failed.ctypes.data
        if not self._library.fleetcast_open(self._cipher, room.address, room.stride, *given):
            return []
        listed: list[int] = numbers[failed].tolist()
        return listed


def _addresses(memory: SymbolMemory, symbols: Numbers, slots: Slots) -> NDArray[np.uint64]:
    """Return where symbols lie; C trusts what it gets, so nothing else may go there."""
    if memory.symbol_bytes != slots.symbol_bytes:
        raise ValueError(f"symbols of {memory.symbol_bytes} bytes do not fit slots for {slots.symbol_bytes}")
    _check(symbols, len(memory))
    return symbols.astype(np.uint64) * np.uint64(memory.symbol_bytes) + np.uint64(memory.address)


def _check(numbers: Numbers, count: int) -> None:
    if len(numbers) and not (numbers.min() >= 0 and numbers.max() < count):
        raise IndexError(f"numbers {numbers.min()} to {numbers.max()} are not all within 0 to {count - 1}")


@cache
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(str(_LIBRARY))
    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    for name, result, arguments in (
        ("cipher_new", pointer, (ctypes.c_char_p, ctypes.c_char_p)),
        ("cipher_free", None, (pointer,)),
        ("seal", None, (pointer, pointer, size, pointer, size)),
        ("open", size, (pointer, pointer, size, pointer, pointer, size, pointer)),
    ):
        function = getattr(library, f"fleetcast_{name}")
        function.restype, function.argtypes = result, arguments
    return library
