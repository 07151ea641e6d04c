"""How far programs are that write and read archives, which do not say it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from fleetcast_agent.sequence.content.content import Progress
from fleetcast_agent.sequence.context import StepContext

WATCH_SECONDS = 0.5
"""Between two looks at how large an archive has grown."""
_BLOCK_BYTES = 1 << 20


@contextlib.asynccontextmanager
async def growing(path: Path, size_bytes: int, progress: Progress) -> AsyncIterator[None]:
    """Says how much of a file is there while something else writes it."""

    async def watch() -> None:
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            progress(min(_size_bytes(path) / size_bytes, 1))

    watching = asyncio.ensure_future(watch())
    try:
        yield
    finally:
        watching.cancel()


async def feed(context: StepContext, archive: Path, command: list[str | Path], part: tuple[float, float]) -> None:
    """Runs a tar that has the archive by its standard input, which tells how far it is; this is a part of the step."""
    begin, end = part
    size_bytes = _size_bytes(archive)
    with archive.open("rb") as file:

        async def block() -> bytes:
            content = await asyncio.to_thread(file.read, _BLOCK_BYTES)
            context.progress(begin + (end - begin) * file.tell() / size_bytes)
            return content

        await context.tools.run([*command, "--file=-"], stdin=block)


def _size_bytes(path: Path) -> int:
    """Returns the size of the file; nothing while there is none."""
    return path.stat().st_size if path.exists() else 0
