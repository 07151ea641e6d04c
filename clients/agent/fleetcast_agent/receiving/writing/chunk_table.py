"""The chunks of an image as a sender stores them, proven against the image's digest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from fleetcast_kit.chunks.codec import ChunkEncoding, decode
from fleetcast_kit.errors import DataLossError
from fleetcast_wire.manifest import Manifest, chunk_digest
from fleetcast_wire.memory import Buffer
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class ChunkTable:
    """What each chunk of an image is, and how it travels."""

    manifest: Manifest
    stored_size_bytes: NDArray[np.int64]
    """Shape (chunk_count,); 0 for zero chunks."""
    compressed: NDArray[np.bool_]
    """Shape (chunk_count,): which chunks travel as a zstd frame."""

    def prove(self, chunk: int, stored: Buffer) -> Buffer | None:
        """Returns the content of a chunk from its stored form, or None if it does not match its digest."""
        encoding = ChunkEncoding.ZSTD if self.compressed[chunk] else ChunkEncoding.RAW
        try:
            content = decode(encoding, stored, self.manifest.chunk_bytes(chunk))
        except DataLossError:
            return None
        return content if self.matches(chunk, content) else None

    def matches(self, chunk: int, content: Buffer) -> bool:
        """Returns whether `content` is that of a chunk; a zero chunk never is, it has no digest."""
        return bool(chunk_digest(content) == self.manifest.digests[chunk].tobytes())
