"""Waits for a source of chunks that is away."""

import logging
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

from fleetcast_kit.errors import UnavailableError
from fleetcast_wire.memory import Buffer

from fleetcast_sender.chunks.source import ChunkSource

_logger = logging.getLogger(__name__)
_T = TypeVar("_T")

_FIRST_WAIT_SECONDS, _MOST_WAIT_SECONDS = 0.25, 5.0


class PatientSource:
    """A `ChunkSource` that waits as long as its source is away.

    A catalog that is started anew or cut off stalls a transmission so, and does not end it: the receivers stay, and go
    on when it is back. Any other failure of the source is one.

    Args:
        source: where the chunks come from.
        first_wait_seconds: before the second attempt; twice as long before each further one.
    """

    def __init__(self, source: ChunkSource, *, first_wait_seconds: float = _FIRST_WAIT_SECONDS) -> None:
        self._source = source
        self._first_wait_seconds = first_wait_seconds
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Wait no more: calls raise what their source raises."""
        self._stopping.set()

    def prefetch(self, chunks: Sequence[int]) -> None:
        """See `ChunkSource.prefetch`."""
        self._patiently(lambda: self._source.prefetch(chunks))

    def stored(self, chunk: int) -> Buffer:
        """See `ChunkSource.stored`."""
        return self._patiently(lambda: self._source.stored(chunk))

    def _patiently(self, read: Callable[[], _T]) -> _T:
        wait = self._first_wait_seconds
        while True:
            try:
                result = read()
            except UnavailableError as error:
                if self._stopping.is_set():
                    raise
                if wait == self._first_wait_seconds:
                    _logger.warning("sending waits for chunks: %s", error)
                self._stopping.wait(wait)
                wait = min(2 * wait, _MOST_WAIT_SECONDS)
            else:
                if wait > self._first_wait_seconds:
                    _logger.info("the chunks are there again")
                return result
