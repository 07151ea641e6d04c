"""What is written in C, where it was built.

Receiving is in `messages.c`, the cipher in `trains.c`; sums of symbols are in `parity.c` and fingerprints in
`fingerprints.c`, libraries of their own, which need no other.

See `hatch_build.py`.
"""

import ctypes
import weakref
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fleetcast_wire.keys import SealKeys
from fleetcast_wire.memory import Buffer, Numbers, Slots, SymbolMemory, Symbols


class Opened(NamedTuple):
    """What was opened of a run."""

    symbol_count: int
    stop: int
    """The number after that of the last symbol."""
    first_counter: int
    last_counter: int


class Messages(NamedTuple):
    """What was received."""

    message_count: int
    more: bool
    """Whether more may be there."""
    slots: Numbers
    """Those that hold a datagram of the size of a slot, but for those of a run; valid until the next call."""
    others: list[list[int]]
    """Each message with more than those: room, how many of those it begins with, length, size of its datagrams."""


class NativeCipher:
    """By `trains.c`, one call a train, during which other threads run.

    Raises:
        OSError: it was not built here, the library behind it is missing, or this processor lacks what it needs.
    """

    def __init__(self, keys: SealKeys, slots: Slots) -> None:
        self._library = _library()
        self._slots = slots
        self._room = slots.address, len(slots), slots.stride
        self._cipher = self._library.fleetcast_cipher_new(keys.key, keys.initialization_vector)
        if not self._cipher:
            raise OSError("this processor lacks the instructions of the fast cipher")
        finalizer = weakref.finalize(self, self._library.fleetcast_cipher_free, self._cipher)
        finalizer.atexit = False  # a thread may still be in the middle of a train

    def seal(self, payloads: Symbols | Sequence[Buffer], symbols: Numbers) -> None:
        """See `TrainCipher.seal`."""
        if not isinstance(payloads, Symbols):
            payloads, symbols = SymbolMemory.of(payloads, self._slots.symbol_bytes), np.arange(len(payloads))
        self._check(payloads)
        if len(symbols) and not 0 <= symbols.min() <= symbols.max() < len(payloads):
            raise IndexError(f"symbols {symbols} are not all among {len(payloads)}")
        addresses = np.ascontiguousarray(payloads.addresses[symbols])
        if self._library.fleetcast_seal(self._cipher, *self._room, addresses.ctypes.data, len(addresses)) < 0:
            raise IndexError(f"{len(symbols)} symbols are more than there are slots")

    def open(self, slots: Numbers, places: SymbolMemory, symbols: Numbers) -> list[int]:
        """See `TrainCipher.open`."""
        numbers, targets = np.ascontiguousarray(slots, np.int64), np.ascontiguousarray(symbols, np.int64)
        if len(numbers) != len(targets):
            raise ValueError(f"{len(numbers)} slots are not {len(targets)} symbols")
        failed = np.empty(len(numbers), np.bool_)
        given = numbers.ctypes.data, targets.ctypes.data, len(numbers), failed.ctypes.data
        failures = self._library.fleetcast_open(self._cipher, *self._room, *self._memory(places), *given)
        if failures < 0:
            raise IndexError(f"slots {slots} or symbols {symbols} are not all there")
        return numbers[failed].tolist() if failures else []

    def run(self, places: SymbolMemory, beginning: bytes, held: NDArray[np.bool_]) -> "NativeRun":
        """See `TrainCipher.run`."""
        address, count = self._memory(places)
        if len(beginning) != 12 or len(held) > count or not held.flags.c_contiguous:
            raise ValueError(f"{len(held)} marks do not fit {count} places, or {len(beginning)} bytes no header")
        state = _RunState(self._cipher, *self._room, address, held.ctypes.data, len(held), tuple(beginning))
        return NativeRun(state, (self, places, held))

    def _memory(self, memory: SymbolMemory) -> tuple[int, int]:
        """Returns address and size of memory; C trusts them, so no other may go there."""
        self._check(memory)
        return memory.address, len(memory)

    def _check(self, symbols: Symbols) -> None:
        if symbols.symbol_bytes != self._slots.symbol_bytes:
            raise ValueError(f"symbols of {symbols.symbol_bytes} bytes do not fit slots for {self._slots.symbol_bytes}")


