"""Tells the sender's symbols from those of a member that forges. Pure. WIRE.md, section 6, from the receiver's side.

Every member of a transmission has its key, so a seal that opens proves no more than that a member made it. What the
sender has signed - marks, and the fingerprints of the symbols that it sent - proves the rest. As a rule nobody forges,
and a chunk that is wrong is found by its digest. So fingerprints are kept, and looked at once something was forged.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np
from fleetcast_wire.errors import PacketError
from fleetcast_wire.fingerprints import Fingerprinter
from fleetcast_wire.memory import Numbers, SymbolMemory
from fleetcast_wire.packet import Fingerprints, Kind, unpack_fingerprints
from fleetcast_wire.seal import Signed

from fleetcast_agent.receiving.multicast.reception.windows import Window

_KEPT = 512
"""Datagrams of fingerprints that are kept, 1.4 KB each: those of 0.2 GB of symbols."""
_FRESH_SECONDS = 0.02
"""So often at least something signed is verified: the position of the sender is known so well."""
_CHECKS_PER_SECOND, _CHECKS_AT_ONCE = 3000.0, 500.0
"""Signatures that are verified at most, 0.07 ms each: a fifth of a core. A sender makes some 300 at 1 Gbit/s. Where a
member forges several times as many as are verified, the sender's are found too seldom to ask for repair in time."""


class Signatures:
    """Verifies what the sender signed, no more often than this machine can bear.

    Args:
        forged: called when a signature turns out not to be the sender's.
    """

    def __init__(self, forged: Callable[[], None]) -> None:
        self._forged = forged
        self._allowed = _CHECKS_AT_ONCE
        self._at = 0.0
        self._verified_at = float("-inf")

    def verified(self, signed: Signed, now: float) -> bool:
        """Returns whether the sender signed this."""
        self._allowed = min(self._allowed + max(0.0, now - self._at) * _CHECKS_PER_SECOND, _CHECKS_AT_ONCE)
        self._at = now
        if self._allowed < 1:
            return False
        self._allowed -= 1
        try:
            signed.verify()
        except PacketError:
            self._forged()
            return False
        self._verified_at = now
        return True

    def due(self, now: float) -> bool:
        """Returns whether it is long ago that something was verified."""
        return now - self._verified_at > _FRESH_SECONDS


class KeptFingerprints:
    """Datagrams of fingerprints of the running pass whose signatures nobody has looked at yet."""

    def __init__(self) -> None:
        self._kept: deque[Signed] = deque(maxlen=_KEPT)

    def keep(self, signed: Signed) -> None:
        """Keep one; the oldest goes when there are too many."""
        self._kept.append(signed)

    def take(self) -> list[Signed]:
        """Returns all, and forgets them."""
        kept = list(self._kept)
        self._kept.clear()
        return kept


def fingerprints_in(signed: Signed) -> Fingerprints | None:
    """Returns the fingerprints that a datagram holds; None if it does not hold what it says."""
    try:
        return unpack_fingerprints(signed.body)
    except PacketError:
        return None


def forged_symbols(window: Window, proof: Fingerprints) -> Numbers:
    """Returns the source symbols of a window, among those of a proof, that are held and are not the sender's.

    Where the sender's came, too, but later, it is put into its place. All symbols of the proof count as checked then.
    """
    inside = proof.symbols < window.shape.symbol_count
    symbols, values = proof.symbols[inside], proof.values[inside]
    fingerprinter = Fingerprinter(proof.seed, window.memory.source.symbol_bytes)
    there = window.held[symbols] & ~np.isin(symbols % window.shape.codewords, list(window.decoding))
    symbols_there, expected = symbols[there], values[there]
    wrong = fingerprinter.of(window.memory.source, symbols_there) != expected
    lost = []
    for symbol, value in zip(symbols_there[wrong].tolist(), expected[wrong].tolist(), strict=True):
        genuine = _matching(window.rivals.pop((Kind.SOURCE, symbol), []), fingerprinter, value)
        if genuine is None:
            lost.append(symbol)
        else:
            size = window.memory.source.symbol_bytes
            window.memory.source.content[symbol * size : (symbol + 1) * size] = genuine
    window.checked[symbols] = True
    return np.array(lost, np.int64)


def genuine_parity(window: Window, proof: Fingerprints) -> list[tuple[int, memoryview]]:
    """Returns the parity symbols, with their numbers, that came before and are the sender's."""
    fingerprinter: Fingerprinter | None = None
    found = []
    for symbol, value in zip(proof.symbols.tolist(), proof.values.tolist(), strict=True):
        rivals = window.rivals.pop((Kind.PARITY, symbol), [])
        if rivals:
            fingerprinter = fingerprinter or Fingerprinter(proof.seed, window.memory.source.symbol_bytes)
            genuine = _matching(rivals, fingerprinter, value)
            if genuine is not None:
                found.append((symbol, genuine))
    return found


def _matching(rivals: list[memoryview], fingerprinter: Fingerprinter, value: int) -> memoryview | None:
    for rival in rivals:
        memory = SymbolMemory.of([rival], len(rival))
        if int(fingerprinter.of(memory, np.zeros(1, np.int64))[0]) == value:
            return memory.content
    return None
