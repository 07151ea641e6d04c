"""Which chunks running imports count on, so that nothing deletes them in between."""

from __future__ import annotations

import threading
from array import array
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from fleetcast_kit.chunks.store import ChunkStore, Placement
from fleetcast_wire.memory import Buffer

from fleetcast_catalog.images.chunk_table import chunk_key

_STRIPES = 256


class PinnedStore:
    """The chunk store as imports and deletions share it. All methods may be called from any thread.

    An import pins a chunk before it looks whether it is there; a deletion looks for pins before it deletes. Both happen
    under the lock of the chunk's stripe. So a chunk that an import found is there until its pins go, and one that was
    deleted before is stored anew. The same lock keeps two threads from storing the same chunk twice.
    """

    def __init__(self, store: ChunkStore) -> None:
        self._store = store
        self._stripes = tuple(threading.Lock() for _ in range(_STRIPES))
        self._pins: tuple[Pins, ...] = ()
        self._pins_changed = threading.Lock()

    @contextmanager
    def pinning(self) -> Iterator[Pins]:
        """Yields the pins of one import; they go at the end."""
        pins = Pins(self)
        with self._pins_changed:
            self._pins = (*self._pins, pins)
        try:
            yield pins
        finally:
            with self._pins_changed:
                self._pins = tuple(other for other in self._pins if other is not pins)

    def put(self, digest: bytes, content: Buffer, pins: Pins) -> Placement:
        """Stores a chunk unless an intact copy is there, and adds it to `pins`."""
        stripe = digest[-1]
        with self._stripes[stripe]:
            pins.keys[stripe].append(chunk_key(digest))
            return self._store.put(digest, content)

    def delete(self, digest: bytes) -> int:
        """Deletes a chunk unless an import counts on it, and returns how many stored bytes that freed."""
        stripe, key = digest[-1], chunk_key(digest)
        with self._stripes[stripe]:
            for pins in self._pins:
                if (np.frombuffer(pins.keys[stripe], np.uint64) == key).any():
                    return 0
            return self._store.delete(digest)


class Pins:
    """The chunks that one import counts on, until the block of `PinnedStore.pinning` ends."""

    def __init__(self, store: PinnedStore) -> None:
        self._store = store
        self.keys = tuple(array("Q") for _ in range(_STRIPES))
        """Keys of the chunks of each stripe; guarded by its lock. An array, since a set takes ten times the memory."""

    def put(self, digest: bytes, content: Buffer) -> Placement:
        """Stores a chunk unless an intact copy is there, and pins it."""
        return self._store.put(digest, content, self)
