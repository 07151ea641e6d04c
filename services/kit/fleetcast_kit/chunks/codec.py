"""The stored form of a chunk: its content, or one zstd frame that holds it."""

from __future__ import annotations

import threading
from enum import IntEnum

import zstandard
from fleetcast_wire.memory import Buffer

from fleetcast_kit.errors import DataLossError

_LEVEL = 3
# A receiver spends 1.2 ms to decompress a MiB; saving less than 3 % of the wire is not worth it.
_WORTHWHILE = 0.97
# 32 KiB of a MiB tell whether it compresses: 0.1 ms spent on incompressible content instead of 1 ms.
_SAMPLE_BYTES = 4096
_SAMPLES = 8

_of_thread = threading.local()


class ChunkEncoding(IntEnum):
    """How a stored chunk is encoded; the numbers are those of fleetcast.type.v1.ChunkEncoding."""

    RAW = 1
    ZSTD = 2


def encode(content: Buffer) -> tuple[ChunkEncoding, Buffer]:
    """Returns the stored form of `content`: a zstd frame if that saves enough, else `content` itself."""
    if not hasattr(_of_thread, "compressor"):
        _of_thread.compressor = zstandard.ZstdCompressor(level=_LEVEL)
        _of_thread.sampler = zstandard.ZstdCompressor(level=1)
    sample = _sample(content)
    if len(_of_thread.sampler.compress(sample)) < _WORTHWHILE * len(sample):
        compressed: bytes = _of_thread.compressor.compress(content)
        if len(compressed) < _WORTHWHILE * len(content):
            return ChunkEncoding.ZSTD, compressed
    return ChunkEncoding.RAW, content


def decode(encoding: ChunkEncoding, stored: Buffer, size_bytes: int) -> Buffer:
    """Returns the content of a stored form; it is exactly `size_bytes` long, and no more memory than that is taken.

    A frame may leave open how much it holds (WIRE.md, section 2). The digest of the content is not checked here.

    Raises:
        DataLossError: the stored form does not decode to that size; reason CHUNK_DAMAGED.
    """
    if encoding is ChunkEncoding.ZSTD:
        try:
            # The decompressor trusts the size that the frame states, whatever bound it is given.
            if zstandard.get_frame_parameters(stored).content_size not in (size_bytes, zstandard.CONTENTSIZE_UNKNOWN):
                raise damaged(f"a stored chunk does not hold {size_bytes} bytes")
            content: Buffer = zstandard.ZstdDecompressor().decompress(stored, max_output_size=size_bytes)
        except zstandard.ZstdError as error:
            raise damaged(f"a stored chunk does not decompress: {error}") from error
    else:
        content = stored
    if len(content) != size_bytes:
        raise damaged(f"a stored chunk holds {len(content)} bytes instead of {size_bytes}")
    return content


def _sample(content: Buffer) -> Buffer:
    """Returns an eighth or less of a chunk, in slices from all over it, to guess whether compressing it pays."""
    view = memoryview(content)
    if len(view) <= _SAMPLES * _SAMPLE_BYTES:
        return view
    stride = (len(view) - _SAMPLE_BYTES) // (_SAMPLES - 1)
    return b"".join(view[start * stride : start * stride + _SAMPLE_BYTES] for start in range(_SAMPLES))


def damaged(message: str) -> DataLossError:
    """Returns the error for a stored chunk that does not hold what it should."""
    return DataLossError(message, reason="CHUNK_DAMAGED")
