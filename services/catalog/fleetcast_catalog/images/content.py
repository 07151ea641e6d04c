"""The content of an image version, read back from the store at any offset."""

from __future__ import annotations

from fleetcast_kit.chunks.codec import decode
from fleetcast_kit.chunks.store import ChunkStore
from fleetcast_wire.memory import Buffer

from fleetcast_catalog.images.chunk_table import ChunkTable


class StoredContent:
    """Random access to the bytes of an image through its chunks. Reads block; the last chunk read is kept."""

    def __init__(self, store: ChunkStore, table: ChunkTable, size_bytes: int, chunk_size_bytes: int) -> None:
        self._store = store
        self._table = table
        self._size_bytes = size_bytes
        self._chunk_size_bytes = chunk_size_bytes
        self._kept: tuple[int, Buffer] = (-1, b"")

    def read(self, offset: int, size_bytes: int) -> bytes:
        """Returns the bytes at `offset`; fewer only at the end of the image.

        Raises:
            DataLossError: a chunk is missing or damaged.
        """
        end = min(offset + size_bytes, self._size_bytes)
        parts = []
        while offset < end:
            chunk, start = divmod(offset, self._chunk_size_bytes)
            part = memoryview(self._chunk(chunk))[start : start + end - offset]
            parts.append(part)
            offset += len(part)
        return b"".join(parts)

    def _chunk(self, chunk: int) -> Buffer:
        kept, content = self._kept
        if kept != chunk:
            size_bytes = min(self._chunk_size_bytes, self._size_bytes - chunk * self._chunk_size_bytes)
            if self._table.zero[chunk]:
                content = bytes(size_bytes)
            else:
                stored = self._store.read(self._table.digests[chunk].tobytes())
                content = decode(stored.encoding, stored.stored, size_bytes)
            self._kept = (chunk, content)
        return content
