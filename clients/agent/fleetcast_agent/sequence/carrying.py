"""The journal of a run taken along into the new system, when the boot environment forgets it with the restart."""

from __future__ import annotations

import asyncio

from fleetcast_agent.sequence import files, volumes
from fleetcast_agent.sequence.context import StepContext

FILES = ("journal", "log.txt", "assignment.json")
"""What goes along, where it exists."""
_LINUX = "/var/lib/fleetcast-agent/task-sequence"
_WINDOWS = "/ProgramData/fleetcast-agent/task-sequence"


async def carry(context: StepContext, selector: str) -> None:
    """Copies the record of the run to where the agent of the system on the volume looks for it.

    Raises:
        StepError: the volume cannot be written to.
    """
    volume = await volumes.find(context, selector)
    directory = _WINDOWS if await files.kind_of(context, volume) == "ntfs" else _LINUX
    async with files.opened(context, volume) as target:
        for name in FILES:
            source = context.run_directory / name
            if source.exists():
                content = await asyncio.to_thread(source.read_bytes)
                await target.write(f"{directory}/{name}", content, mode=0o600)