class _RunState(ctypes.Structure):
    """`struct run` of `trains.h`."""

    _fields_ = (
        ("cipher", ctypes.c_void_p),
        ("slots", ctypes.c_void_p),
        ("slot_count", ctypes.c_size_t),
        ("stride", ctypes.c_size_t),
        ("memory", ctypes.c_void_p),
        ("held", ctypes.c_void_p),
        ("symbol_count", ctypes.c_size_t),
        ("beginning", ctypes.c_uint8 * 12),
        ("opened", ctypes.c_int64),
        ("stop", ctypes.c_size_t),
        ("first_counter", ctypes.c_uint64.__ctype_be__),
        ("last_counter", ctypes.c_uint64.__ctype_be__),
    )


class NativeRun:
    """Opens source symbols of one window into their places, as long as nothing about them is special.

    They ascend, and have a place that is not held; then it is marked so. What is special, `TrainCipher.open` takes.
    """

    def __init__(self, state: _RunState, used: tuple[object, ...]) -> None:
        self._state = state
        self._used = used  # what the state has addresses of
        self.address = ctypes.addressof(state)

    def open(self, slots: Numbers) -> int:
        """Open the first of these slots; return how many."""
        numbers = np.ascontiguousarray(slots, np.int64)
        opened: int = _library().fleetcast_open_run(self.address, numbers.ctypes.data, len(numbers))
        if opened < 0:
            raise IndexError(f"slots {slots} are not all there")
        return opened

    @property
    def opened_count(self) -> int:
        """How many were opened since the last call of `take`."""
        count: int = self._state.opened
        return count

    def take(self) -> Opened:
        """Returns what was opened since the last call."""
        state = self._state
        opened = Opened(state.opened, state.stop, state.first_counter, state.last_counter)
        state.opened = state.stop = 0
        return opened


class NativeMessages:
    """By `messages.c`: receives into rooms of slots, many messages a call, during which other threads run.

    Args:
        messages: an array of `struct mmsghdr`, each with a room of `room_slots` slots and one for control messages.
        control_bytes: size of the latter.
        stride: bytes of a slot.

    Raises:
        OSError: it was not built here.
    """

    def __init__(self, messages: ctypes.Array[Any], control_bytes: int, room_slots: int, stride: int) -> None:
        self._receive = _library().fleetcast_receive
        self._messages = messages
        self._slots = np.empty(len(messages) * room_slots, np.int64)
        self._others = np.empty((len(messages), 4), np.int64)
        self._counts = np.zeros(3, np.int64)
        self._rooms = ctypes.addressof(messages)
        self._sizes = control_bytes, room_slots, stride
        self._results = tuple(array.ctypes.data for array in (self._slots, self._others, self._counts))

    def __call__(self, descriptor: int, most: int, run: NativeRun | None) -> Messages:
        """Receive at most `most` messages from a socket without waiting, into the first rooms."""
        if most > len(self._messages):
            raise ValueError(f"{most} messages are more than there are rooms")
        state = run.address if run else None
        count = self._receive(descriptor, self._rooms, most, *self._sizes, state, *self._results)
        filled, others, more = self._counts.tolist()
        return Messages(count, bool(more), self._slots[:filled], self._others[:others].tolist())


