"""File systems: made, recognised, grown."""

from __future__ import annotations

import asyncio
from pathlib import Path

from fleetcast_agent.sequence.errors import StepError
from fleetcast_agent.sequence.machine import geometry
from fleetcast_agent.sequence.tools import Tools

_LABEL_BYTES = {"ntfs": 32, "fat32": 11, "ext4": 16, "xfs": 12, "swap": 15}
_END_BYTES = 1 << 20
_BTRFS_LEAST_BYTES = 256 << 20
_GROWS_NOT = {
    "vfat": "no tool grows FAT while its files stay",
    "exfat": "no tool grows exFAT while its files stay",
    "crypto_LUKS": "it is encrypted: once it is unlocked, its own system can grow what is inside",
    "BitLocker": "it is encrypted: its own system can grow it",
    "swap": "it is swap, which keeps its size",
}


async def make(tools: Tools, device: Path, filesystem: str, *, label: str, start_bytes: int) -> None:
    """Makes a file system on the block device `device`, which begins `start_bytes` into its disk, for its sectors.

    Raises:
        StepError: the label is too long, or the tool failed.
    """
    limit = _LABEL_BYTES[filesystem]
    if len(label.encode()) > limit:
        raise StepError(f"the label {label!r} is longer than the {limit} bytes that {filesystem} takes")
    sector_bytes = geometry.of_path(device)[1]
    sectors, size = str(start_bytes // sector_bytes), str(sector_bytes)
    named = ["-L", label] if label else []
    commands: dict[str, list[str]] = {
        # Boot code of Windows wants the place of its partition and a geometry, even where nothing has one any more.
        "ntfs": ["mkfs.ntfs", "--fast", "--force", "-s", size, "-p", sectors, "-H", "255", "-S", "63", "-L", label],
        "fat32": ["mkfs.fat", "-F", "32", "-S", size, "-h", sectors, *(["-n", label.upper()] if label else [])],
        "ext4": ["mkfs.ext4", "-q", "-F", "-L", label],
        "xfs": ["mkfs.xfs", "-q", "-f", "-s", f"size={size}", *named],
        "swap": ["mkswap", "--force", *named],
    }
    ends = await asyncio.to_thread(_ends, device)
    try:
        # A maker of file systems clears what its own kind would be confused by, and leaves superblocks of others.
        await tools.run(["wipefs", "--all", "--force", "--quiet", device])
        await tools.run([*commands[filesystem], device])
    except StepError:
        # One that refuses (the volume is too small) leaves the volume as it was.
        await asyncio.to_thread(_put_back, device, ends)
        raise


def _ends(device: Path) -> list[tuple[int, bytes]]:
    """Returns what is at both ends of the device, where file systems say what they are, each with its place."""
    size_bytes = geometry.of_path(device)[0]
    with device.open("rb") as volume:
        head = volume.read(_END_BYTES)
        place = volume.seek(max(len(head), size_bytes - _END_BYTES))
        return [(0, head), (place, volume.read())]


def _put_back(device: Path, ends: list[tuple[int, bytes]]) -> None:
    with device.open("r+b") as volume:
        for place, content in ends:
            volume.seek(place)
            volume.write(content)


def refuse_other_sectors(image: str, head: bytes, sector_bytes: int) -> None:
    """Does nothing if the file system that begins with `head` can be used on a disk with such sectors.

    Raises:
        StepError: it was made for others.
    """
    made_for = 0
    if head[3:11] in (b"NTFS    ", b"-FVE-FS-") or head[54:57] == b"FAT" or head[82:85] == b"FAT":
        made_for = int.from_bytes(head[11:13], "little")
        usable = made_for == sector_bytes
    elif head[:4] == b"XFSB":
        made_for = int.from_bytes(head[102:104], "big")
        usable = made_for >= sector_bytes
    elif head[1080:1082] == b"\x53\xef":
        made_for = 1024 << min(int.from_bytes(head[1048:1052], "little"), 6)
        usable = made_for >= sector_bytes
    if made_for and not usable:
        raise StepError(
            f"{image} holds a file system for sectors of {made_for} bytes, and the disk has sectors of {sector_bytes}: "
            "it could not be used there. Take an image of such a disk, or a WIM"
        )


async def make_swap_again(tools: Tools, device: Path, *, label: str, uuid: str) -> None:
    """Makes swap space of the same label and identifier, by which a system finds it."""
    named = [*(["--label", label] if label else []), *(["--uuid", uuid] if uuid else [])]
    await tools.run(["mkswap", "--force", *named, device])


async def probe(tools: Tools, device: Path, *, offset_bytes: int = 0, size_bytes: int = 0) -> dict[str, str]:
    """Returns what blkid knows about the file system there: `TYPE`, `UUID`, `LABEL`; empty if it knows none."""
    place = ["-O", str(offset_bytes), *(["-S", str(size_bytes)] if size_bytes else [])]
    finished = await tools.run(["blkid", "-p", *place, "-o", "export", device], success_codes=(0, 2, 8), quiet=True)
    pairs = (line.partition("=") for line in finished.output.splitlines() if "=" in line)
    # blkid writes blanks as `\ `
    return {key: value.replace("\\ ", " ") for key, _, value in pairs}


async def grow(tools: Tools, device: Path, mount_point: Path) -> str:
    """Makes the file system on the block device fill it. Returns why its kind cannot; empty if it did.

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
    elif kind == "btrfs" and geometry.of_path(device)[0] < _BTRFS_LEAST_BYTES:
        return "the kernel resizes no btrfs to less than 256 MiB"
    elif kind in ("xfs", "btrfs"):
        await tools.run(["mount", "-t", kind, *(["-o", "nouuid"] if kind == "xfs" else []), device, mount_point])
        command = ["xfs_growfs"] if kind == "xfs" else ["btrfs", "filesystem", "resize", "max"]
        try:
            await tools.run([*command, mount_point])
        finally:
            await tools.run(["umount", mount_point])
    else:
        what = f"it holds {kind}" if kind else "it holds no file system that is known here"
        return _GROWS_NOT.get(kind, f"{what}, which cannot be grown")
    return ""
