"""Codewords are rebuilt from parity on a thread of their own: each may take 1-2 ms."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

import numpy as np
from fleetcast_wire.errors import GeometryError
from fleetcast_wire.geometry import Geometry
from fleetcast_wire.parity.fec import ParityCodec, SymbolPlaces

from fleetcast_agent.receiving.multicast.reception.events import CodewordCompleted

_logger = logging.getLogger(__name__)


def rebuild(completed: CodewordCompleted, codec: ParityCodec, geometry: Geometry) -> None:
    """Put the lost source symbols of a codeword into their places in its window.

    Raises:
        GeometryError: the codec cannot.
    """
    shape = completed.window.shape
    # WIRE.md, section 4: the missing place of a short codeword counts as zeros
    numbers = np.arange(completed.codeword, shape.symbol_count, shape.codewords)
    places = SymbolPlaces(completed.window.memory.source, numbers)
    codec.rebuild(shape.rows, geometry.parity_symbols, places, completed.lost_rows, completed.parity)


class Decoder:
    """The thread that rebuilds codewords, in the order in which they became complete.

    Args:
        codec: what the transmission's parity is made with.
        geometry: the transmission's numbers.
        settle: called on the decoder's thread with each codeword, and whether it was rebuilt.
    """

    def __init__(
        self, codec: ParityCodec, geometry: Geometry, settle: Callable[[CodewordCompleted, bool], None]
    ) -> None:
        self._codec = codec
        self._geometry = geometry
        self._settle = settle
        self._jobs: queue.SimpleQueue[CodewordCompleted | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="decode", daemon=True)
        self._thread.start()

    def submit(self, completed: CodewordCompleted) -> None:
        """Have a codeword rebuilt. The ring bounds how many can wait."""
        self._jobs.put(completed)

    def close(self) -> None:
        """Stop after the codeword at hand; the others are not settled."""
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            rebuilt = True
            try:
                rebuild(job, self._codec, self._geometry)
            except GeometryError as error:
                _logger.warning("a codeword of window %d was not rebuilt: %s", job.window.number, error)
                rebuilt = False
            self._settle(job, rebuilt)
