"""Which files of a volume are to be saved: found by patterns, with everything below them."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from fleetcast_sequence.steps.content import CaptureUserState

from fleetcast_agent.sequence.ntfs.file_records import NtfsVolume
from fleetcast_agent.sequence.ntfs.forms import FIRST_USER_RECORD, REPARSE_POINT, ROOT_RECORD, NtfsError, Record


@dataclass(frozen=True)
class Found:
    """A file or directory of a volume."""

    path: str
    """From the volume's top, with `/`; empty for the top itself."""
    is_directory: bool
    behind: bool = False
    """A mount does not lead there: a directory above it is a reparse point."""
    record: Record = field(default_factory=lambda: Record(0, False, []))
    """Its record; an empty one where the file system has none."""


class Tree(Protocol):
    """The files of a volume."""

    ignore_case: bool
    """Names that differ only in case are the same."""

    def top(self) -> Found:
        """Returns the volume's top."""
        ...

    def children(self, directory: Found) -> Iterator[Found]:
        """Yields what is in a directory.

        Raises:
            OSError: it cannot be read.
        """
        ...


class MountedTree:
    """The files of a mounted volume, of whose file system a mount shows everything."""

    ignore_case = False

    def __init__(self, root: Path) -> None:
        """Takes the mount point."""
        self._root = root

    def top(self) -> Found:
        """Returns the mount point."""
        return Found("", True)

    def children(self, directory: Found) -> Iterator[Found]:
        """Yields what is in a directory."""
        with os.scandir(self._root / directory.path) as entries:
            for entry in entries:
                yield Found(os.path.join(directory.path, entry.name), entry.is_dir(follow_symlinks=False))


class NtfsTree:
    """The files of an NTFS volume by its own records, also what a mount hides."""

    ignore_case = True

    def __init__(self, volume: NtfsVolume, links: frozenset[int]) -> None:
        """Takes the volume, and the tags of the reparse points that are links, behind which nothing is looked for."""
        self._volume = volume
        self._links = links

    def top(self) -> Found:
        """Returns the volume's top."""
        record = self._volume.record(ROOT_RECORD)
        if record is None:
            raise NtfsError("the directory at its top is damaged")
        return Found("", True, record=record)

    def children(self, directory: Found) -> Iterator[Found]:
        """Yields what is in a directory."""
        behind = directory.behind or tag_of(self._volume, directory.record) is not None
        for name, number in self._volume.children(directory.record).items():
            if number < FIRST_USER_RECORD:
                continue
            path = os.path.join(directory.path, shown(name))
            record = self._volume.record(number)
            if record is None:
                raise NtfsError(f"{path} is in a directory, but there is no such file")
            descends = record.is_directory and tag_of(self._volume, record) not in self._links
            yield Found(path, descends, behind, record)


def tag_of(volume: NtfsVolume, record: Record) -> int | None:
    """Returns what kind of reparse point a file is; None if it is none."""
    attribute = record.find(REPARSE_POINT)
    return int.from_bytes(volume.part(attribute, 0, 4), "little") if attribute is not None else None


def shown(name: str) -> str:
    """Returns a name on NTFS as a path of Python, which holds the bytes that a mount shows."""
    return os.fsdecode(name.encode("utf-8", "surrogatepass"))


def chosen(tree: Tree, arguments: CaptureUserState) -> Iterator[Found]:
    """Yields what the step's patterns choose and what is below it, once, directories before what is in them.

    Raises:
        OSError: a directory cannot be read: nobody knows what is in it.
        NtfsError: the records are damaged.
    """
    left_out = [pattern.strip("/") for pattern in arguments.exclude]
    if tree.ignore_case:
        left_out = [pattern.lower() for pattern in left_out]
    if arguments.store is not None:
        left_out.append(_folded(tree, arguments.store.strip("/")).replace("[", "[[]"))
    seen: set[str] = set()
    for pattern in arguments.paths:
        for found in _matching(tree, tree.top(), pattern.strip("/").split("/"), left_out):
            for item in _with_below(tree, found, left_out):
                if item.path not in seen:
                    seen.add(item.path)
                    yield item


def _matching(tree: Tree, directory: Found, parts: list[str], left_out: list[str]) -> Iterator[Found]:
    for child in sorted(tree.children(directory), key=lambda found: found.path):
        name = child.path.rpartition("/")[2]
        if not fnmatch.fnmatchcase(_folded(tree, name), _folded(tree, parts[0])) or _is_left_out(tree, child, left_out):
            continue
        if len(parts) == 1:
            yield child
        elif child.is_directory:
            yield from _matching(tree, child, parts[1:], left_out)


def _with_below(tree: Tree, found: Found, left_out: list[str]) -> Iterator[Found]:
    waiting = [found]
    while waiting:
        item = waiting.pop()
        yield item
        if item.is_directory:
            below = sorted(tree.children(item), key=lambda child: child.path, reverse=True)
            waiting += [child for child in below if not _is_left_out(tree, child, left_out)]


def _is_left_out(tree: Tree, found: Found, patterns: list[str]) -> bool:
    path = _folded(tree, found.path)
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)


def _folded(tree: Tree, text: str) -> str:
    return text.lower() if tree.ignore_case else text
