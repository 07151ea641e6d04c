"""Which chunks were written to a target, kept beside it in the state directory.

The journal is a hint, written without waiting for the disk: what it claims is read back and hashed before it counts.
So it may be lost, torn or stale without harm, and needs no order between its bytes and those of the target.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import struct
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from fleetcast_kit.files import make_private_directory
from numpy.typing import NDArray

from fleetcast_agent.receiving.errors import JournalError
from fleetcast_agent.receiving.writing.chunk_table import ChunkTable
from fleetcast_agent.receiving.writing.target import Target

_logger = logging.getLogger(__name__)
_INDEX = struct.Struct("<I")
_MAX_HEAD_BYTES = 65536


@dataclass(frozen=True)
class _Head:
    image: str = ""
    chunk_size_bytes: int = 0
    complete: bool = False


class Journal:
    """The claims of one target.

    Args:
        directory: where journals are kept; made if missing.
        target: path of the target.

    Raises:
        JournalError: the directory cannot be used.
    """

    def __init__(self, directory: Path, target: Path) -> None:
        self._path = directory / f"{hashlib.sha256(os.fsencode(target.resolve())).hexdigest()[:32]}.journal"
        self._target = str(target.resolve())
        self._descriptor = -1
        try:
            make_private_directory(directory)
            content = self._path.read_bytes() if self._path.exists() else b""
        except OSError as error:
            raise JournalError(
                f"the state directory {directory} cannot be used: {error.strerror}; choose another with --state-dir"
            ) from error
        self._head, self._claims = _parse(content)

    @property
    def image(self) -> str:
        """The image version that was received, `images/{image}@sha256:{hex}`; empty if none."""
        return self._head.image

    @property
    def unfinished(self) -> bool:
        """Whether a reception was begun and did not come to its end."""
        return bool(self._head.image) and not self._head.complete

    def claims(self, image: str, chunk_size_bytes: int) -> list[int]:
        """Returns the chunks that may be held of an image: those written of it, or of another version of it."""
        same = self.image.partition("@")[0] == image.partition("@")[0]
        same = same and self._head.chunk_size_bytes == chunk_size_bytes
        return sorted(set(self._claims)) if same else []

    def begin(self, image: str, chunk_size_bytes: int, held: Iterable[int]) -> None:
        """Start the journal of an image with the chunks that are proven to be held.

        Raises:
            JournalError: it cannot be written.
        """
        self._head = _Head(image, chunk_size_bytes)
        try:
            self._rewrite(b"".join(map(_INDEX.pack, held)))
            self._descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | getattr(os, "O_BINARY", 0))
        except OSError as error:
            raise JournalError(
                f"the state directory {self._path.parent} cannot be written: {error.strerror}"
            ) from error

    def complete(self) -> None:
        """Note that the whole image is on the target."""
        self.close()
        self._head = replace(self._head, complete=True)
        try:
            self._rewrite(self._path.read_bytes().partition(b"\n")[2])
        except OSError as error:
            _logger.warning("the journal of %s cannot be completed: %s", self._target, error.strerror)

    def _rewrite(self, body: bytes) -> None:
        head = json.dumps({**vars(self._head), "target": self._target}).encode()
        fresh = self._path.with_suffix(".new")
        fresh.write_bytes(head + b"\n" + body)
        fresh.replace(self._path)

    def note(self, chunks: Collection[int]) -> None:
        """Claim chunks that were written. Any thread."""
        if self._descriptor < 0 or not chunks:
            return
        try:
            os.write(self._descriptor, b"".join(map(_INDEX.pack, chunks)))
        except OSError as error:
            _logger.warning(
                "the journal of %s cannot be continued (%s): a restart would receive more again", *_why(error)
            )
            self.close()

    def discard_if_empty(self) -> None:
        """Remove the file of a closed journal if it claims nothing."""
        try:
            if not _parse(self._path.read_bytes())[1]:
                self._path.unlink()
        except OSError as error:
            _logger.debug("the journal %s stays: %s", self._path, error)

    def close(self) -> None:
        """Close the file; it stays, to show what the target holds."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def _why(error: OSError) -> tuple[str, str]:
    return str(error.filename or "this target"), error.strerror or str(error)


def _parse(content: bytes) -> tuple[_Head, list[int]]:
    """Returns the head and the claims of a journal; nothing of one that is damaged."""
    head, newline, body = content[: _MAX_HEAD_BYTES + 4 * (1 << 24)].partition(b"\n")
    try:
        fields = json.loads(head) if newline and len(head) <= _MAX_HEAD_BYTES else {}
        parsed = _Head(str(fields["image"]), int(fields["chunk_size_bytes"]), bool(fields["complete"]))
    except (ValueError, KeyError, TypeError, RecursionError):
        return _Head(), []
    whole = body[: len(body) - len(body) % _INDEX.size]
    return parsed, [index for (index,) in _INDEX.iter_unpack(whole)]


def prove_claims(claims: Iterable[int], table: ChunkTable, target: Target) -> NDArray[np.bool_]:
    """Returns which of the claimed chunks really are on the target, shape (chunk_count,): each is read and hashed."""
    manifest = table.manifest
    held = np.zeros(manifest.chunk_count, np.bool_)
    candidates = [chunk for chunk in claims if chunk < manifest.chunk_count and not manifest.zero[chunk]]

    def prove(chunk: int) -> None:
        size = manifest.chunk_bytes(chunk)
        content = target.read(chunk * manifest.chunk_size_bytes, size)
        held[chunk] = len(content) == size and table.matches(chunk, content)

    with ThreadPoolExecutor(min(4, os.cpu_count() or 1), "prove") as pool:
        for _ in pool.map(prove, candidates):
            pass
    return held
