"""Where images and packages come from, and where captured ones go: the one narrow interface to the servers."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, Protocol

from fleetcast_agent.receiving.messages import HEAD_BYTES
from fleetcast_agent.sequence.errors import StepError

Delivery = Literal["multicast-only", "prefer-multicast", "unicast"]
Progress = Callable[[float], None]
"""Receives the part that is done, from 0 to 1."""
Examine = Callable[[bytes], Awaitable[bool]]
"""Receives the beginning of an image, and returns whether it must see more: then it receives `HEAD_BYTES` of it, if
there are so many. What it raises prevents all writing."""
Verified = Callable[[int], None]
"""Receives how many bytes from the beginning, without a gap, are verified and on the target."""


PIPABLE_MAGIC = b"WLPWM\0\0\0"
"""How WIM files begin that can be applied from a pipe."""
WIM_MAGIC = (b"MSWIM\0\0\0", PIPABLE_MAGIC)
"""How WIM and ESD files begin."""


@dataclass(frozen=True)
class ImageDescription:
    """What is known about an image."""

    size_bytes: int
    """Size of its content."""
    is_wim: bool
    """A WIM or ESD file, to be applied by wimlib; otherwise it is written as it is."""


class ContentSource(Protocol):
    """Fetches what the catalog holds, and adds to it."""

    async def describe(self, image: str) -> ImageDescription:
        """Returns what is known about an image before it is fetched.

        Raises:
            StepError: there is no such image.
        """
        ...

    async def fetch(
        self,
        image: str,
        target: Path,
        *,
        delivery: Delivery,
        progress: Progress,
        verified: Verified | None = None,
        examine: Examine | None = None,
    ) -> None:
        """Writes the verified content of `image` to `target`, from its first byte: a device, or a file that it makes.

        Called again after an interruption it fetches what is missing. Content that reads as zeros may stay unwritten in
        a new file, but not on a device or in an existing file. `verified` is called on the event loop as the content
        grows that can be read from the target, whatever was there before; a source may call it rarely.

        `examine` is awaited before the first byte is written.

        Raises:
            StepError: it cannot be had, or not in this way.
            Exception: what `examine` raised.
        """
        ...

    async def publish(self, source: Path, image: str, *, progress: Progress) -> str:
        """Adds the file `source` as a new version of `image`; returns the version's name.

        Raises:
            StepError: the server does not take it.
        """
        ...


class DirectoryContent:
    """Images as files of a directory, by their names. For machines without a server, and for rehearsals."""

    def __init__(self, directory: Path) -> None:
        """Takes the directory."""
        self._directory = directory

    async def describe(self, image: str) -> ImageDescription:
        """Returns size and kind of the file."""
        path = self._path(image)
        with path.open("rb") as file:
            is_wim = file.read(8) in WIM_MAGIC
        return ImageDescription(path.stat().st_size, is_wim)

    async def fetch(
        self,
        image: str,
        target: Path,
        *,
        delivery: Delivery,
        progress: Progress,
        verified: Verified | None = None,
        examine: Examine | None = None,
    ) -> None:
        """Copies the image to `target`."""
        if delivery == "multicast-only":
            raise StepError(f"{image} comes from a directory, which cannot multicast: use another delivery")
        path = self._path(image)
        if examine is not None:
            await examine(await asyncio.to_thread(_head, path))
        await _copy(path, target, progress, verified)

    async def publish(self, source: Path, image: str, *, progress: Progress) -> str:
        """Copies `source` into the directory, replacing the image of that name at once."""
        partial = self._directory / f".{image}.partial"
        await _copy(source, partial, progress)
        partial.replace(self._directory / image)
        return f"images/{image}"

    def _path(self, image: str) -> Path:
        name = image.removeprefix("images/").partition("@")[0]
        path = self._directory / name
        if Path(name).name != name or not path.is_file():
            raise StepError(f"there is no image {name!r} in {self._directory}")
        return path


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(HEAD_BYTES)


async def _copy(source: Path, target: Path, progress: Progress, verified: Verified | None = None) -> None:
    done = 0
    with await asyncio.to_thread(source.open, "rb") as reader, await asyncio.to_thread(_opened, target) as writer:
        total = os.fstat(reader.fileno()).st_size or 1
        while copied := await asyncio.to_thread(_copy_block, reader, writer):
            done += copied
            progress(done / total)
            if verified is not None:
                verified(done)
        await asyncio.to_thread(os.fsync, writer.fileno())


def _opened(target: Path) -> BinaryIO:
    return target.open("r+b" if target.exists() else "wb")


def _copy_block(reader: BinaryIO, writer: BinaryIO) -> int:
    content = reader.read(1 << 20)
    writer.write(content)
    writer.flush()
    return len(content)


def delete_content(path: Path) -> None:
    """Deletes a fetched file or unpacked directory, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
