"""The durable record of a run: an append-only file, every record on disk before anything is done because of it."""

from __future__ import annotations

import fcntl
import os
import threading
import zlib
from pathlib import Path

from fleetcast_kit.files import sync_directory
from pydantic import ValidationError

from fleetcast_agent.sequence.engine.records import RECORD, Record
from fleetcast_agent.sequence.errors import RunJournalError


class RunJournal:
    """An open journal. Each line is the CRC-32 of a record (8 hexadecimal digits), a space, and the record as JSON.

    A last line that is not whole was being written when the machine died. It is dropped: nothing came of it.
    """

    def __init__(self, path: Path) -> None:
        """Opens the journal at `path`, or makes it.

        Raises:
            RunJournalError: a line before the last one is damaged, or another process has it open.
        """
        self._path = path
        self._writing = threading.Lock()
        new = not path.exists()
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._descriptor)
            raise RunJournalError(f"{path} is in use: another agent runs this task sequence") from error
        try:
            self.records: list[Record] = self._read()
        except BaseException:
            os.close(self._descriptor)
            raise
        if new:
            sync_directory(path.parent)

    def append(self, record: Record) -> None:
        """Puts `record` at the end. It is on disk when this returns. May be called from several threads."""
        line = _line(record)
        with self._writing:
            written = 0
            while written < len(line):
                written += os.write(self._descriptor, line[written:])
            os.fdatasync(self._descriptor)
            self.records.append(record)

    def close(self) -> None:
        """Closes the file; another process may open it."""
        os.close(self._descriptor)

    def _read(self) -> list[Record]:
        with open(self._descriptor, "rb", closefd=False) as file:
            content = file.read()
        records: list[Record] = []
        whole = 0
        lines = content.splitlines(keepends=True)
        for number, line in enumerate(lines, 1):
            record = _record(line)
            if record is None:
                if number < len(lines):
                    raise RunJournalError(f"{self._path}: line {number} is damaged; start the task sequence anew")
                break
            records.append(record)
            whole += len(line)
        os.ftruncate(self._descriptor, whole)
        os.lseek(self._descriptor, whole, os.SEEK_SET)
        return records


def _line(record: Record) -> bytes:
    content = RECORD.dump_json(record, exclude_defaults=False)
    return b"%08x %s\n" % (zlib.crc32(content), content)


def _record(line: bytes) -> Record | None:
    if not line.endswith(b"\n") or line[8:9] != b" ":
        return None
    content = line[9:-1]
    if line[:8] != b"%08x" % zlib.crc32(content):
        return None
    try:
        return RECORD.validate_json(content)
    except ValidationError:
        return None
