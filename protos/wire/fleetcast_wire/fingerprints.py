"""Fingerprints of symbols, by which receivers tell the sender's symbols from those of a forger. See WIRE.md, section 6.

A fingerprint is the upper 16 bits of a sum of products modulo 2^64 with factors that nobody but the sender knows until
all symbols that it covers are sent: so whoever sealed another symbol before could only guess, once in 65,536. That is
enough, since the chunk's digest finds what was guessed. The factors are never used again. In C where that could be
built (`fingerprints.c`).
"""

import hashlib
import secrets
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fleetcast_wire import native
from fleetcast_wire.memory import Buffer, Numbers, SymbolMemory, Symbols

SEED_BYTES = 16
_CONTEXT = b"fleetcast fingerprints 2"

Values = NDArray[np.uint16]


class Fingerprinter:
    """Computes fingerprints with the factors of one seed.

    Args:
        seed: 16 bytes.
        symbol_bytes: of every symbol.
    """

    def __init__(self, seed: bytes, symbol_bytes: int) -> None:
        self.seed = seed
        words = symbol_bytes // 4
        stream = hashlib.shake_128(_CONTEXT + seed).digest(8 * (words + 1))
        self._factors = np.frombuffer(stream, "<u8").astype(np.uint64)
        self._symbol_bytes = symbol_bytes

    @staticmethod
    def fresh(symbol_bytes: int) -> "Fingerprinter":
        """Returns one with factors that nobody knows."""
        return Fingerprinter(secrets.token_bytes(SEED_BYTES), symbol_bytes)

    def of(self, payloads: Symbols | Sequence[Buffer], symbols: Numbers) -> Values:
        """Returns the fingerprints of symbols: those of `payloads` with these numbers, or all if it is just bytes."""
        if not isinstance(payloads, Symbols):
            payloads, symbols = SymbolMemory.of(payloads, self._symbol_bytes), np.arange(len(payloads))
        if len(symbols) and not 0 <= symbols.min() <= symbols.max() < len(payloads):
            raise IndexError(f"symbols {symbols} are not all among {len(payloads)}")
        if payloads.symbol_bytes != self._symbol_bytes:
            raise ValueError(f"symbols of {payloads.symbol_bytes} bytes are not of {self._symbol_bytes}")
        try:
            return native.fingerprints(self._factors, np.ascontiguousarray(payloads.addresses[symbols]))
        except OSError:
            return self._portable(payloads, symbols)

    def _portable(self, payloads: Symbols, symbols: Numbers) -> Values:
        """Does the same in numpy."""
        content = b"".join(payloads.chosen(symbols))
        words = np.frombuffer(content, "<u4").reshape(len(symbols), -1).astype(np.uint64)
        sums: NDArray[np.uint64] = self._factors[0] + (words * self._factors[1:]).sum(axis=1, dtype=np.uint64)
        return (sums >> np.uint64(48)).astype(np.uint16)
