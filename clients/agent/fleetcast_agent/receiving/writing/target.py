"""The file or block device that the image is written to, in place."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from fleetcast_kit.files import sync_directory
from fleetcast_wire.manifest import Manifest
from fleetcast_wire.memory import Buffer
from numpy.typing import NDArray

from fleetcast_agent.receiving.errors import TargetFailedError, TargetRefusedError
from fleetcast_agent.receiving.writing import block_device as blockdevice
from fleetcast_agent.receiving.writing.medium import Medium

if sys.platform != "win32":
    import fcntl

_ZERO_STEP_BYTES = 64 << 20
_ZEROS = bytes(1 << 20)


class Target:
    """Where the image goes. Opening checks everything that can be known before the image is; nothing is created yet.

    Raises:
        TargetRefusedError: it cannot be used; the sentence says why.
    """

    def __init__(self, path: Path, *, keep_size: bool = False, medium: Medium | None = None) -> None:
        self.path = path
        self._calls = medium or Medium()
        self._keep_size = keep_size
        self._descriptor = -1
        self._is_device = False
        self._created = False
        self._failure: OSError | None = None
        self._dirty_bytes = 0
        self._flushed = threading.Condition()
        self._flusher: threading.Thread | None = None
        self._closing = False
        self._abandoned = False
        self._check()

    # Before the image is known.

    @property
    def size_bytes(self) -> int:
        """Size of the device; -1 for a file, which grows."""
        return blockdevice.device_bytes(self._descriptor) if self._is_device else -1

    @property
    def medium(self) -> str:
        """`disk` for a whole disk, `volume` for a partition or another volume, empty for a file."""
        if not self._is_device:
            return ""
        return "disk" if blockdevice.is_whole_disk(self._descriptor) else "volume"

    @property
    def sector_size_bytes(self) -> int:
        """Size of a device's logical sectors; 0 for a file."""
        return blockdevice.sector_bytes(self._descriptor) if self._is_device else 0

    def _check(self) -> None:
        path = self.path
        try:
            status = path.stat()
        except FileNotFoundError:
            self._check_new()
            return
        except OSError as error:
            raise TargetRefusedError(f"the target {path} cannot be used: {error.strerror}") from error
        if stat.S_ISDIR(status.st_mode):
            raise TargetRefusedError(f"the target {path} is a directory: name a file in it, or a block device")
        if stat.S_ISBLK(status.st_mode):
            self._is_device = True
        elif not stat.S_ISREG(status.st_mode):
            raise TargetRefusedError(f"the target {path} is neither a file nor a block device")
        self._open(os.O_RDWR | (os.O_EXCL if self._is_device else 0))
        if self._is_device and blockdevice.is_read_only(self._descriptor):
            self.close()
            raise TargetRefusedError(f"the device {path} is read-only: remove its write protection")

    def _check_new(self) -> None:
        parent = self.path.parent
        if not parent.is_dir():
            raise TargetRefusedError(f"the directory {parent} of the target does not exist: make it first")
        if parent.resolve().is_relative_to("/dev") and not parent.resolve().is_relative_to("/dev/shm"):  # noqa: S108
            raise TargetRefusedError(f"there is no device {self.path}: check its name with lsblk")
        if not os.access(parent, os.W_OK | os.X_OK):
            raise TargetRefusedError(f"no file can be made in {parent}: it is read-only or belongs to somebody else")

    def _open(self, flags: int) -> None:
        path = self.path
        try:
            self._descriptor = os.open(path, flags | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0), 0o644)
        except OSError as error:
            if error.errno == errno.EBUSY:
                raise TargetRefusedError(
                    f"the device {path} is in use: it is mounted, or another program has it (see lsblk {path})"
                ) from error
            if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM, errno.ETXTBSY):
                raise TargetRefusedError(f"the target {path} cannot be written: {error.strerror}") from error
            raise TargetRefusedError(f"the target {path} cannot be opened: {error.strerror}") from error
        if sys.platform != "win32":
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                self.close()
                raise TargetRefusedError(f"another process receives into {path} already") from error

    # Once it is.

    def prepare(self, manifest: Manifest) -> None:
        """Make room for an image, of exactly its size if the target is a file, unless that keeps a larger one.

        Raises:
            TargetRefusedError: there is not enough space.
        """
        size = manifest.size_bytes
        if self._is_device:
            if self.size_bytes < size:
                raise TargetRefusedError(
                    f"the device {self.path} has {self.size_bytes} bytes, the image needs {size}: use a larger one"
                )
        else:
            content = size - int(np.count_nonzero(manifest.zero)) * manifest.chunk_size_bytes
            self._check_space(content)
            if self._descriptor < 0:
                self._created = True
                self._open(os.O_RDWR | os.O_CREAT)
            try:
                if not (self._keep_size and os.fstat(self._descriptor).st_size > size):
                    os.ftruncate(self._descriptor, size)
            except OSError as error:
                raise TargetRefusedError(
                    f"the target {self.path} cannot have {size} bytes: {error.strerror}; use another file system"
                ) from error
        self._flusher = threading.Thread(target=self._flush_along, name="flush", daemon=True)
        self._flusher.start()

    def _check_space(self, content_bytes: int) -> None:
        if not hasattr(os, "statvfs"):
            return
        room = os.statvfs(self.path.parent)
        free = room.f_bavail * room.f_frsize
        allocated = os.fstat(self._descriptor).st_blocks * 512 if self._descriptor >= 0 else 0
        if content_bytes > free + allocated:
            raise TargetRefusedError(
                f"the file system of {self.path} has {free} bytes free, and the image needs "
                f"{content_bytes - allocated} more: make room, or choose another target"
            )

    def abandon(self) -> None:
        """End `zero` early: the target will not be completed now."""
        self._abandoned = True

    def discard(self) -> None:
        """Remove the file if this process made it: nothing of the image came."""
        if self._created:
            self.path.unlink(missing_ok=True)
            self._created = False

    def write(self, offset: int, *contents: Buffer) -> None:
        """Write bytes, end to end, at an offset. Several threads may; each waits while too much is not on the medium.

        Raises:
            TargetFailedError: the target is full or broken.
        """
        rest = [memoryview(content) for content in contents]
        size = sum(map(len, rest))
        with self._failing():
            while rest:
                done = self._calls.write_at(self._descriptor, rest, offset)
                offset += done
                while rest and done >= len(rest[0]):
                    done -= len(rest.pop(0))
                if done:
                    rest[0] = rest[0][done:]
        with self._flushed:
            self._dirty_bytes += size
            if self._dirty_bytes >= self._calls.flush_from_bytes:
                self._flushed.notify_all()
            while self._dirty_bytes > self._calls.dirty_limit_bytes and not self._failure and not self._closing:
                self._flushed.wait()
        self._raise_failure()

    def read(self, offset: int, length: int) -> bytes:
        """Returns what is at an offset, fewer bytes if the target ends there or cannot be read."""
        try:
            return self._calls.read_at(self._descriptor, length, offset)
        except OSError:
            return b""

    def zero(self, chunks: NDArray[np.bool_], manifest: Manifest) -> None:
        """Make the chunks in a set read as zeros, as holes where that is possible.

        Raises:
            TargetFailedError: the target is full or broken.
        """
        edges = np.flatnonzero(np.diff(np.concatenate(([False], chunks, [False])).astype(np.int8)))
        for first, end in edges.reshape(-1, 2).tolist():
            start, stop = (min(it * manifest.chunk_size_bytes, manifest.size_bytes) for it in (first, end))
            for step in range(start, stop, _ZERO_STEP_BYTES):
                if self._abandoned:
                    return
                self._zero_range(step, min(step + _ZERO_STEP_BYTES, stop) - step)

    def _zero_range(self, start: int, length: int) -> None:
        self._raise_failure()
        try:
            if self._created:
                return  # a new file is one hole
            if self._is_device:
                blockdevice.zero_out(self._descriptor, start, length)
            else:
                self._calls.punch_hole(self._descriptor, start, length)
        except OSError as error:
            if error.errno in (errno.EIO, errno.ENOSPC):
                raise self._failed(error) from error
            for step in range(start, start + length, len(_ZEROS)):
                self.write(step, _ZEROS[: min(len(_ZEROS), start + length - step)])

    def flush(self) -> None:
        """Returns once everything is on the medium.

        Raises:
            TargetFailedError: it is not.
        """
        with self._failing():
            os.fsync(self._descriptor)
        self._raise_failure()
        if self._created and sys.platform != "win32":
            sync_directory(self.path.parent)

    def close(self) -> None:
        """Release the target. What was written and not flushed gets to the medium later."""
        with self._flushed:
            self._closing = True
            self._flushed.notify_all()
        if self._flusher is not None:
            self._flusher.join()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _flush_along(self) -> None:
        while True:
            with self._flushed:
                while self._dirty_bytes < self._calls.flush_from_bytes and not self._closing:
                    self._flushed.wait()
                if self._closing:
                    return
                taken = self._dirty_bytes
            try:
                self._calls.flush(self._descriptor)
            except OSError as error:  # said to whoever writes next
                self._failure = error
            with self._flushed:
                self._dirty_bytes -= taken
                self._flushed.notify_all()
            if self._failure:
                return

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._failure = error
            raise self._failed(error) from error

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failed(self._failure)

    def _failed(self, error: OSError) -> TargetFailedError:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return TargetFailedError(
                f"the target {self.path} is full: make room on its file system, then run the same command again",
                reason="TARGET_FULL",
            )
        return TargetFailedError(
            f"writing to {self.path} failed: {error.strerror}; its medium may be broken", reason="TARGET_FAILED"
        )
