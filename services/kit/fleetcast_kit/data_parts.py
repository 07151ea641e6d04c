"""What a data directory has had: the authority, databases, stored chunks. What is gone must not come back empty."""

from __future__ import annotations

import json
from pathlib import Path

from fleetcast_kit.errors import FailedPreconditionError
from fleetcast_kit.files import write_atomically

PARTS_FILE = "parts.json"

AUTHORITY, CATALOG, SCHEDULER, STORE = "authority", "catalog database", "scheduler database", "store"


class DataParts:
    """The parts that a data directory has had, by name, kept in a file of it.

    A directory of an earlier version has no such file: then what is there tells.
    """

    def __init__(self, directory: Path) -> None:
        self._file = directory / PARTS_FILE
        self._parts = self._read(directory)

    def way_out(self, part: str) -> str:
        """Returns how to begin without a part, as the end of a sentence, if the directory has had it; else nothing.

        Where it is not empty, the part must be there, and is not to be made anew.
        """
        if part not in self._parts:
            return ""
        return f'or, to begin without what was in it, take "{part}" out of {self._file} and start again'

    def note(self, *parts: str) -> None:
        """Keeps that the directory has these parts."""
        if not self._parts.issuperset(parts):
            self._parts.update(parts)
            self._write()

    def _read(self, directory: Path) -> set[str]:
        try:
            return set(map(str, json.loads(self._file.read_text())["parts"]))
        except FileNotFoundError:
            self._parts = _found_in(directory)
            if self._parts:
                self._write()
            return self._parts
        except (ValueError, KeyError, TypeError) as error:
            raise FailedPreconditionError(
                f'{self._file} is damaged: write {{"parts": []}} into it if nothing of the directory is missing',
                reason="DATA_DIRECTORY_DAMAGED",
            ) from error

    def _write(self) -> None:
        write_atomically(self._file, json.dumps({"parts": sorted(self._parts)}).encode() + b"\n")


def _found_in(directory: Path) -> set[str]:
    """Returns what a directory without the file must have had."""
    has_chunks = any((directory / "store" / "chunks").glob("*"))
    parts = {CATALOG, STORE} if has_chunks else set()
    if (directory / "administrator" / "server.json").exists():  # written at the end of a first start
        parts |= {AUTHORITY, SCHEDULER}
    elif (directory / "scheduler.db").exists():
        parts.add(AUTHORITY)
    return parts
