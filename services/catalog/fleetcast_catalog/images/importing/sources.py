"""Where the bytes of an image come from: a file on the server, or an upload. All reads block."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import threading
from abc import ABC, abstractmethod
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import Self

from fleetcast_kit.errors import AbortedError, DataLossError, InvalidArgumentError

from fleetcast_catalog.images.domain import truncated


class ImportInterruptedError(AbortedError):
    """The import was cancelled. The caller knows that already, so there is nothing to say."""

    def __init__(self) -> None:
        super().__init__("the import was interrupted", reason="IMPORT_INTERRUPTED")


class Source(ABC):
    """Bytes in order."""

    def __init__(self) -> None:
        self._ahead = b""
        self.position_bytes = 0
        """Number of bytes read."""

    def peek(self, size_bytes: int) -> bytes:
        """Returns the next bytes without passing them; fewer only when there are no more."""
        if len(self._ahead) < size_bytes:
            more = memoryview(bytearray(size_bytes - len(self._ahead)))
            self._ahead += more[: self._fill(more)]
        return self._ahead[:size_bytes]

    def read_into(self, buffer: memoryview) -> int:
        """Fills `buffer` with the next bytes and returns how many; fewer than its size only when there are no more."""
        filled = min(len(self._ahead), len(buffer))
        if filled:
            buffer[:filled] = self._ahead[:filled]
            self._ahead = self._ahead[filled:]
        filled += self._fill(buffer[filled:])
        self.position_bytes += filled
        return filled

    def read(self, size_bytes: int) -> bytes:
        """Returns the next bytes and passes them; fewer only when there are no more."""
        buffer = memoryview(bytearray(size_bytes))
        return bytes(buffer[: self.read_into(buffer)])

    def skip_hole(self, size_bytes: int) -> bool:
        """Passes the next `size_bytes` and returns True if they are known to be zero without reading them."""
        return False

    @property
    def input_bytes(self) -> int:
        """Bytes of the file or upload consumed so far, for progress."""
        return self.position_bytes

    def _fill(self, buffer: memoryview) -> int:
        filled = 0
        while filled < len(buffer) and (count := self._read(buffer[filled:])):
            filled += count
        return filled

    @abstractmethod
    def _read(self, buffer: memoryview) -> int:
        """Reads at least one byte into `buffer`, which has room, and returns how many; 0 when there are no more."""


class FileSource(Source):
    """A regular file or block device, from its start; its holes are passed without reading.

    Raises:
        InvalidArgumentError: it does not exist, cannot be read, or is neither; field `spec.source_path`.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise _unreadable(path, error.strerror or str(error)) from error
        self._status = os.fstat(self._descriptor)
        if not (stat.S_ISREG(self._status.st_mode) or stat.S_ISBLK(self._status.st_mode)):
            os.close(self._descriptor)
            what = "a directory" if stat.S_ISDIR(self._status.st_mode) else "neither a file nor a block device"
            raise _unreadable(path, f"it is {what}")
        self.size_bytes = os.lseek(self._descriptor, 0, os.SEEK_END)
        self._offset = 0
        self._next_data = 0
        os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)

    def skip_hole(self, size_bytes: int) -> bool:
        """Passes the next `size_bytes` and returns True if the file has a hole there."""
        start = self.position_bytes
        if start >= self._next_data:
            self._next_data = self._data_from(start)
        if start + size_bytes > self._next_data:
            return False
        self._ahead = self._ahead[size_bytes:]
        self.position_bytes += size_bytes
        self._offset = self.position_bytes + len(self._ahead)
        return True

    def last(self, size_bytes: int) -> bytes:
        """Returns the last bytes of the file, without passing any."""
        return os.pread(self._descriptor, size_bytes, max(self.size_bytes - size_bytes, 0))

    def end_at(self, size_bytes: int) -> None:
        """Makes what lies behind the first `size_bytes` of the file no part of the source."""
        self.size_bytes = size_bytes
        self._ahead = self._ahead[: max(size_bytes - self.position_bytes, 0)]

    def check_unchanged(self) -> None:
        """Checks that nobody wrote to the file since it was opened.

        Raises:
            AbortedError: somebody did.
        """
        now = os.fstat(self._descriptor)
        if (now.st_size, now.st_mtime_ns) != (self._status.st_size, self._status.st_mtime_ns):
            raise AbortedError(
                f"{self.path} changed while it was read: import it again when nothing writes to it",
                reason="SOURCE_CHANGED",
            )

    def _read(self, buffer: memoryview) -> int:
        try:
            count = os.preadv(self._descriptor, [buffer[: max(self.size_bytes - self._offset, 0)]], self._offset)
        except OSError as error:
            raise DataLossError(f"{self.path} cannot be read at byte {self._offset}: {error.strerror}") from error
        self._offset += count
        return count

    def _data_from(self, position_bytes: int) -> int:
        try:
            return min(os.lseek(self._descriptor, position_bytes, os.SEEK_DATA), self.size_bytes)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return self.size_bytes
            return position_bytes


