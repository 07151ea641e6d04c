"""File systems: made, recognised, grown."""

from __future__ import annotations

from pathlib import Path

from fleetcast_agent.sequence.errors import StepError
from fleetcast_agent.sequence.tools import Tools


async def make(tools: Tools, device: Path, filesystem: str, *, label: str, start_bytes: int) -> None:
    """Makes a file system on the block device `device`, which begins `start_bytes` into its disk.

    Raises:
        StepError: the label is too long, or the tool failed.
    """
    limit = {"ntfs": 32, "fat32": 11, "ext4": 16, "xfs": 12}[filesystem]
    if len(label.encode()) > limit:
        raise StepError(f"the label {label!r} is longer than the {limit} bytes that {filesystem} takes")
    sectors = str(start_bytes // 512)
    commands: dict[str, list[str]] = {
        # Boot code of Windows wants the place of its partition and a geometry, even where nothing has one any more.
        "ntfs": ["mkfs.ntfs", "--fast", "--force", "-p", sectors, "-H", "255", "-S", "63", "-L", label],
        "fat32": ["mkfs.fat", "-F", "32", "-h", sectors, *(["-n", label.upper()] if label else [])],
        "ext4": ["mkfs.ext4", "-q", "-F", "-L", label],
        "xfs": ["mkfs.xfs", "-q", "-f", *(["-L", label] if label else [])],
    }
    await tools.run([*commands[filesystem], device])


async def probe(tools: Tools, device: Path, *, offset_bytes: int = 0, size_bytes: int = 0) -> dict[str, str]:
    """Returns what blkid knows about the file system there: `TYPE`, `UUID`, `LABEL`; empty if it knows none."""
    place = ["-O", str(offset_bytes), *(["-S", str(size_bytes)] if size_bytes else [])]
    finished = await tools.run(["blkid", "-p", *place, "-o", "export", device], success_codes=(0, 2), quiet=True)
    pairs = (line.partition("=") for line in finished.output.splitlines() if "=" in line)
    # blkid writes blanks as `\ `
    return {key: value.replace("\\ ", " ") for key, _, value in pairs}


async def grow(tools: Tools, device: Path, mount_point: Path) -> None:
    """Makes the file system on the block device fill it, if it is of a kind that can grow.

    `mount_point` is an empty directory, for kinds that grow only while mounted.

    Raises:
        StepError: the tool failed.
    """
    kind = (await probe(tools, device)).get("TYPE", "")
    if kind == "ntfs":
        await tools.run(["ntfsresize", "--force", "--force", "--no-progress-bar", device], stdin=b"y\n")
        # Windows would check the whole disk when it first starts: the resizer asks for it to be safe.
        await tools.run(["ntfsfix", "--clear-dirty", device])
    elif kind in ("ext2", "ext3", "ext4"):
        await tools.run(["e2fsck", "-f", "-p", device], success_codes=(0, 1))
        await tools.run(["resize2fs", device])
    elif kind == "xfs":
        await tools.run(["mount", "-t", "xfs", device, mount_point])
        try:
            await tools.run(["xfs_growfs", mount_point])
        finally:
            await tools.run(["umount", mount_point])
