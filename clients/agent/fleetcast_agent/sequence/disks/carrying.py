"""The journal of a run taken along into the new system, when the boot environment forgets it with the restart."""

from __future__ import annotations

import asyncio
from pathlib import Path

from fleetcast_agent.sequence.context import StepContext
from fleetcast_agent.sequence.disks import files, volumes

FILES = ("journal", "log.txt", "assignment.json")
"""What goes along, where it exists."""
DIRECTORY = "task-sequence"
"""Where it goes, below the state directory of the agent there."""
_IDENTITY = ("ca.pem", "cert.pem", "server.json", "key.pem")
LINUX = "/var/lib/fleetcast-agent"
"""State directory of the agent of a Linux system."""
WINDOWS = "/ProgramData/fleetcast-agent"
"""State directory of the agent of a Windows system."""


async def carry(context: StepContext, selector: str, identity: Path | None = None) -> None:
    """Copies the record of the run to where the agent of the system on the volume looks for it.

    With the directory `identity`, that agent is the same machine for the server.

    Raises:
        StepError: the volume cannot be written to.
    """
    volume = await volumes.find(context, selector)
    directory = WINDOWS if await files.kind_of(context, volume) == "ntfs" else LINUX
    async with files.opened(context, volume) as target:
        files_to_carry = [(context.run_directory / name, f"{directory}/{DIRECTORY}/{name}") for name in FILES]
        if identity is not None:
            files_to_carry += [(identity / name, f"{directory}/{name}") for name in _IDENTITY]
        for source, destination in files_to_carry:
            if source.exists():
                content = await asyncio.to_thread(source.read_bytes)
                await target.write(destination, content, mode=0o600)