class UploadSource(Source):
    """Bytes that arrive on the event loop and are read on a thread.

    At most `_ROOM_BYTES` wait between the two. While they do, `feed` waits, without blocking the loop.
    """

    _ROOM_BYTES = 8 << 20

    def __init__(self, declared_bytes: int) -> None:
        """Must be made on the event loop. `declared_bytes` is what the caller said it will send; -1 if it did not."""
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._declared_bytes = declared_bytes
        self._changed = threading.Condition()
        self._waiting: deque[memoryview] = deque()
        self._waiting_bytes = 0
        self._received_bytes = 0
        self._ended = False
        self._discarding = False
        self._error: Exception | None = None
        self._room = asyncio.Event()

    async def feed(self, data: bytes) -> None:
        """Adds the next bytes; waits while there is no room."""
        if self._discarding:
            return
        with self._changed:
            self._waiting.append(memoryview(data))
            self._waiting_bytes += len(data)
            self._received_bytes += len(data)
            full = self._waiting_bytes >= self._ROOM_BYTES
            if full:
                self._room.clear()
            self._changed.notify()
        if full:
            await self._room.wait()

    def end(self, sent_bytes: int | None) -> None:
        """Says that nothing will follow. `sent_bytes` is the sum that the caller gave at the end, if it did."""
        expected = self._declared_bytes if self._declared_bytes >= 0 else sent_bytes
        with self._changed:
            self._ended = True
            if expected is None:
                self._error = AbortedError(
                    "the upload ended without saying that it is complete: send it again", reason="UPLOAD_INCOMPLETE"
                )
            elif expected != self._received_bytes or sent_bytes not in (None, expected):
                self._error = truncated(f"{self._received_bytes} of {expected} bytes arrived")
            self._changed.notify()

    def fail(self, error: Exception) -> None:
        """Makes the reading thread stop with `error`, whatever was fed before."""
        with self._changed:
            self._waiting.clear()
            self._ended, self._error = True, error
            self._changed.notify()

    def discard(self) -> None:
        """Forgets what is fed from now on: nobody reads it any more. To be called on the event loop."""
        self._discarding = True
        self._room.set()

    def _read(self, buffer: memoryview) -> int:
        with self._changed:
            while not self._waiting and not self._ended:
                self._changed.wait()
            if not self._waiting:
                if self._error:
                    raise self._error
                return 0
            data = self._waiting[0]
            count = min(len(data), len(buffer))
            if count < len(data):
                self._waiting[0] = data[count:]
            else:
                self._waiting.popleft()
            self._waiting_bytes -= count
            make_room = not self._room.is_set() and self._waiting_bytes <= self._ROOM_BYTES // 2
        buffer[:count] = data[:count]
        if make_room:
            self._loop.call_soon_threadsafe(self._room.set)
        return count


def _unreadable(path: Path, problem: str) -> InvalidArgumentError:
    return InvalidArgumentError(f"{path} on the server cannot be imported: {problem}", field="spec.source_path")
