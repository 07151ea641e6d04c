"""A place for files that are large and wanted only for a while."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from fleetcast_agent.sequence.content.content import delete_content
from fleetcast_agent.sequence.context import StepContext
from fleetcast_agent.sequence.disks import volumes

DIRECTORY = ".fleetcast-spool"
"""At the top of the volume that is the place."""


@contextlib.asynccontextmanager
async def opened(context: StepContext, volume: str | None) -> AsyncIterator[Path]:
    """Yields a directory on the volume, or the step's own; what an interrupted attempt left is still there.

    Raises:
        StepError: the volume cannot be mounted.
    """
    if volume is None:
        yield context.step_directory
        return
    async with volumes.mounted(context, await volumes.find(context, volume)) as root:
        directory = root / DIRECTORY
        directory.mkdir(exist_ok=True)
        try:
            yield directory
            delete_content(directory)
        finally:
            with contextlib.suppress(OSError):  # what an attempt after this one can use stays
                directory.rmdir()
