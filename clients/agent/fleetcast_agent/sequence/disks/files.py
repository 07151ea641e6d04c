"""Files of a volume that no system runs from: read and written without ever leaving the volume."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from collections.abc import AsyncIterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Protocol

from fleetcast_agent.sequence.context import StepContext
from fleetcast_agent.sequence.disks import emptying, volumes
from fleetcast_agent.sequence.disks.volumes import Volume
from fleetcast_agent.sequence.errors import StepError
from fleetcast_agent.sequence.slices import in_slices

_MAX_LINKS = 40
"""As many symbolic links as Linux follows in one path."""


class VolumeFiles(Protocol):
    """The files of a volume. Paths are written with `/`, from the volume's top."""

    async def read(self, path: str) -> bytes | None:
        """Returns the content of a file; None if there is none."""
        ...

    async def write(self, path: str, content: bytes, *, mode: int | None = None) -> None:
        """Writes a file, and the directories above it."""
        ...

    async def delete(self, path: str) -> None:
        """Deletes a file, if it is there."""
        ...

    def lacking_bytes(self, sizes: Mapping[str, int]) -> int:
        """Returns how many bytes there is too little room for files of these sizes, by their paths; 0 if unknown."""
        ...


class MountedFiles:
    """The files of a mounted volume."""

    def __init__(self, root: Path, *, ignore_case: bool) -> None:
        """Takes the mount point, and whether names that differ only in case are the same."""
        self._root = root
        self._ignore_case = ignore_case

    async def read(self, path: str) -> bytes | None:
        """Returns the content of a file; None if there is none."""
        place = self.place(path)
        return await asyncio.to_thread(place.read_bytes) if place.is_file() else None

    async def write(self, path: str, content: bytes, *, mode: int | None = None) -> None:
        """Writes a file in one go, and the directories above it."""
        await asyncio.to_thread(_write, self.place(path), content, mode)

    async def delete(self, path: str) -> None:
        """Deletes a file, if it is there."""
        self.place(path).unlink(missing_ok=True)

    def lacking_bytes(self, sizes: Mapping[str, int]) -> int:
        """Returns how many bytes there is too little room for files that are written; those they replace give way."""
        status = os.statvfs(self._root)
        places = ((self.place(path), size_bytes) for path, size_bytes in sizes.items())
        more = sum(size - (place.stat().st_size if place.is_file() else 0) for place, size in places)
        return max(more - status.f_bavail * status.f_frsize, 0)

    def place(self, path: str) -> Path:
        """Returns where `path` is on the running system; symbolic links lead where the new system sees them lead."""
        return inside(self._root, path, ignore_case=self._ignore_case)

    def exists(self, path: str) -> bool:
        """Returns whether there is anything at `path`."""
        return self.place(path).exists()


class FatFiles:
    """The files of an unmounted FAT volume, for systems whose kernel knows no FAT."""

    def __init__(self, context: StepContext, device: Path) -> None:
        """Takes the block device."""
        self._context = context
        self._device = device

    async def read(self, path: str) -> bytes | None:
        """Returns the content of a file; None if there is none."""
        target = self._context.step_directory / "fat-file"
        command: list[str | Path] = ["mcopy", "-o", "-i", self._device, f"::/{path.lstrip('/')}", target]
        finished = await self._context.tools.run(command, success_codes=(0, 1), quiet=True)
        return await asyncio.to_thread(target.read_bytes) if finished.exit_code == 0 else None

    async def write(self, path: str, content: bytes, *, mode: int | None = None) -> None:
        """Writes a file, and the directories above it. FAT has no permissions."""
        source = self._context.step_directory / "fat-file"
        await asyncio.to_thread(source.write_bytes, content)
        *above, _ = PurePosixPath("/", path).parts[1:]
        for depth in range(1, len(above) + 1):
            made = f"::/{'/'.join(above[:depth])}"
            await self._context.tools.run(
                ["mmd", "-D", "s", "-i", self._device, made], success_codes=(0, 1), quiet=True
            )
        await self._context.tools.run(["mcopy", "-o", "-i", self._device, source, f"::/{path.lstrip('/')}"])

    async def delete(self, path: str) -> None:
        """Deletes a file, if it is there."""
        command: list[str | Path] = ["mdel", "-i", self._device, f"::/{path.lstrip('/')}"]
        await self._context.tools.run(command, success_codes=(0, 1), quiet=True)

    def lacking_bytes(self, sizes: Mapping[str, int]) -> int:
        """Returns 0: mtools say themselves when the volume is full."""
        return 0


@contextlib.asynccontextmanager
async def opened(context: StepContext, volume: Volume) -> AsyncIterator[VolumeFiles]:
    """Yields the files of a volume, whatever its file system.

    Raises:
        StepError: it holds none that is known here.
    """
    kind = await kind_of(context, volume)
    if kind == "vfat" and not volumes.kernel_has("vfat"):
        async with volumes.attached(context, volume) as device:
            yield FatFiles(context, device)
    else:
        async with volumes.mounted(context, volume) as root:
            yield MountedFiles(root, ignore_case=kind in ("ntfs", "vfat"))


@contextlib.asynccontextmanager
async def opened_tree(context: StepContext, volume: Volume) -> AsyncIterator[MountedFiles]:
    """Yields the files of a volume that must be mounted.

    Raises:
        StepError: it cannot be.
    """
    kind = await kind_of(context, volume)
    async with volumes.mounted(context, volume) as root:
        yield MountedFiles(root, ignore_case=kind in ("ntfs", "vfat"))


async def kind_of(context: StepContext, volume: Volume) -> str:
    """Returns the kind of file system on the volume, as blkid says it; empty if there is none."""
    return (await volumes.about(context, volume)).get("TYPE", "")


async def empty(context: StepContext, volume: Volume) -> None:
    """Deletes everything on the volume but the directories it keeps.

    Raises:
        StepError: it cannot be mounted.
    """
    async with volumes.mounted(context, volume) as root:
        await in_slices(context.control, emptying.emptied(root, {name.strip("/").lower() for name in volume.keep}))


def inside(root: Path, path: str, *, ignore_case: bool = False) -> Path:
    """Returns where `path` is under `root`, following symbolic links as a system whose top is `root` would.

    Raises:
        StepError: it leaves the volume, or its links go in circles.
    """
    left = [part for part in reversed(PurePosixPath("/", path).parts) if part != "/"]
    here: list[str] = []
    links = 0
    while left:
        part = left.pop()
        if part == "..":
            if not here:
                raise StepError(f"{path!r} leaves the volume")
            here.pop()
            continue
        directory = root.joinpath(*here)
        if ignore_case:
            part = _spelled(directory, part)
        candidate = directory / part
        if candidate.is_symlink():
            links += 1
            if links > _MAX_LINKS:
                raise StepError(f"the symbolic links in {path!r} go in circles")
            target = PurePosixPath(os.readlink(candidate))
            if target.is_absolute():
                here = []
            left += [item for item in reversed(target.parts) if item != "/"]
        else:
            here.append(part)
    return root.joinpath(*here)


def _spelled(directory: Path, name: str) -> str:
    """Returns `name` as the directory spells it; as it is if it is not there."""
    if (directory / name).exists() or not directory.is_dir():
        return name
    return next((entry for entry in os.listdir(directory) if entry.lower() == name.lower()), name)


def _write(path: Path, content: bytes, mode: int | None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name[:200]}.fleetcast")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    if mode is not None:
        partial.chmod(mode)
    elif path.exists():
        partial.chmod(stat.S_IMODE(path.stat().st_mode))
    partial.replace(path)