def multipliers(images: NDArray[np.uint16]) -> NDArray[np.uint64]:
    """Returns factors as `accumulate` takes them.

    Args:
        images: shape (..., 16), what each factor makes of each bit of an element; the result has the shape (..., 4).

    Raises:
        OSError: it was not built here.
    """
    if images.shape[-1] != 16:
        raise ValueError(f"factors of shape {images.shape} do not have 16 images each")
    images = np.ascontiguousarray(images, np.uint16)
    result = np.empty((*images.shape[:-1], 4), np.uint64)
    _parity_library().fleetcast_multipliers(images.ctypes.data, result.ctypes.data, result.size // 4)
    return result


@cache
def accumulates() -> bool:
    """Returns whether `accumulate` was built here and this processor can."""
    try:
        accumulate(np.zeros((1, 1, 4), np.uint64), [0], np.zeros(1, np.uintp), np.zeros((1, 64), np.uint8))
    except OSError:
        return False
    return True


def accumulate(
    factors: NDArray[np.uint64], columns: Sequence[int], addresses: NDArray[np.uintp], sums: NDArray[np.uint8]
) -> None:
    """Add multiples of symbols to sums, while other threads run.

    Args:
        factors: shape (symbols, n, 4), by `multipliers`.
        columns: which of the n factors of each symbol goes into each sum.
        addresses: shape (symbols,), where each symbol lies, which the caller vouches for; 0 leaves it out.
        sums: shape (len(columns), T), T a multiple of 64, the size of every symbol.

    Raises:
        OSError: it was not built here, or this processor cannot.
    """
    symbols, column_count, parts = factors.shape
    if parts != 4 or len(addresses) != symbols or len(columns) != len(sums) or sums.shape[1] % 64:
        raise ValueError(f"factors of shape {factors.shape} do not fit {len(addresses)} symbols and sums {sums.shape}")
    if not (factors.flags.c_contiguous and addresses.flags.c_contiguous and sums.flags.c_contiguous):
        raise ValueError("factors, addresses or sums do not lie in order")
    chosen = np.asarray(columns, np.int64)
    if len(chosen) and not 0 <= chosen.min() <= chosen.max() < column_count:
        raise IndexError(f"columns {columns} are not all among {column_count}")
    given = factors.ctypes.data, column_count, chosen.ctypes.data, len(chosen), addresses.ctypes.data, symbols
    if _parity_library().fleetcast_accumulate(*given, sums.ctypes.data, sums.shape[1]) < 0:
        raise OSError("this processor lacks the instructions for multiples of symbols")


def fingerprints(factors: NDArray[np.uint64], addresses: NDArray[np.uintp]) -> NDArray[np.uint16]:
    """Returns the fingerprint of each symbol, while other threads run.

    Args:
        factors: shape (words of a symbol + 1,).
        addresses: shape (symbols,), where each symbol lies, which the caller vouches for.

    Raises:
        OSError: it was not built here.
    """
    if not (factors.flags.c_contiguous and addresses.flags.c_contiguous):
        raise ValueError("factors or addresses do not lie in order")
    values = np.empty(len(addresses), np.uint16)
    given = factors.ctypes.data, len(factors) - 1, addresses.ctypes.data, len(addresses), values.ctypes.data
    _fingerprint_library().fleetcast_fingerprints(*given)
    return values


@cache
def _fingerprint_library() -> ctypes.CDLL:
    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    return _loaded("libfingerprints.so", ("fingerprints", None, (pointer, size, pointer, size, pointer)))


@cache
def _library() -> ctypes.CDLL:
    pointer, size, number = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int64
    return _loaded(
        "libnative.so",
        ("cipher_new", pointer, (ctypes.c_char_p, ctypes.c_char_p)),
        ("cipher_free", None, (pointer,)),
        ("seal", number, (pointer, pointer, size, size, pointer, size)),
        ("open", number, (pointer, pointer, size, size, pointer, size, pointer, pointer, size, pointer)),
        ("open_run", number, (pointer, pointer, size)),
        ("receive", number, (ctypes.c_int, pointer, ctypes.c_uint, size, number, number, *[pointer] * 4)),
    )


@cache
def _parity_library() -> ctypes.CDLL:
    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    return _loaded(
        "libparity.so",
        ("multipliers", None, (pointer, pointer, size)),
        ("accumulate", ctypes.c_int, (pointer, size, pointer, size, pointer, size, pointer, size)),
    )


def _loaded(name: str, *functions: tuple[str, Any, tuple[Any, ...]]) -> ctypes.CDLL:
    library = ctypes.CDLL(str(Path(__file__).with_name(name)))
    for function_name, result, arguments in functions:
        function = getattr(library, f"fleetcast_{function_name}")
        function.restype, function.argtypes = result, arguments
    return library
