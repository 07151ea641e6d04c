"""What a machine holds of an image, and how it came: one place for all threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping

import numpy as np
from fleetcast_wire.manifest import Manifest
from fleetcast_wire.memory import Buffer
from numpy.typing import NDArray

Arrivals = Mapping[int, Buffer]
"""Chunks that came whole, unproven."""


class Holding:
    """The chunks that are proven and written. Thread-safe.

    Args:
        manifest: the image.
        held: shape (chunk_count,): what is held from before; taken over.
        completed: called on any thread when every chunk that can be sent is held.
    """

    def __init__(self, manifest: Manifest, held: NDArray[np.bool_], completed: Callable[[], None]) -> None:
        sizes = np.full(manifest.chunk_count, manifest.chunk_size_bytes, np.int64)
        sizes[-1] = manifest.chunk_bytes(manifest.chunk_count - 1)
        self._sizes = sizes
        self._held = held
        self._lacking_count = int(np.count_nonzero(~held & ~manifest.zero))
        self._lock = threading.Lock()
        self._completed = completed
        self.size_bytes = manifest.size_bytes
        self.held_bytes = int(sizes[held].sum())
        """Content bytes held at the beginning."""
        self.written_bytes = self.held_bytes
        """Content bytes held now."""
        self.multicast_bytes = 0
        """Stored bytes of chunks that came by multicast."""
        self.unicast_bytes = 0
        """Stored bytes of chunks that came by unicast."""
        self.damaged_chunk_count = 0
        self.backlog_bytes = 0
        """Stored bytes that came whole and are not written yet."""
        if not self._lacking_count:
            completed()

    def snapshot(self) -> NDArray[np.bool_]:
        """Returns which chunks are held now, shape (chunk_count,)."""
        return self._held.copy()

    @property
    def complete(self) -> bool:
        """Whether every chunk that can be sent is held."""
        return not self._lacking_count

    def note_arrivals(self, arrivals: Arrivals) -> None:
        """Count chunks that came whole."""
        with self._lock:
            self.backlog_bytes += sum(map(len, arrivals.values()))

    def note_zeros(self, chunks: NDArray[np.bool_]) -> None:
        """Count the zero chunks whose zeros are on the target."""
        with self._lock:
            fresh = chunks & ~self._held
            self._held |= fresh
            self.written_bytes += int(self._sizes[fresh].sum())

    def note_settled(self, arrivals: Arrivals, written: Iterable[int], *, by_unicast: bool) -> None:
        """Count chunks that came whole and wait no more; those in `written` are proven and written."""
        with self._lock:
            self.backlog_bytes -= sum(map(len, arrivals.values()))
            fresh = [chunk for chunk in written if not self._held[chunk]]
            if not fresh:
                return
            stored_bytes = sum(len(arrivals[chunk]) for chunk in fresh)
            if by_unicast:
                self.unicast_bytes += stored_bytes
            else:
                self.multicast_bytes += stored_bytes
            self._held[fresh] = True
            self._lacking_count -= len(fresh)
            self.written_bytes += int(self._sizes[fresh].sum())
        if not self._lacking_count:
            self._completed()

    def note_damage(self) -> None:
        """Count a chunk that came whole and did not match its digest."""
        with self._lock:
            self.damaged_chunk_count += 1
