"""Where stored chunks come from: the chunk store's directory on this host, or the catalog over the network."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from fleetcast_kit.chunkstore import ChunkStore
from fleetcast_kit.errors import DataLossError
from fleetcast_wire.manifest import Manifest
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

    def read_into(self, chunk: int, buffer: memoryview) -> None:
        """Fill `buffer`, which has the chunk's stored size, with its stored bytes.

        Raises:
            FleetcastError: it cannot be read.
        """
        ...


class LocalChunks:
    """Chunks of one image in a chunk store on this host."""

    def __init__(self, store: ChunkStore, table: ChunkTable) -> None:
        self._store = store
        self._digests = [row.tobytes() for row in table.manifest.digests]

    def prefetch(self, chunks: Sequence[int]) -> None:
        """See `ChunkSource.prefetch`: the system's page cache reads ahead well enough."""

    def read_into(self, chunk: int, buffer: memoryview) -> None:
        """See `ChunkSource.read_into`."""
        digest = self._digests[chunk]
        size = self._store.read_into(digest, buffer)
        if size != len(buffer):
            raise DataLossError(
                f"chunk {digest.hex()} has {size} stored bytes, the image's table says {len(buffer)}: verify the image",
                reason="CHUNK_DAMAGED",
            )
