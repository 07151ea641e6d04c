"""Chunks by unicast: offers that overlap, and an end in the middle."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from fleetcast.sender.v1 import transmission_service_pb2
from fleetcast_agent.receiving.unicast import ChunkFetcher
from fleetcast_agent.receiving.writing.chunk_table import ChunkTable
from fleetcast_agent.receiving.writing.download import Download, open_target
from fleetcast_wire.chunkset import unpack_chunk_set

from tests.unit.agent.receiving.transmitting import StoredImage, make_image

CHUNK_BYTES, COUNT = 4096, 100


class Sender:
    """Gives every chunk that is asked for, as a stub of the sender's service would."""

    def __init__(self, image: StoredImage) -> None:
        self.image = image
        self.given: list[int] = []
        self.call_count = 0

    def FetchChunks(self, request: transmission_service_pb2.FetchChunksRequest) -> "Call":
        self.call_count += 1
        members = unpack_chunk_set(request.chunks.bitmap, request.chunks.compressed, request.chunks.chunk_count)
        return Call(self, np.flatnonzero(members).tolist())


class Call:
    """One answer, chunk by chunk."""

    def __init__(self, sender: Sender, chunks: list[int]) -> None:
        self._sender = sender
        self._chunks = chunks

    async def read(self) -> Any:
        await asyncio.sleep(0)
        if not self._chunks:
            return grpc.aio.EOF
        chunk = self._chunks.pop(0)
        self._sender.given.append(chunk)
        return transmission_service_pb2.FetchChunksResponse(chunk=chunk, stored=self._sender.image.stored[chunk])

    def cancel(self) -> None:
        self._chunks.clear()


class Fetching:
    """A download, and what fetches for it."""

    def __init__(self, download: Download, image: StoredImage) -> None:
        self.download = download
        self.sender = Sender(image)
        self.written: list[int] = []
        self.fetcher = ChunkFetcher(self.sender, "sessions/a/transmissions/1", download, self.written.append)
        self.lacking = ~download.held


@pytest.fixture
async def fetching(tmp_path: Path) -> AsyncIterator[Fetching]:
    image = make_image(7, COUNT * CHUNK_BYTES, CHUNK_BYTES)
    target, journal = open_target(tmp_path / "disk", tmp_path / "journals")
    table = ChunkTable(image.manifest, image.sizes, image.zstd)
    download = await Download.open("images/lab@sha256:00", table, target, journal)
    yield Fetching(download, image)
    await download.close(keep=True)
    target.close()


async def test_offers_that_overlap_are_all_fetched_and_no_chunk_twice(fetching: Fetching) -> None:
    async with asyncio.timeout(60):
        await asyncio.gather(*(fetching.fetcher.fetch(fetching.lacking) for _ in range(4)))
    assert fetching.download.content_completed.is_set()
    assert fetching.sender.given == sorted(fetching.written) == np.flatnonzero(fetching.lacking).tolist()
    assert fetching.sender.call_count == 1


@pytest.mark.parametrize("turns", range(0, 60, 3))
async def test_fetches_that_are_cancelled_end(fetching: Fetching, turns: int) -> None:
    half = np.arange(COUNT) < COUNT // 2
    tasks = [asyncio.create_task(fetching.fetcher.fetch(fetching.lacking & part)) for part in (half, ~half)]
    for _ in range(turns):
        await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    async with asyncio.timeout(60):
        await asyncio.gather(*tasks, return_exceptions=True)
