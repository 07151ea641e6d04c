"""Chunks by unicast, for machines outside the group and for the last few chunks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from functools import partial
from typing import Any

import grpc
from fleetcast_kit.errors import from_rpc_error

from fleetcast_agent.receiving import convert
from fleetcast_agent.receiving.messages import ChunkMembers
from fleetcast_agent.receiving.writing.download import Download
from fleetcast_agent.retrying import backoff_seconds

_logger = logging.getLogger(__name__)
_UNDER_WAY_CHUNKS = 16
_ATTEMPTS = 4
_STALL_SECONDS = 30.0


class ChunkFetcher:
    """Fetches chunks from one sender.

    Args:
        stub: of the sender's TransmissionService.
        written: called on a writer's thread with every chunk that was written.
    """

    def __init__(self, stub: Any, transmission: str, download: Download, written: Callable[[int], None]) -> None:
        self._stub = stub
        self._transmission = transmission
        self._download = download
        self._written = written
        self._turn = asyncio.Lock()
        self._loop = asyncio.get_running_loop()

    async def fetch(self, chunks: ChunkMembers) -> None:
        """Fetch and write those of `chunks` that are lacking; return when all are, or after some failed attempts.

        Calls take turns, so that none fetches what another has under way.
        """
        async with self._turn:
            for attempt in range(_ATTEMPTS):
                lacking = chunks & ~self._download.held
                if not lacking.any():
                    return
                try:
                    await self._fetch_once(lacking)
                except (grpc.aio.AioRpcError, TimeoutError) as error:
                    reason = from_rpc_error(error).message if isinstance(error, grpc.aio.AioRpcError) else "it stalled"
                    _logger.info("unicast broke off: %s", reason)
                    await asyncio.sleep(backoff_seconds(attempt))

    async def _fetch_once(self, chunks: ChunkMembers) -> None:
        sizes = self._download.table.stored_size_bytes
        room = asyncio.Semaphore(_UNDER_WAY_CHUNKS)
        settle = partial(self._settle, room)
        call = self._stub.FetchChunks(convert.fetch_request(self._transmission, chunks))
        try:
            while True:
                response = await asyncio.wait_for(call.read(), _STALL_SECONDS)
                if response is grpc.aio.EOF:
                    break
                chunk, stored = int(response.chunk), response.stored
                if not 0 <= chunk < len(chunks) or not chunks[chunk] or len(stored) != sizes[chunk]:
                    _logger.warning("the sender gave chunk %d of %d bytes, which nobody asked for", chunk, len(stored))
                    continue
                chunks[chunk] = False
                await room.acquire()
                self._download.writer.submit({chunk: stored}, by_unicast=True, settle=settle)
        finally:
            call.cancel()
            for _ in range(_UNDER_WAY_CHUNKS):  # all are settled when all room is back
                await room.acquire()

    def _settle(self, room: asyncio.Semaphore, settled: Collection[int], written: Collection[int]) -> None:
        for chunk in settled:
            if chunk in written:
                self._written(chunk)
            else:
                self._download.damaged(chunk)
            self._loop.call_soon_threadsafe(room.release)
