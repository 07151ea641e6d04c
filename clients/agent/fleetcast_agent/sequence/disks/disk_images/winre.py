"""Windows' recovery environment, which Windows finds by the place of its partition."""

from __future__ import annotations

from fleetcast_agent.sequence.disks.files import VolumeFiles

_REGISTRATION = "/Windows/System32/Recovery/ReAgent.xml"


async def note_move(files: VolumeFiles, before_bytes: int, now_bytes: int) -> bool:
    """Lets Windows' own record say where the recovery partition begins now. Returns whether it said where it began."""
    text = await files.read(_REGISTRATION)
    old, new = f'offset="{before_bytes}"'.encode(), f'offset="{now_bytes}"'.encode()
    if text is None or old not in text:
        return False
    await files.write(_REGISTRATION, text.replace(old, new))
    return True
