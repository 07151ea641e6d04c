"""What the file systems of Windows make of names, asked before the first file is copied."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath

from fleetcast_agent.sequence.errors import StepError

_WINDOWS = ("ntfs", "vfat", "exfat")
_FORBIDDEN = re.compile(r'[<>:"|?*\\\x00-\x1f]')
_DEVICE = re.compile(r"(CON|PRN|AUX|NUL|COM[1-9¹²³]|LPT[1-9¹²³])(\..*)?", re.IGNORECASE)
_LONGEST = 255
"""UTF-16 units of a name in Windows; bytes of one in Linux."""
_LARGEST_ON_FAT = (1 << 32) - 1


def refuse_if_impossible(files: Mapping[str, int], filesystem: str) -> None:
    """Does nothing if a file system, as blkid calls it, can hold the files; they are paths with their sizes in bytes.

    Raises:
        StepError: it cannot, or Windows could not use them; names them.
    """
    seen: dict[str, str] = {}
    for path, size_bytes in files.items():
        for part in PurePosixPath(path).parts:
            if part != "/" and (problem := _problem(part, filesystem)):
                raise StepError(f"{path!r} cannot be copied onto {filesystem}: {problem}; rename it")
        if filesystem not in _WINDOWS:
            continue
        other = seen.setdefault(_capitals(path), path)
        if other != path:
            raise StepError(
                f"{other!r} and {path!r} differ only in case, so they would be one file on {filesystem}: rename one"
            )
        if filesystem == "vfat" and size_bytes > _LARGEST_ON_FAT:
            raise StepError(f"{path!r} has 4 GiB or more, which FAT cannot hold: use a volume with NTFS")


def _capitals(path: str) -> str:
    """Returns the path as NTFS compares it: each character by itself, so that a sharp s is not two of them."""
    return "".join(capital if len(capital := character.upper()) == 1 else character for character in path)


def _problem(name: str, filesystem: str) -> str:
    if filesystem not in _WINDOWS:
        return f"{name!r} is longer than {_LONGEST} bytes" if len(name.encode(errors="replace")) > _LONGEST else ""
    try:
        name.encode()
    except UnicodeEncodeError:
        return "its name is no correct text (UTF-8)"
    if found := _FORBIDDEN.search(name):
        return f"Windows allows no {found[0]!r} in a name"
    if name not in (".", "..") and name[-1:] in (".", " "):
        return "Windows takes no name that ends with a dot or a space"
    if _DEVICE.fullmatch(name):
        return f"{name!r} is the name of a device in Windows"
    if len(name.encode("utf-16-le", errors="replace")) > 2 * _LONGEST:
        return f"a name in Windows has at most {_LONGEST} characters"
    return ""
