"""The chunks of an image as a sender stores them, proven against the image's digest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import zstandard
from fleetcast_wire.manifest import Manifest, chunk_digest
from numpy.typing import NDArray

Stored = bytes | bytearray | memoryview


@dataclass(frozen=True, eq=False)
class ChunkTable:
    """What each chunk of an image is, and how it travels."""

    manifest: Manifest
    stored_size_bytes: NDArray[np.int64]
    """Shape (chunk_count,); 0 for zero chunks."""
    compressed: NDArray[np.bool_]
    """Shape (chunk_count,): which chunks travel as a zstd frame."""

    def prove(self, chunk: int, stored: Stored) -> Stored | None:
        """Returns the content of a chunk from its stored form, or None if it does not match its digest."""
        size = self.manifest.chunk_bytes(chunk)
        content: Stored | None = stored
        if self.compressed[chunk]:
            content = _decompress(stored, size)
        if content is None or len(content) != size:
            return None
        return content if self.matches(chunk, content) else None

    def matches(self, chunk: int, content: Stored) -> bool:
        """Returns whether `content` is that of a chunk; a zero chunk never is, it has no digest."""
        return bool(chunk_digest(content) == self.manifest.digests[chunk].tobytes())


def _decompress(stored: Stored, size: int) -> bytes | None:
    """Returns what a zstd frame holds, never more than `size` bytes; None if it is damaged or larger."""
    try:
        stated = zstandard.get_frame_parameters(stored).content_size
        if stated not in (size, zstandard.CONTENTSIZE_UNKNOWN):
            return None
        return zstandard.ZstdDecompressor().decompress(stored, max_output_size=size)
    except zstandard.ZstdError:
        return None
