"""Sets of chunks as bitmaps. See WIRE.md, section 3."""

import numpy as np
import zstandard
from numpy.typing import NDArray

from fleetcast_wire.errors import ChunkSetError

_COMPRESS_FROM_BYTES = 256


def pack_chunk_set(members: NDArray[np.bool_]) -> tuple[bytes, bool]:
    """Returns the bitmap of a set and whether it is compressed. `members` has shape (chunk_count,)."""
    bitmap = np.packbits(members, bitorder="little").tobytes()
    if len(bitmap) >= _COMPRESS_FROM_BYTES:
        compressed = zstandard.compress(bitmap, 1)
        if len(compressed) < len(bitmap):
            return compressed, True
    return bitmap, False


def unpack_chunk_set(bitmap: bytes, compressed: bool, chunk_count: int) -> NDArray[np.bool_]:
    """Returns the members of a set as a new array of shape (chunk_count,). An empty bitmap is the empty set.

    Raises:
        ChunkSetError: the bitmap does not fit `chunk_count`.
    """
    if not bitmap:
        return np.zeros(chunk_count, np.bool_)
    expected = (chunk_count + 7) // 8
    if compressed:
        try:
            # A frame that states its size gets so much memory, whatever is allowed.
            if expected < zstandard.get_frame_parameters(bitmap).content_size < zstandard.CONTENTSIZE_UNKNOWN:
                raise ChunkSetError(f"a frame of more than {expected} bytes is no bitmap of {chunk_count} chunks")
            bitmap = zstandard.ZstdDecompressor().decompress(bitmap, max_output_size=expected)
        except zstandard.ZstdError as error:
            raise ChunkSetError(f"a bitmap of {chunk_count} chunks does not decompress: {error}") from error
    if len(bitmap) != expected:
        raise ChunkSetError(f"a bitmap of {len(bitmap)} bytes does not fit {chunk_count} chunks")
    bits = np.unpackbits(np.frombuffer(bitmap, np.uint8), bitorder="little")
    if bits[chunk_count:].any():
        raise ChunkSetError(f"the bitmap has chunks beyond {chunk_count}")
    return bits[:chunk_count].astype(np.bool_)
