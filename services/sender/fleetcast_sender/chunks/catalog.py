"""The catalog as the sender sees it: chunk tables, and chunks when the store is on another host."""

import asyncio
import logging
from collections.abc import Sequence

import grpc
import numpy as np
from blake3 import blake3
from fleetcast.catalog.v1 import catalog_service_pb2
from fleetcast.catalog.v1.catalog_service_pb2_grpc import CatalogServiceStub
from fleetcast_kit.chunks.codec import ChunkEncoding, decode
from fleetcast_kit.errors import DataLossError, UnavailableError, from_rpc_error
from fleetcast_wire.memory import Buffer

from fleetcast_sender.chunks import convert
from fleetcast_sender.chunks.cache import ChunkCache
from fleetcast_sender.chunks.source import ChunkTable

_logger = logging.getLogger(__name__)

_TABLE_SECONDS = 60.0
_AWAY_SECONDS = 1.0
"""Between attempts at a catalog that is away."""
_CHUNKS_SECONDS = 120.0


class Catalog:
    """Calls the catalog on a channel that others may use too."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = CatalogServiceStub(channel)
        self._loop = asyncio.get_running_loop()

    async def chunk_table(self, image: str) -> ChunkTable:
        """Returns the chunk table of `images/{image}@sha256:{hex}`, proven. A catalog that is away is waited for.

        Raises:
            FleetcastError: there is no such image, or it cannot be had.
        """
        attempts = 0
        while True:
            try:
                return await self._chunk_table(image)
            except UnavailableError as error:
                if not attempts:
                    _logger.warning("a transmission waits for the chunk table of %s: %s", image, error)
                attempts += 1
                await asyncio.sleep(_AWAY_SECONDS)

    async def _chunk_table(self, image: str) -> ChunkTable:
        size_bytes = chunk_size_bytes = 0
        runs = []
        try:
            async for response in self._stub.GetChunkTable(
                catalog_service_pb2.GetChunkTableRequest(name=image), timeout=_TABLE_SECONDS
            ):
                if response.HasField("image"):
                    size_bytes, chunk_size_bytes = response.image.size_bytes, response.image.chunk_size_bytes
                runs.append(response.table)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error
        return await asyncio.to_thread(convert.chunk_table_of, size_bytes, chunk_size_bytes, runs, image)

    async def read_chunks(self, image: str, chunks: Sequence[int], chunk_count: int) -> dict[int, bytes]:
        """Returns the stored bytes of some chunks.

        Raises:
            FleetcastError: they cannot be had.
        """
        members = np.zeros(chunk_count, np.bool_)
        members[list(chunks)] = True
        try:
            request = convert.read_chunks_request(image, members)
            return {r.chunk: r.stored async for r in self._stub.ReadChunks(request, timeout=_CHUNKS_SECONDS)}
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error

    def read_chunks_blocking(self, image: str, chunks: Sequence[int], chunk_count: int) -> dict[int, bytes]:
        """Do the same from another thread than the loop's."""
        future = asyncio.run_coroutine_threadsafe(self.read_chunks(image, chunks, chunk_count), self._loop)
        try:
            return future.result(_CHUNKS_SECONDS + 10)
        except TimeoutError as error:
            future.cancel()
            raise UnavailableError(f"the catalog did not give chunks of {image} in time") from error


class RemoteChunks:
    """Chunks of one image from the catalog, through a cache on this host's disk. A `ChunkSource`."""

    def __init__(self, catalog: Catalog, cache: ChunkCache, image: str, table: ChunkTable) -> None:
        self._catalog = catalog
        self._cache = cache
        self._image = image
        self._table = table
        self._digests = [row.tobytes() for row in table.manifest.digests]

    def prefetch(self, chunks: Sequence[int]) -> None:
        """See `ChunkSource.prefetch`."""
        missing = [chunk for chunk in chunks if not self._cache.has(self._digests[chunk].hex())]
        if missing:
            self._fetch(missing)

    def stored(self, chunk: int) -> Buffer:
        """See `ChunkSource.stored`."""
        cached = self._cache.read(self._digests[chunk].hex())
        whole = len(cached) == self._table.stored_size_bytes[chunk]
        return cached if whole else self._fetch([chunk])[chunk]

    def _fetch(self, chunks: Sequence[int]) -> dict[int, bytes]:
        """Returns chunks from the catalog, proven, and keep them."""
        fetched = self._catalog.read_chunks_blocking(self._image, chunks, self._table.manifest.chunk_count)
        for chunk in chunks:
            stored, digest = fetched.get(chunk, b""), self._digests[chunk]
            size = self._table.manifest.chunk_bytes(chunk)
            encoding = ChunkEncoding(int(self._table.encodings[chunk]))
            if (
                len(stored) != self._table.stored_size_bytes[chunk]
                or blake3(decode(encoding, stored, size)).digest() != digest
            ):
                raise DataLossError(f"the catalog gave something else for chunk {chunk} of {self._image}")
            self._cache.put(digest.hex(), stored)
        return fetched
