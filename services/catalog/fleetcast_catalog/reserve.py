"""Room on the disk that is kept for deleting: a deletion is written down before anything is freed."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path

_logger = logging.getLogger(__name__)

RESERVE_FILE = "reserve"
RESERVE_BYTES = 16 << 20
"""The database's log of a deletion takes some hundred kilobytes, what other processes write meanwhile far less."""


class DiskReserve:
    """A file that takes room until it is needed."""

    def __init__(self, directory: Path, size_bytes: int = RESERVE_BYTES) -> None:
        self._file = directory / RESERVE_FILE
        self._size_bytes = size_bytes

    def fill(self) -> None:
        """Takes the room, if there is any; without it the next deletion may find none."""
        try:
            descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                if os.fstat(descriptor).st_size < self._size_bytes:
                    os.posix_fallocate(descriptor, 0, self._size_bytes)
            finally:
                os.close(descriptor)
        except OSError as error:
            with suppress(OSError):
                self._file.unlink()
            _logger.warning("no room of %d bytes could be kept for deleting images: %s", self._size_bytes, error)

    def release(self) -> bool:
        """Gives the room back to the disk; returns whether there was any."""
        try:
            self._file.unlink()
        except OSError:
            return False
        return True
