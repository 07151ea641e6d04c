"""btrfs: the subvolume with the system, mounted with the subvolumes that belong into it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from fleetcast_agent.sequence.errors import StepError
from fleetcast_agent.sequence.tools import Tools

TOP = 5
"""Identifier of the subvolume that holds all others."""
_LAYOUTS = ("@", "@rootfs", "root", "@root")
"""What Ubuntu, Debian, Fedora and others call the subvolume with the system."""
_IDENTIFIER = re.compile(r"ID (\d+)(?:.* path (.+))?")


async def root_subvolume(tools: Tools, device: Path, point: Path) -> str:
    """Returns the subvolume with the system; empty if it is the default one. `point` is an empty directory.

    Raises:
        StepError: the file system cannot be mounted.
    """
    await tools.run(["mount", "-t", "btrfs", "-o", f"ro,subvolid={TOP}", device, point])
    try:
        finished = await tools.run(["btrfs", "subvolume", "get-default", point], quiet=True)
        found = _IDENTIFIER.search(finished.output)
        if found is not None and int(found[1]) != TOP:
            return ""
        if holds_system(point):
            return _named_by_fstab(point) or ""
        return next((name for name in _LAYOUTS if holds_system(point / name)), "")
    finally:
        await tools.run(["umount", point])


def systems_in(point: Path) -> bool:
    """Returns whether a subvolume below the one that is mounted holds a Linux system."""
    return any(holds_system(point / name) for name in _LAYOUTS)


def holds_system(root: Path) -> bool:
    """Returns whether there is a Linux system at `root`."""
    return os.path.lexists(root / "etc/os-release") or (root / "etc/fstab").is_file()


async def mount(tools: Tools, device: Path, point: Path, *, mode: str, subvolume: str = "") -> None:
    """Mounts the file system, and those of its subvolumes at their places that the system's own table mounts.

    Raises:
        StepError: it cannot be mounted.
    """
    options = f"{mode},subvol=/{subvolume}" if subvolume else mode
    await tools.run(["mount", "-t", "btrfs", "-o", options, device, point])
    for place, name in _belonging(point):
        try:
            await tools.run(["mount", "-t", "btrfs", "-o", f"{mode},subvol=/{name}", device, place])
        except StepError:
            await tools.run(["umount", "--recursive", point])
            raise


def _belonging(point: Path) -> Iterator[tuple[Path, str]]:
    """Yields where in the system at `point` which other subvolumes belong, those outside first."""
    lines = sorted(_fstab(point), key=lambda line: line[0].count("/"))
    own = next((source for target, source, _ in lines if target == "/"), None)
    for target, source, options in lines:
        name = _subvolume(options)
        place = point / target.lstrip("/")
        inside = not any(part.is_symlink() for part in (place, *place.parents) if part.is_relative_to(point))
        # Other places on the way may be mounts by now; a place that is a link would lead out of the volume.
        if target not in ("/", "none", "swap") and source == own and name and inside and place.is_dir():
            yield place, name


def _fstab(point: Path) -> Iterator[tuple[str, str, str]]:
    """Yields place, source and options of each btrfs line."""
    path = point / "etc/fstab"
    if path.is_symlink() or path.parent.is_symlink() or not path.is_file():
        return
    for line in path.read_text(errors="replace").splitlines():
        words = line.split()
        if len(words) >= 4 and not words[0].startswith("#") and words[2] == "btrfs" and ".." not in words[1]:
            yield words[1], words[0], words[3]


def _named_by_fstab(point: Path) -> str | None:
    return next((_subvolume(options) for target, _, options in _fstab(point) if target == "/"), None)


def _subvolume(options: str) -> str:
    named = [option.removeprefix("subvol=") for option in options.split(",") if option.startswith("subvol=")]
    return named[-1].strip("/") if named else ""
