"""The files of a directory that is imported: on the server, or uploaded as a tar archive; and files in pieces."""

from __future__ import annotations

import os
import re
import tarfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, cast

from fleetcast_catalog.images.domain import corrupt, truncated, unsupported
from fleetcast_catalog.images.importing.sources import ImportInterruptedError, Source

MAX_FILES = 4096
_COPY_BYTES = 1 << 20
_PIECE = re.compile(r"(?P<stem>.+)\.(?P<piece>[a-z]{2}|\d{3})")
_FIRST_PIECES = {"aa", "000", "001"}

FileSet = Mapping[str, Path]
"""The files of a directory, by name."""


def files_in(directory: Path) -> FileSet:
    """Returns the regular files of a directory, without those of directories in it.

    Raises:
        ImageFileError: there are none, or more than any image has.
    """
    found = {entry.name: Path(entry.path) for entry in os.scandir(directory) if entry.is_file()}
    if not found:
        raise unsupported("is a directory without files: name the directory that holds the image's files")
    if len(found) > MAX_FILES:
        raise unsupported(f"is a directory with {len(found)} files: an image has at most {MAX_FILES}")
    return found


def unpack(archive: Source, directory: Path, interrupted: threading.Event) -> None:
    """Writes the files of a tar archive, which an upload of a directory is, into a new directory. Blocks.

    Raises:
        ImageFileError: it is damaged, or holds anything but files.
        ImportInterruptedError: `interrupted` was set.
    """
    directory.mkdir()
    try:
        with tarfile.open(fileobj=cast("IO[bytes]", archive), mode="r|") as packed:
            for count, member in enumerate(packed, 1):
                name = PurePosixPath(member.name).name
                content = packed.extractfile(member) if member.isreg() else None
                if content is None or not name or count > MAX_FILES:
                    raise unsupported("is not the archive of a directory with files only")
                with (directory / name).open("xb") as file:
                    while data := content.read(_COPY_BYTES):
                        if interrupted.is_set():
                            raise ImportInterruptedError
                        file.write(data)
    except tarfile.TarError as error:
        raise truncated(f"the files of the directory did not all arrive ({error})") from error
    except FileExistsError as error:
        raise corrupt(f"it holds the file {Path(error.filename).name} twice") from error


def pieces(files: FileSet, stem: str) -> list[Path]:
    """Returns the file `stem`, or its pieces `stem.aa`, `stem.ab` or `stem.000`, `stem.001` in order; empty if none is.

    Raises:
        ImageFileError: a piece is missing.
    """
    if stem in files:
        return [files[stem]]
    found = sorted(match["piece"] for name in files if (match := _PIECE.fullmatch(name)) and match["stem"] == stem)
    if not found:
        return []
    if found[0] not in _FIRST_PIECES:
        raise truncated(f"the first piece of {stem} is missing: there is .{found[0]}")
    for piece, wanted in zip(found, _names_from(found[0]), strict=False):
        if piece != wanted:
            raise truncated(f"the piece {stem}.{wanted} is missing")
    return [files[f"{stem}.{piece}"] for piece in found]


def whole_in_pieces(files: FileSet) -> str | None:
    """Returns the name without its ending of the one file of which all `files` are pieces; None if they are not."""
    found = [match for name in files if (match := _PIECE.fullmatch(name))]
    stems = {match["stem"] for match in found}
    is_split = len(found) == len(files) and len(stems) == 1 and {match["piece"] for match in found} & _FIRST_PIECES
    return stems.pop() if is_split else None


def _names_from(first: str) -> Iterator[str]:
    if first.isdigit():
        yield from (f"{number:03}" for number in range(int(first), 1000))
        return
    letters = [chr(number) for number in range(ord("a"), ord("z") + 1)]
    yield from (one + other for one in letters for other in letters)


class PiecesSource(Source):
    """Files, one after the other, as one."""

    def __init__(self, paths: Sequence[Path]) -> None:
        super().__init__()
        self._waiting = list(paths)
        self._file: IO[bytes] | None = None
        self.size_bytes = sum(path.stat().st_size for path in paths)

    def close(self) -> None:
        """Closes the file that is being read."""
        if self._file is not None:
            self._file.close()

    def _read(self, buffer: memoryview) -> int:
        while True:
            if self._file is None:
                if not self._waiting:
                    return 0
                self._file = self._waiting.pop(0).open("rb", buffering=0)
            count = cast("int", self._file.readinto(buffer))  # type: ignore[attr-defined]  # a raw file has it
            if count:
                return count
            self._file.close()
            self._file = None
