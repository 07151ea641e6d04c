"""What a sender adds to its symbols, so that receivers can tell them from a forger's. See WIRE.md, section 6."""

from collections.abc import Sequence

import numpy as np

from fleetcast_wire.fingerprints import Fingerprinter, Values
from fleetcast_wire.memory import Buffer, Numbers, Symbols
from fleetcast_wire.packet import Fingerprints, Kind, most_fingerprints
from fleetcast_wire.seal import Sealer


class Prover:
    """Gathers the fingerprints of symbols that were sealed, until there are enough for a datagram. One thread.

    Args:
        sealer: of the transmission.
        symbol_bytes: of every symbol.
    """

    def __init__(self, sealer: Sealer, symbol_bytes: int) -> None:
        self._sealer = sealer
        self._symbol_bytes = symbol_bytes
        self._of: tuple[Kind, int, int] | None = None
        self._most = {kind: most_fingerprints(symbol_bytes, consecutive=kind is Kind.SOURCE) for kind in Kind}
        self._symbols: list[Numbers] = []
        self._values: list[Values] = []
        self._count = 0
        self._fingerprinter = Fingerprinter.fresh(symbol_bytes)
        self._again: list[bytes] = []
        self.lossy = False
        """Whether receivers lose something: then every datagram is sent once more, after the next one."""

    def note(
        self, kind: Kind, pass_number: int, window: int, symbols: Numbers, payloads: Symbols | Sequence[Buffer]
    ) -> list[bytes]:
        """Take symbols that were sealed; return datagrams to send after all that was sealed before.

        `payloads` as in `Sealer.seal_symbols`.
        """
        ready = self.flush() if self._of != (kind, pass_number, window) else []
        self._of = kind, pass_number, window
        most = self._most[kind]
        for first in range(0, len(symbols), most):
            part = slice(first, first + most)
            if self._count + len(symbols[part]) > most:
                ready += self.flush()
                self._of = kind, pass_number, window
            chosen = payloads if isinstance(payloads, Symbols) else payloads[part]
            self._values.append(self._fingerprinter.of(chosen, symbols[part]))
            self._symbols.append(symbols[part])
            self._count += len(symbols[part])
        return ready

    def flush(self) -> list[bytes]:
        """Returns datagrams with the fingerprints of everything that was noted and is not yet in one."""
        again, self._again = self._again, []
        if not self._of or not self._count:
            return again
        kind, pass_number, window = self._of
        symbols, values = np.concatenate(self._symbols), np.concatenate(self._values)
        seed = self._fingerprinter.seed
        datagram = self._sealer.seal_fingerprints(pass_number, Fingerprints(kind, window, seed, symbols, values))
        self._of, self._count = None, 0
        self._symbols.clear()
        self._values.clear()
        self._fingerprinter = Fingerprinter.fresh(self._symbol_bytes)
        if self.lossy or kind is Kind.PARITY:
            self._again = [datagram]
        return [datagram, *again]

    def finish(self) -> list[bytes]:
        """Returns what `flush` does, and what would be sent once more later: before a mark, so that all is proven."""
        return self.flush() + self.flush()
