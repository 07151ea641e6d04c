"""What a WIM cannot hold of an NTFS volume, and what does not belong into one: looked for before it is made."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fleetcast_sequence.quantities import format_size

from fleetcast_agent.sequence.control import Control
from fleetcast_agent.sequence.errors import StepError
from fleetcast_agent.sequence.ntfs.file_records import NtfsVolume
from fleetcast_agent.sequence.ntfs.forms import ROOT_RECORD, STANDARD_INFORMATION, NtfsError, Record
from fleetcast_agent.sequence.saving.chosen import shown, tag_of
from fleetcast_agent.sequence.saving.reparse import LINKS, SYSTEM_COMPRESSED
from fleetcast_agent.sequence.slices import in_slices

_NOT_OF_AN_IMAGE = frozenset(
    {
        "pagefile.sys",
        "swapfile.sys",
        "hiberfil.sys",
        "system volume information",
        "$recycle.bin",
        "recycler",
        "$ntfs.log",
    }
)
"""What Windows keeps at the top of a volume for one machine; the tools of Windows leave it out as well."""
_ENCRYPTED = 0x4000
_SHOWN = 5
_MAX_DEPTH = 4096


@dataclass
class _Seen:
    encrypted: dict[str, int] = field(default_factory=dict)
    hidden: dict[str, int] = field(default_factory=dict)
    """What is behind reparse points, and its size in bytes."""


async def left_out(control: Control, disk: Path, start_bytes: int, exclude: list[str]) -> list[str]:
    """Returns which paths at the top of a volume are to be left out as well, as patterns of wimlib.

    Raises:
        StepError: there are files that would be missing from the image, and are not excluded.
    """
    seen = _Seen()
    try:
        with disk.open("rb") as file:
            records = NtfsVolume(file, start_bytes)
            top = records.record(ROOT_RECORD)
            names = [shown(name) for name in records.children(top)] if top is not None else []
            own = [f"/{name}" for name in names if name.lower() in _NOT_OF_AN_IMAGE]
            await in_slices(control, _looked(records, [*exclude, *own], seen))
    except NtfsError as error:
        raise StepError(f"the volume cannot be captured: {error}; let Windows check it (chkdsk)") from error
    if seen.encrypted:
        raise StepError(
            f"Windows has encrypted {_listed(seen.encrypted)} (EFS), which a WIM made outside of Windows cannot hold: "
            f"decrypt them in Windows, or leave them out with `exclude`"
        )
    if seen.hidden:
        raise StepError(
            f"a WIM would not hold {_listed(seen.hidden)}, because a service such as OneDrive or deduplication keeps "
            f"them behind reparse points: sign out of it and remove its folder before the capture, or leave them out "
            f"with `exclude`"
        )
    return own


def _looked(volume: NtfsVolume, exclude: list[str], seen: _Seen) -> Iterator[None]:
    for record in volume.records():
        yield
        size_bytes = sum(stream.size_bytes for stream in record.streams.values())
        if _is_encrypted(record):
            found = seen.encrypted
        elif _is_hidden(volume, record):
            found = seen.hidden
        else:
            continue
        path = _path(volume, record)
        if path is not None and not excludes(exclude, path):
            found[path] = size_bytes


def _is_encrypted(record: Record) -> bool:
    information = record.find(STANDARD_INFORMATION)
    flags = int.from_bytes(information.value[32:36], "little") if information and information.value else 0
    return bool(flags & _ENCRYPTED) or any(stream.encrypted for stream in record.streams.values())


def _is_hidden(volume: NtfsVolume, record: Record) -> bool:
    """Returns whether there is something behind a reparse point that wimlib takes for a mere link."""
    tag = tag_of(volume, record)
    if tag is None or tag in LINKS or tag == SYSTEM_COMPRESSED:
        return False
    main = record.streams.get("")
    return bool(volume.children(record)) if record.is_directory else bool(main and main.size_bytes)


def _path(volume: NtfsVolume, record: Record) -> str | None:
    """Returns the path of a file from the volume's top; None if it is one of NTFS itself."""
    names: list[str] = []
    for _ in range(_MAX_DEPTH):
        if record.number == ROOT_RECORD:
            return "/" + "/".join(reversed(names))
        name = next((name for name in record.names if not name.is_short), None)
        above = volume.record(name.parent) if name is not None else None
        if name is None or above is None:
            return None
        names.append(shown(name.name))
        record = above
    return None


def excludes(patterns: list[str], path: str) -> bool:
    """Returns whether wimlib leaves out a path by these patterns, which also leave out what is below a match."""
    parts = path.strip("/").split("/")
    for pattern in patterns:
        wanted = pattern.replace("\\", "/").strip("/").split("/")
        if pattern.startswith(("/", "\\")):
            if len(wanted) <= len(parts) and all(map(fnmatch.fnmatchcase, parts, wanted)):
                return True
        elif any(fnmatch.fnmatchcase(part, pattern) for part in parts):
            return True
    return False


def _listed(paths: dict[str, int]) -> str:
    names = [f"{path} ({format_size(size)})" for path, size in list(paths.items())[:_SHOWN]]
    more = f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else ""
    return ", ".join(names) + more
