"""Real images made from this machine itself: a file system, and a WIM of the same files."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path("/usr")
CONTENT_BYTES = 320_000_000
"""Bytes of files to take: enough for some seconds of multicast, little enough for a small machine."""
EXT4_BYTES = 400 * 2**20
"""Size of the file system: it has free space too, so that there are chunks of zeros to skip."""
MAX_FILE_BYTES = 32 * 2**20
"""Larger files are left out, so that there are thousands of files rather than a few."""

SYSTEM_PATHS = ("/usr/local/sbin", "/usr/sbin", "/sbin")
"""Where the tools for file systems are and a user's PATH often does not lead."""


class MissingToolError(Exception):
    """A tool is not installed."""


@dataclass(frozen=True)
class Input:
    """An image to deploy and the command that checks a copy of it."""

    name: str
    title: str
    file: Path
    check: tuple[str, ...]
    """The command; the copy's path follows."""
    check_title: str

    @property
    def size_bytes(self) -> int:
        """Size of the file."""
        return self.file.stat().st_size


def find_tool(name: str) -> str | None:
    """Returns the path of a tool, also from directories for administrators; None if it is not installed."""
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), *SYSTEM_PATHS]))


def require_tool(name: str, package: str) -> str:
    """Returns the path of a tool.

    Raises:
        MissingToolError: it is not installed; says which package has it.
    """
    found = find_tool(name)
    if found is None:
        raise MissingToolError(f"{name} is not installed; as root: apt-get install {package}")
    return found


def copy_tree(target: Path) -> tuple[int, int]:
    """Copies files and links of this machine's /usr to `target` and returns how many, and their bytes."""
    file_count = content_bytes = 0
    for folder, subfolders, names in os.walk(SOURCE):
        subfolders.sort()
        source = Path(folder)
        destination = target / source.relative_to(SOURCE)
        for name in sorted(names):
            entry = source / name
            try:
                size_bytes = entry.lstat().st_size
                if size_bytes > MAX_FILE_BYTES:
                    continue
                destination.mkdir(parents=True, exist_ok=True)
                shutil.copy2(entry, destination / name, follow_symlinks=False)
            except OSError:
                continue  # what this user may not read, or what a package manager just removed, is not needed
            file_count, content_bytes = file_count + 1, content_bytes + size_bytes
            if content_bytes >= CONTENT_BYTES:
                return file_count, content_bytes
    return file_count, content_bytes


def make_ext4(tree: Path, file: Path) -> Input:
    """Returns an ext4 file system with the files of `tree`."""
    mke2fs = require_tool("mke2fs", "e2fsprogs")
    subprocess.run(
        [mke2fs, "-q", "-F", "-t", "ext4", "-L", "demo", "-d", tree, file, f"{EXT4_BYTES // 1024}k"],
        check=True,
        capture_output=True,
    )
    fsck = require_tool("e2fsck", "e2fsprogs")
    return Input("ext4", "file system", file, (fsck, "-fn"), "e2fsck")


def make_wim(tree: Path, file: Path) -> Input | None:
    """Returns a WIM with the files of `tree`, or None if wimtools is not installed."""
    wimlib = find_tool("wimlib-imagex")
    if wimlib is None:
        return None
    subprocess.run(
        [wimlib, "capture", tree, file, "Demo", "Files of this machine", "--compress=XPRESS", "--check", "--quiet"],
        check=True,
        capture_output=True,
    )
    return Input("wim", "Windows imaging file", file, (wimlib, "verify"), "wimlib")
