"""Where stored chunks come from: the chunk store's directory on this host, or the catalog over the network."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from fleetcast_kit.chunks.store import ChunkStore
from fleetcast_kit.errors import DataLossError
from fleetcast_wire.manifest import Manifest
from fleetcast_wire.memory import Buffer
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class ChunkTable:
    """The chunk table of one image version."""

    manifest: Manifest
    stored_size_bytes: NDArray[np.int64]
    """Shape (chunk_count,), 0 for zero chunks."""
    encodings: NDArray[np.int32]
    """Shape (chunk_count,), the numbers of the API."""


class ChunkSource(Protocol):
    """Gives the stored form of chunks. Called from several threads; blocks."""

    def prefetch(self, chunks: Sequence[int]) -> None:
        """Make ready what will be read next, where that is cheaper than chunk by chunk.

        Raises:
            FleetcastError: it cannot be had.
        """
        ...

    def stored(self, chunk: int) -> Buffer:
        """Returns a chunk's stored bytes, which do not change as long as they are held.

        Raises:
            FleetcastError: it cannot be read.
        """
        ...


class LocalChunks:
    """Chunks of one image in a chunk store on this host."""

    def __init__(self, store: ChunkStore, table: ChunkTable) -> None:
        self._store = store
        self._digests = [row.tobytes() for row in table.manifest.digests]
        self._sizes = table.stored_size_bytes.tolist()

    def prefetch(self, chunks: Sequence[int]) -> None:
        """See `ChunkSource.prefetch`: the system's page cache reads ahead well enough."""

    def stored(self, chunk: int) -> Buffer:
        """See `ChunkSource.stored`."""
        digest, expected = self._digests[chunk], self._sizes[chunk]
        stored = self._store.mapped(digest)
        if len(stored) != expected:
            raise DataLossError(
                f"chunk {digest.hex()} has {len(stored)} stored bytes, the image's table says {expected}: "
                "verify the image",
                reason="CHUNK_DAMAGED",
            )
        return stored
