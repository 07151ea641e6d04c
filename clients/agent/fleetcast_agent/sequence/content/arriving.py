"""A file that is read from its beginning while it is still being fetched."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from pathlib import Path

from fleetcast_agent.sequence.errors import StepError

_BLOCK_BYTES = 1 << 20


class ArrivingFile:
    """Reads what of a file is verified, and waits for more. One reader at a time; call from the event loop's thread."""

    def __init__(self, path: Path, size_bytes: int) -> None:
        """Takes where the file will be, and its size once it is whole."""
        self._path = path
        self._size_bytes = size_bytes
        self._verified_bytes = 0
        self._read_bytes = 0
        self._ended = False
        self._changed = asyncio.Event()

    def note(self, verified_bytes: int) -> None:
        """Takes how many bytes from the beginning are verified and in the file; fewer than before changes nothing."""
        self._verified_bytes = max(self._verified_bytes, min(verified_bytes, self._size_bytes))
        self._changed.set()

    async def filled(self, fetch: Awaitable[None]) -> None:
        """Waits for what fetches the file. When that returns, the file is whole; after it readers wait no more."""
        try:
            await fetch
            self.note(self._size_bytes)
        finally:
            self._ended = True
            self._changed.set()

    async def head(self, length: int) -> bytes:
        """Returns the first `length` bytes; fewer if the file is shorter or its fetch failed before."""
        length = min(length, self._size_bytes)
        await self._grown(length)
        return await asyncio.to_thread(self._block, 0, min(length, self._verified_bytes))

    async def read(self) -> bytes:
        """Returns the next bytes; none at the end of the file.

        Raises:
            StepError: its fetch failed before.
        """
        await self._grown(min(self._read_bytes + 1, self._size_bytes))
        length = min(self._verified_bytes - self._read_bytes, _BLOCK_BYTES)
        block = await asyncio.to_thread(self._block, self._read_bytes, length)
        if not block and self._read_bytes < self._size_bytes:
            raise StepError(f"{self._path.name} ends after {self._read_bytes} of {self._size_bytes} bytes")
        self._read_bytes += len(block)
        return block

    async def _grown(self, verified_bytes: int) -> None:
        while self._verified_bytes < verified_bytes and not self._ended:
            self._changed.clear()
            await self._changed.wait()

    def _block(self, offset: int, length: int) -> bytes:
        if not length:
            return b""
        with self._path.open("rb") as file:
            file.seek(offset)
            return file.read(length)
