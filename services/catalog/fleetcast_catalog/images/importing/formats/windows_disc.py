"""ISO discs with Windows' setup files: the WIM or ESD in them, taken out by 7-Zip, which reads ISO 9660 and UDF."""

from __future__ import annotations

import re
import threading
from contextlib import suppress
from pathlib import Path, PurePosixPath

from fleetcast_kit.errors import FailedPreconditionError

from fleetcast_catalog.images.domain import corrupt, unsupported
from fleetcast_catalog.images.importing.tools import run, tool

_WANTED = re.compile(r"(?:x64/|x86/)?sources/install\.(?:wim|esd|swm)", re.IGNORECASE)
_PART = re.compile(r"(?:x64/|x86/)?sources/install\d*\.swm", re.IGNORECASE)


def require_tool() -> str:
    """Returns the path of 7-Zip.

    Raises:
        FailedPreconditionError: it is not installed.
    """
    with suppress(FailedPreconditionError):
        return tool("7zz", package="7zip", purpose="ISO discs")
    return tool("7z", package="7zip", purpose="ISO discs")


def extract(disc: Path, directory: Path, interrupted: threading.Event) -> list[Path]:
    """Returns the files of the Windows image on a disc, taken out into `directory`: one WIM or ESD, or split parts.

    Raises:
        ImageFileError: there is none, there are several, or the disc is damaged.
    """
    program = require_tool()
    listed = run([program, "l", "-slt", "-ba", disc], interrupted)
    if listed.code != 0:
        raise corrupt(f"7-Zip cannot read the disc ({listed.last_line})")
    lines = listed.output.splitlines()
    paths = [line.removeprefix("Path = ") for line in lines if line.startswith("Path = ")]
    found = sorted(path for path in paths if _WANTED.fullmatch(path))
    if not found:
        raise unsupported(
            "is a disc without sources/install.wim, install.esd or install.swm: import the disk image or WIM that you "
            "want; or give the format raw to take the disc byte for byte"
        )
    if len(found) > 1:
        raise unsupported(
            f"is a disc with several Windows images ({', '.join(found)}): take out the one that you want, and import it"
        )
    wanted = [path for path in paths if _PART.fullmatch(path)] if found[0].lower().endswith(".swm") else found
    taken = run([program, "e", "-y", "-bd", f"-o{directory}", disc, *wanted], interrupted)
    if taken.code != 0:
        raise corrupt(f"7-Zip cannot read {found[0]} on the disc ({taken.last_line})")
    return [directory / PurePosixPath(path).name for path in wanted]
