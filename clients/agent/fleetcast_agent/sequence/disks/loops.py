"""Block devices over parts of disks and files: loops, and mappings of several parts in a row."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from fleetcast_agent.sequence.errors import StepError
from fleetcast_agent.sequence.machine import geometry
from fleetcast_agent.sequence.tools import Tools

_ATTEMPTS = 5
_MISC = Path("/proc/misc")

Piece = tuple[int, int]
"""Begin and size in bytes."""


@contextlib.asynccontextmanager
async def loop(
    tools: Tools, backing: Path, piece: Piece, *, sector_bytes: int, read_only: bool = False
) -> AsyncIterator[Path]:
    """Yields a block device over a part of `backing`, with such sectors: those of the disk, as its partitions have.

    Raises:
        StepError: it cannot be had; making loop devices needs root.
    """
    place = ["--offset", str(piece[0]), "--sizelimit", str(piece[1]), "--sector-size", str(sector_bytes)]
    options = [*place, *(["--read-only"] if read_only else [])]
    device = await _set_up(tools, ["losetup", "--find", "--show", *options, str(backing)])
    try:
        yield device
    finally:
        await tools.run(["losetup", "--detach", device])


@contextlib.asynccontextmanager
async def mapping(
    tools: Tools, backing: Path, pieces: Sequence[Piece], *, sector_bytes: int, read_only: bool = False
) -> AsyncIterator[Path]:
    """Yields a block device that is several parts of `backing` in a row.

    Raises:
        StepError: this kernel has no device mapper.
    """
    if not has_device_mapper():
        raise StepError("this kernel has no device mapper, which a logical volume in several parts needs")
    whole = (0, geometry.of_path(backing)[0])
    async with loop(tools, backing, whole, sector_bytes=sector_bytes, read_only=read_only) as device:
        lines, at = [], 0
        for begin, size in pieces:
            start, length, offset = (geometry.mapper_units(place) for place in (at, size, begin))
            lines.append(f"{start} {length} linear {device} {offset}")
            at += size
        name = f"fleetcast-{uuid.uuid4()}"
        options = ["--readonly"] if read_only else []
        await tools.run(["dmsetup", "create", name, "--noudevsync", *options], stdin=("\n".join(lines) + "\n").encode())
        try:
            await tools.run(["dmsetup", "mknodes", name], quiet=True)
            yield Path("/dev/mapper", name)
        finally:
            await tools.run(["dmsetup", "remove", "--noudevsync", "--retry", name])


def has_device_mapper() -> bool:
    """Returns whether the running kernel can map several parts to one device."""
    return "device-mapper" in _MISC.read_text().split()


async def _set_up(tools: Tools, command: Sequence[str]) -> Path:
    attempts = _ATTEMPTS
    while True:
        finished = await tools.run(command, success_codes=(0, 1), quiet=True)
        if finished.exit_code == 0:
            return Path(finished.output.strip())
        attempts -= 1
        # Two runs that ask at the same moment are offered the same free device.
        if attempts == 0 or "busy" not in finished.error_output:
            raise StepError(f"no loop device for {command[-1]}: {finished.error_output.strip()}", exit_code=1)
