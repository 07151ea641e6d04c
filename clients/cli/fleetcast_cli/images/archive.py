"""The files of a directory, or the pieces of one file, sent as one tar archive."""

from __future__ import annotations

import os
import re
import tarfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from fleetcast_kit.errors import InvalidArgumentError

_FIRST_PIECE = re.compile(r"(?P<stem>.+)\.(?:aa|000|001)")
_PIECE = re.compile(r"\.(?:[a-z]{2}|\d{3})")
_SPLIT_WIM = re.compile(r"(?P<stem>.+?)(?P<number>\d*)\.swm", re.IGNORECASE)
_OF_AN_IMAGE = re.compile(
    r"parts|disk|.+-pt\.(sf|parted)|.+-img(\..+)?|d\d+\.(mbr|.*partitions)|d\d+p\d+\.img.*|(rec|sys)\.img.*|.+\.swm"
)
"""Files that an image of Clonezilla or FOG, or a split WIM, has: no other directory is sent."""


def files_of(path: Path) -> list[Path]:
    """Returns the files that belong together where `path` is a directory or the first piece of a file; else nothing.

    Raises:
        InvalidArgumentError: the directory cannot be read, or is not that of an image.
    """
    if path.is_dir():
        try:
            found = sorted(entry for entry in path.iterdir() if entry.is_file())
        except OSError as error:
            raise InvalidArgumentError(
                f"the directory {path} cannot be read: {error.strerror}", field="file"
            ) from error
        if not any(_OF_AN_IMAGE.fullmatch(entry.name) or _FIRST_PIECE.fullmatch(entry.name) for entry in found):
            raise InvalidArgumentError(
                f"{str(path)!r} is a directory, but not an image of Clonezilla or FOG: name such a one, or a file",
                field="file",
            )
        return found
    if not path.is_file():
        return []
    if first := _FIRST_PIECE.fullmatch(path.name):
        stem = first["stem"]
        beside = [each for each in path.parent.iterdir() if each.name.startswith(stem)]
        return sorted(each for each in beside if _PIECE.fullmatch(each.name.removeprefix(stem)))
    if part := _SPLIT_WIM.fullmatch(path.name):
        parts = [(each, match) for each in path.parent.iterdir() if (match := _SPLIT_WIM.fullmatch(each.name))]
        return sorted(each for each, match in parts if match["stem"] == part["stem"])
    return []


class Archive:
    """A tar archive that is written while it is read."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = files
        self._error: OSError | None = None
        self.descriptor, self._end = os.pipe()
        """Where the archive is read."""
        self._writer = threading.Thread(target=self._write, name="archive writer", daemon=True)
        self._writer.start()

    def check(self) -> None:
        """Returns if all files are in what was read to its end.

        Raises:
            OSError: one could not be read.
        """
        self._writer.join()
        if self._error is not None:
            raise self._error

    def _write(self) -> None:
        try:
            with os.fdopen(self._end, "wb") as pipe, tarfile.open(fileobj=pipe, mode="w|") as tar:
                for file in self._files:
                    tar.add(file.resolve(), arcname=file.name)
        except OSError as error:
            self._error = error


@contextmanager
def archived(files: Sequence[Path]) -> Iterator[Archive]:
    """Yields the archive of some files; its writer ends with the block."""
    archive = Archive(files)
    try:
        yield archive
    finally:
        os.close(archive.descriptor)
