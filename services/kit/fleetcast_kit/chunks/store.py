"""The chunk store: chunks of image content in a directory, each under the BLAKE3 digest of its content.

A chunk is one file, `chunks/ab/abcd….zst` (one zstd frame) or `chunks/ab/abcd….raw` (the content itself), and
holds nothing but the stored form, so that a sender can read it straight into its buffers. A file appears under its name
whole or not at all. The interface is put, find, read, delete and a barrier: what an object store has, too.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import secrets
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3
from fleetcast_wire.manifest import DIGEST_BYTES
from fleetcast_wire.memory import Buffer

from fleetcast_kit.chunks.codec import ChunkEncoding, damaged, decode, encode
from fleetcast_kit.chunks.mapping import map_file
from fleetcast_kit.errors import DataLossError

_SUFFIXES = {ChunkEncoding.ZSTD: ".zst", ChunkEncoding.RAW: ".raw"}


@dataclass(frozen=True, slots=True)
class StoredForm:
    """How the store keeps a chunk."""

    encoding: ChunkEncoding
    size_bytes: int
    """Size of the stored form."""


@dataclass(frozen=True, slots=True)
class StoredChunk:
    """A chunk as the store keeps it."""

    encoding: ChunkEncoding
    stored: bytes


@dataclass(frozen=True, slots=True)
class Placement:
    """What putting a chunk did."""

    form: StoredForm
    added: bool
    """False when an intact copy was there already."""


class ChunkStore:
    """The chunks under one directory. All methods may be called from any thread; all of them block on the disk.

    A chunk that was put is readable at once but not durable: make what refers to it durable only after `Barrier.wait`.
    A missing or damaged chunk is a DataLossError with reason CHUNK_MISSING or CHUNK_DAMAGED.
    """

    def __init__(self, root: Path, *, map_file: Callable[[int, int], memoryview | None] = map_file) -> None:
        self.root = root
        self._map = map_file
        self._chunks = str(root / "chunks")
        self._unfinished = str(root / "unfinished")
        self._prefix = secrets.token_hex(8)
        self._serial = itertools.count()

    def put(self, digest: bytes, content: Buffer) -> Placement:
        """Stores `content` under its digest, compressed if that pays, unless an intact copy is there.

        A copy that is there is read back and compared first; a damaged one is replaced.

        Raises:
            OSError: the disk is full, read-only or broken; nothing is left behind.
        """
        there = self.find(digest)
        if there is not None and self._holds(digest, content):
            return Placement(there, added=False)
        encoding, stored = encode(content)
        self._write(self._file(digest, encoding), stored)
        if there is not None and there.encoding is not encoding:
            os.unlink(self._file(digest, there.encoding))
        return Placement(StoredForm(encoding, len(stored)), added=True)

    def find(self, digest: bytes) -> StoredForm | None:
        """Returns how a chunk is kept, or None if it is not there."""
        for encoding in _SUFFIXES:
            try:
                return StoredForm(encoding, os.stat(self._file(digest, encoding)).st_size)
            except FileNotFoundError:
                continue
        return None

    def has(self, digest: bytes) -> bool:
        """Returns whether a chunk is there. Does not look into it."""
        return self.find(digest) is not None

    def path(self, digest: bytes) -> Path:
        """Returns the file that holds a chunk's stored form."""
        return Path(self._file(digest, self._found(digest).encoding))

    def read(self, digest: bytes) -> StoredChunk:
        """Returns a chunk in its stored form."""
        with self._opened(digest) as (descriptor, form):
            return StoredChunk(form.encoding, os.pread(descriptor, form.size_bytes, 0))

    def mapped(self, digest: bytes) -> Buffer:
        """Returns a chunk's stored form without copying it, where the system can, all of it in memory."""
        with self._opened(digest) as (descriptor, form):
            mapped = self._map(descriptor, form.size_bytes)
            return os.pread(descriptor, form.size_bytes, 0) if mapped is None else mapped

    def verify(self, digest: bytes, size_bytes: int) -> StoredForm:
        """Reads a chunk from the medium, past the page cache, and returns its form if its content has this digest.

        `size_bytes` is the size of the content.
        """
        with self._opened(digest) as (descriptor, form):
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            stored = os.pread(descriptor, form.size_bytes, 0)
        if blake3(decode(form.encoding, stored, size_bytes)).digest() != digest:
            raise damaged(f"chunk {digest.hex()} does not hold the content it is named after")
        return form

    def delete(self, digest: bytes) -> int:
        """Removes a chunk, if it is there, and returns how many stored bytes that freed."""
        freed_bytes = 0
        while (form := self.find(digest)) is not None:
            os.unlink(self._file(digest, form.encoding))
            freed_bytes += form.size_bytes
        return freed_bytes

    def digests(self) -> Iterator[bytes]:
        """Yields the digest of every chunk that is there, in no order."""
        for folder in _listed(self._chunks):
            for name in _listed(f"{self._chunks}/{folder}"):
                stem, _, _ = name.partition(".")
                if len(stem) == 2 * DIGEST_BYTES:
                    yield bytes.fromhex(stem)

    @contextmanager
    def barrier(self) -> Iterator[Callable[[], None]]:
        """Yields `wait`: when it returns, every chunk put since the barrier was made is durable.

        One syncfs for all chunks instead of an fsync for each: those cost a journal commit apiece. Since Linux 5.8 it
        also reports any write that failed after the file was closed, from when the barrier was made.

        `wait` raises OSError: a chunk could not be made durable.
        """
        os.makedirs(self._chunks, exist_ok=True)
        descriptor = os.open(self._chunks, os.O_RDONLY)
        try:
            yield lambda: _sync_file_system(descriptor)
        finally:
            os.close(descriptor)

    def unfinished(self) -> bool:
        """Returns whether a process died while it put a chunk."""
        return bool(_listed(self._unfinished))

    def discard_unfinished(self) -> None:
        """Removes what processes left that died while they put a chunk. None may be putting one now."""
        for name in _listed(self._unfinished):
            os.unlink(f"{self._unfinished}/{name}")

    def _file(self, digest: bytes, encoding: ChunkEncoding) -> str:
        name = digest.hex()
        return f"{self._chunks}/{name[:2]}/{name}{_SUFFIXES[encoding]}"

    def _found(self, digest: bytes) -> StoredForm:
        form = self.find(digest)
        if form is None:
            raise _missing(digest)
        return form

    @contextmanager
    def _opened(self, digest: bytes) -> Iterator[tuple[int, StoredForm]]:
        for encoding in _SUFFIXES:
            try:
                descriptor = os.open(self._file(digest, encoding), os.O_RDONLY)
            except FileNotFoundError:
                continue
            try:
                yield descriptor, StoredForm(encoding, os.fstat(descriptor).st_size)
            finally:
                os.close(descriptor)
            return
        raise _missing(digest)

    def _holds(self, digest: bytes, content: Buffer) -> bool:
        """Returns whether the stored copy of a chunk decodes to `content`."""
        try:
            chunk = self.read(digest)
            return content == decode(chunk.encoding, chunk.stored, len(content))
        except (DataLossError, OSError):
            return False

    def _write(self, file: str, stored: Buffer) -> None:
        temporary = f"{self._unfinished}/{self._prefix}-{next(self._serial)}"
        descriptor = self._created(temporary)
        try:
            try:
                rest = memoryview(stored)
                while rest:
                    rest = rest[os.write(descriptor, rest) :]
            finally:
                os.close(descriptor)
            try:
                os.replace(temporary, file)
            except FileNotFoundError:
                os.makedirs(os.path.dirname(file), exist_ok=True)
                os.replace(temporary, file)
        except BaseException:
            os.unlink(temporary)
            raise

    def _created(self, file: str) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        try:
            return os.open(file, flags, 0o640)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(file), exist_ok=True)
            return os.open(file, flags, 0o640)


def _listed(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


def _sync_file_system(descriptor: int) -> None:
    if sys.platform != "linux":
        os.sync()
    elif ctypes.CDLL(None, use_errno=True).syncfs(descriptor) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _missing(digest: bytes) -> DataLossError:
    return DataLossError(f"chunk {digest.hex()} is missing from the store", reason="CHUNK_MISSING")
