"""Messages of the catalog as what chunks come from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from fleetcast.catalog.v1 import catalog_service_pb2
from fleetcast.type.v1 import chunk_set_pb2, chunk_table_pb2
from fleetcast_kit.errors import DataLossError
from fleetcast_wire.chunkset import pack_chunk_set
from fleetcast_wire.errors import ManifestError
from fleetcast_wire.manifest import DIGEST_BYTES, Manifest

from fleetcast_sender.chunks.source import ChunkTable
from fleetcast_sender.engine.messages import ChunkMembers


def chunk_set(members: ChunkMembers) -> chunk_set_pb2.ChunkSet:
    """Returns the message of a set."""
    bitmap, compressed = pack_chunk_set(members)
    return chunk_set_pb2.ChunkSet(chunk_count=len(members), bitmap=bitmap, compressed=compressed)


def chunk_table_of(
    size_bytes: int, chunk_size_bytes: int, runs: Sequence[chunk_table_pb2.ChunkTable], image: str
) -> ChunkTable:
    """Returns the chunk table of an image, proven against the digest in its name `images/{image}@sha256:{hex}`.

    Raises:
        DataLossError: the table is not that of the image.
    """
    digests = np.frombuffer(b"".join(run.digests for run in runs), np.uint8)
    sizes = np.concatenate([np.fromiter(run.stored_size_bytes, np.int64) for run in runs] or [np.zeros(0, np.int64)])
    encodings = np.concatenate([np.fromiter(run.encodings, np.int32) for run in runs] or [np.zeros(0, np.int32)])
    if len(digests) % DIGEST_BYTES or not len(digests) // DIGEST_BYTES == len(sizes) == len(encodings):
        raise DataLossError(f"the chunk table of {image} has columns of different lengths")
    try:
        manifest = Manifest(size_bytes, chunk_size_bytes, digests.reshape(-1, DIGEST_BYTES))
    except ManifestError as error:
        raise DataLossError(f"the chunk table of {image} is damaged: {error}") from error
    if manifest.digest != image.partition("@")[2]:
        raise DataLossError(f"the chunk table of {image} has the digest {manifest.digest}")
    if ((sizes != 0) == manifest.zero).any() or not 0 <= sizes.min() <= sizes.max() <= manifest.chunk_size_bytes:
        raise DataLossError(f"the chunk table of {image} has impossible stored sizes")
    return ChunkTable(manifest, sizes, encodings)


def read_chunks_request(image: str, members: ChunkMembers) -> catalog_service_pb2.ReadChunksRequest:
    """Returns the request for stored chunks of an image."""
    return catalog_service_pb2.ReadChunksRequest(name=image, chunks=chunk_set(members))
