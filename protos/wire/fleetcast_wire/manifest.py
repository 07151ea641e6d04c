"""The manifest: which content an image version has, chunk by chunk. See WIRE.md, section 2."""

import hashlib
import struct
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from fleetcast_wire.errors import ManifestError

DIGEST_BYTES = 32
MAX_CHUNK_BYTES = 4 << 20
ZERO_DIGEST = bytes(DIGEST_BYTES)
"""Stands in the manifest for a chunk whose content is all zero."""

_MAGIC = b"fleetcast manifest 1\n"


def chunk_digest(content: bytes | bytearray | memoryview) -> bytes:
    """Returns the digest of a chunk's content, 32 bytes: BLAKE3-256. Zero chunks have `ZERO_DIGEST` instead."""
    return blake3(content).digest()


@dataclass(frozen=True, eq=False)
class Manifest:
    """The content of one image version.

    Raises:
        ManifestError: the numbers and the digests do not fit together.
    """

    size_bytes: int
    """Size of the content in bytes, at least 1."""
    chunk_size_bytes: int
    """Size of every chunk but the last; a multiple of 4096 up to `MAX_CHUNK_BYTES`."""
    digests: NDArray[np.uint8] = field(repr=False)
    """Shape (chunk_count, 32): the digest of each chunk, in order."""

    def __post_init__(self) -> None:
        if self.size_bytes < 1:
            raise ManifestError(f"an image of {self.size_bytes} bytes cannot exist")
        if not 4096 <= self.chunk_size_bytes <= MAX_CHUNK_BYTES or self.chunk_size_bytes % 4096:
            raise ManifestError(f"chunk size {self.chunk_size_bytes} is not a multiple of 4096 up to {MAX_CHUNK_BYTES}")
        expected = (-(-self.size_bytes // self.chunk_size_bytes), DIGEST_BYTES)
        if self.digests.shape != expected or self.digests.dtype != np.uint8:
            raise ManifestError(f"digests have shape {self.digests.shape}, {self.size_bytes} bytes need {expected}")

    @property
    def chunk_count(self) -> int:
        """Number of chunks, zero chunks included."""
        return len(self.digests)

    @cached_property
    def digest(self) -> str:
        """The image's digest: `sha256:` and 64 hexadecimal digits."""
        sha = hashlib.sha256(_MAGIC + struct.pack(">QI", self.size_bytes, self.chunk_size_bytes))
        sha.update(np.ascontiguousarray(self.digests).data)
        return f"sha256:{sha.hexdigest()}"

    @cached_property
    def zero(self) -> NDArray[np.bool_]:
        """Shape (chunk_count,): which chunks are all zero."""
        return np.logical_not(self.digests.any(axis=1))

    def chunk_bytes(self, chunk: int) -> int:
        """Returns the content size of a chunk in bytes.

        Raises:
            ManifestError: there is no such chunk.
        """
        if not 0 <= chunk < self.chunk_count:
            raise ManifestError(f"chunk {chunk} is not one of {self.chunk_count}")
        return min(self.chunk_size_bytes, self.size_bytes - chunk * self.chunk_size_bytes)
