"""The chunk table of an image version: which chunks it consists of and how the store keeps them."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import zstandard
from fleetcast_wire.manifest import DIGEST_BYTES, Manifest
from numpy.typing import NDArray

_ROW_BYTES = DIGEST_BYTES + 4 + 1
_HEADER = struct.Struct("<BI")
_LAYOUT = 1


@dataclass(frozen=True, eq=False)
class ChunkTable:
    """One row per chunk, in columns. All arrays have the same length."""

    digests: NDArray[np.uint8]
    """Shape (chunk_count, 32)."""
    stored_sizes: NDArray[np.uint32]
    """Size of each stored form in bytes; 0 for zero chunks."""
    encodings: NDArray[np.uint8]
    """`ChunkEncoding` of each stored form; RAW for zero chunks."""

    def __len__(self) -> int:
        return len(self.digests)

    @cached_property
    def zero(self) -> NDArray[np.bool_]:
        """Which chunks are all zero, hence not stored."""
        return np.logical_not(self.digests.any(axis=1))

    @property
    def distinct_stored_bytes(self) -> int:
        """Sum of the stored sizes, each distinct chunk counted once."""
        if not len(self):
            return 0
        _, first = np.unique(chunk_keys(self.digests), return_index=True)
        return int(self.stored_sizes[first].sum(dtype=np.int64))

    def manifest(self, size_bytes: int, chunk_size_bytes: int) -> Manifest:
        """Returns the manifest of an image that consists of these chunks."""
        return Manifest(size_bytes, chunk_size_bytes, self.digests)

    def pack(self) -> bytes:
        """Returns the table as bytes for the database: columns end to end, compressed."""
        compressor = zstandard.ZstdCompressor(level=1).compressobj(size=len(self) * _ROW_BYTES)
        columns = (self.digests, self.stored_sizes.astype("<u4", copy=False), self.encodings)
        parts = [compressor.compress(np.ascontiguousarray(column).data.cast("B")) for column in columns if len(self)]
        return b"".join([_HEADER.pack(_LAYOUT, len(self)), *parts, compressor.flush()])

    @classmethod
    def unpack(cls, packed: bytes) -> ChunkTable:
        """Returns the table that `pack` made bytes of; its arrays are read-only."""
        _, count = _HEADER.unpack_from(packed)
        rows = zstandard.decompress(memoryview(packed)[_HEADER.size :], max_output_size=count * _ROW_BYTES)
        digests = np.frombuffer(rows, np.uint8, count * DIGEST_BYTES).reshape(count, DIGEST_BYTES)
        sizes = np.frombuffer(rows, "<u4", count, count * DIGEST_BYTES).astype(np.uint32, copy=False)
        return cls(digests, sizes, np.frombuffer(rows, np.uint8, count, count * (DIGEST_BYTES + 4)))


def chunk_keys(digests: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Returns the first 8 bytes of each digest, to compare many quickly.

    Two different chunks of a store of 10^9 share a key with a chance of 3 %; what decides by keys must then err on the
    safe side.
    """
    return np.ascontiguousarray(digests[:, :8]).view("<u8").reshape(-1)


def chunk_key(digest: bytes) -> int:
    """Returns the key of one digest, equal to what `chunk_keys` gives for it."""
    return int.from_bytes(digest[:8], "little")
