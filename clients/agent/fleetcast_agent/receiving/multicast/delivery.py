"""Gives chunks that came by multicast to the writers, and says what became of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial

from fleetcast_agent.receiving.multicast.reception.events import ChunkArrived
from fleetcast_agent.receiving.writing.download import Download

_CHUNKS_AT_ONCE = 4
"""Given to one writer together at most."""


class ChunkDelivery:
    """The chunks of one group that are with the writers.

    Args:
        settled: called on a writer's thread with chunks that the writers need no more, and whether each was proven.
    """

    def __init__(self, download: Download, settled: Callable[[Sequence[tuple[ChunkArrived, bool]]], None]) -> None:
        self._download = download
        self._settled = settled
        self._under_way = 0
        self._changed = threading.Condition()

    def deliver(self, arrived: Sequence[ChunkArrived]) -> None:
        """Have chunks proven and written; the ring of windows bounds how many."""
        for first in range(0, len(arrived), _CHUNKS_AT_ONCE):
            together = {event.chunk: event for event in arrived[first : first + _CHUNKS_AT_ONCE]}
            with self._changed:
                self._under_way += len(together)
            stored = {chunk: event.stored for chunk, event in together.items()}
            self._download.writer.submit(stored, by_unicast=False, settle=partial(self._settle, together))

    def wait(self) -> None:
        """Returns when no chunk is with the writers. Blocks."""
        with self._changed:
            self._changed.wait_for(lambda: not self._under_way)

    def _settle(self, together: Mapping[int, ChunkArrived], settled: Collection[int], written: Collection[int]) -> None:
        self._settled([(together[chunk], chunk in written) for chunk in settled])
        with self._changed:
            self._under_way -= len(settled)
            self._changed.notify_all()
