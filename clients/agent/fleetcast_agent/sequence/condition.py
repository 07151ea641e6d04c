"""Whether the files of a volume are what its last user left: asked before they are copied, not only before writing."""

from __future__ import annotations

import asyncio
from pathlib import Path

from fleetcast_agent.sequence.context import StepContext
from fleetcast_agent.sequence.disks import files
from fleetcast_agent.sequence.disks.volumes import Volume
from fleetcast_agent.sequence.errors import StepError
from fleetcast_agent.sequence.ntfs.file_records import NtfsVolume
from fleetcast_agent.sequence.ntfs.forms import ROOT_RECORD, NtfsError

_HIBERNATED = (b"hibr", b"wake", b"rstr")
"""How hiberfil.sys begins while Windows means to go on from it, in small letters or capitals."""
_EXT_SUPERBLOCK = 1024
_EXT_NEEDS_RECOVERY, _EXT_HAS_ERRORS = 0x4, 0x2


async def refuse_if_unsafe(context: StepContext, volume: Volume) -> None:
    """Does nothing if what is on the volume can be copied as it is.

    Raises:
        StepError: Windows on it is hibernated, or was not shut down; it is encrypted as a whole, or damaged.
    """
    kind = await files.kind_of(context, volume)
    if kind == "BitLocker":
        raise StepError(
            f"the volume {volume.name!r} is encrypted by BitLocker, so its files cannot be read: decrypt it in Windows "
            f"first (manage-bde -off C:, then wait until manage-bde -status says that it is decrypted)"
        )
    if kind == "crypto_LUKS":
        raise StepError(f"the volume {volume.name!r} is encrypted (LUKS): open it first, and name what it opens to")
    if kind == "ntfs" and (problem := await asyncio.to_thread(_ntfs_problem, volume.backing, volume.start_bytes)):
        raise StepError(f"the volume {volume.name!r} cannot be copied: {problem}")
    if kind.startswith("ext") and (
        problem := await asyncio.to_thread(_ext_problem, volume.backing, volume.start_bytes)
    ):
        raise StepError(f"the volume {volume.name!r} cannot be copied: {problem}")


def _ntfs_problem(path: Path, start_bytes: int) -> str:
    with path.open("rb") as file:
        try:
            volume = NtfsVolume(file, start_bytes)
            if volume.is_dirty:
                return (
                    "it is marked as damaged or was not taken down cleanly: start Windows, let it check the volume "
                    "(chkdsk /f), and shut it down with: shutdown /s /t 0"
                )
            top = volume.record(ROOT_RECORD)
            names = volume.children(top) if top is not None else {}
            number = next((number for name, number in names.items() if name.lower() == "hiberfil.sys"), None)
            saved = volume.record(number) if number is not None else None
            main = saved.streams.get("") if saved is not None else None
            if main is not None and volume.part(main, 0, 4).lower() in _HIBERNATED:
                return (
                    "Windows on it is hibernated, as it is after a shutdown with Fast Startup: start Windows and shut "
                    "it down with: shutdown /s /t 0"
                )
        except NtfsError as error:
            return f"{error}: let Windows check it (chkdsk /f)"
    return ""


def _ext_problem(path: Path, start_bytes: int) -> str:
    with path.open("rb") as file:
        file.seek(start_bytes + _EXT_SUPERBLOCK)
        superblock = file.read(_EXT_SUPERBLOCK)
    state, features = int.from_bytes(superblock[58:60], "little"), int.from_bytes(superblock[96:100], "little")
    if state & _EXT_HAS_ERRORS:
        return "its file system has errors: check it with e2fsck -f"
    if features & _EXT_NEEDS_RECOVERY:
        return "it was not taken down cleanly: start its system and shut it down, or check it with e2fsck -p"
    return ""
