"""Stored chunks of a catalog on another host, kept on this one's disk."""

import logging
import os
import threading
from collections import OrderedDict
from pathlib import Path

from blake3 import blake3
from fleetcast_wire.manifest import DIGEST_BYTES

_logger = logging.getLogger(__name__)


class ChunkCache:
    """Stored chunks in a directory, the least recently used ones deleted beyond a size. Safe to use from any thread.

    A file has a chunk's stored bytes and their BLAKE3 digest: what a disk spoils must not be sent to every machine.
    """

    def __init__(self, directory: Path, limit_bytes: int) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._limit_bytes = limit_bytes
        self._lock = threading.Lock()
        self._sizes: OrderedDict[str, int] = OrderedDict()
        self._total_bytes = 0
        for entry in sorted(os.scandir(directory), key=lambda entry: entry.stat().st_mtime):
            if entry.name.endswith(".part"):
                os.unlink(entry.path)
            else:
                self._note(entry.name, entry.stat().st_size)

    def read(self, digest: str) -> bytes:
        """Returns a chunk; nothing if it is not here, or is not what was put: then it is here no more."""
        with self._lock:
            if digest not in self._sizes:
                return b""
            self._sizes.move_to_end(digest)
        try:
            content = (self._directory / digest).read_bytes()
        except OSError as error:
            content, reason = b"", str(error)
        else:
            stored, check = content[:-DIGEST_BYTES], content[-DIGEST_BYTES:]
            if stored and blake3(stored).digest() == check:
                return stored
            reason = "it is damaged, or an older sender put it"
        _logger.warning("the cached chunk %s is fetched anew: %s", digest, reason)
        self._evict(digest)
        return b""

    def has(self, digest: str) -> bool:
        """Returns whether a chunk is here."""
        return digest in self._sizes

    def put(self, digest: str, stored: bytes) -> None:
        """Keep a chunk, deleting others where there is no room."""
        path = self._directory / digest
        part = path.with_name(f"{digest}.{threading.get_ident()}.part")
        part.write_bytes(stored + blake3(stored).digest())
        part.replace(path)
        with self._lock:
            self._note(digest, len(stored) + DIGEST_BYTES)
            while self._total_bytes > self._limit_bytes and len(self._sizes) > 1:
                oldest, size = self._sizes.popitem(last=False)
                self._total_bytes -= size
                (self._directory / oldest).unlink(missing_ok=True)

    def _evict(self, digest: str) -> None:
        with self._lock:
            self._total_bytes -= self._sizes.pop(digest, 0)
            (self._directory / digest).unlink(missing_ok=True)

    def _note(self, digest: str, size: int) -> None:
        self._total_bytes += size - self._sizes.pop(digest, 0)
        self._sizes[digest] = size
