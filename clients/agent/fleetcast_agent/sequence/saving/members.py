"""Members of an archive for files that a mount hides or shows in part: written from the volume's records, proven."""

from __future__ import annotations

import itertools
import os
import struct
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from fleetcast_agent.sequence.errors import StepError
from fleetcast_agent.sequence.ntfs.file_records import NtfsVolume
from fleetcast_agent.sequence.ntfs.forms import DATA, STANDARD_INFORMATION, Attribute, Record
from fleetcast_agent.sequence.saving.chosen import Found
from fleetcast_agent.sequence.saving.ntfs_facts import STREAMS, named

_BLOCK = tarfile.BLOCKSIZE
_SCAN_BYTES = 1 << 16
_WINDOWS_EPOCH_SECONDS = 11_644_473_600
"""From 1601 to 1970."""
_EMPTY = Attribute(DATA, "", 0, value=b"")


@dataclass(frozen=True)
class _Written:
    """A member that holds a stream."""

    place_bytes: int
    """Where its first part begins in the archive; the others follow without a gap."""
    attribute: Attribute
    path: str


def append(archive: Path, volume: NtfsVolume, files: list[Found]) -> Iterator[None]:
    """Adds the files to a tar that ends with a member whose last byte is not zero, then compares them with the volume.

    Streams but the main one become members of the directory `STREAMS`. What reads as zeros in a stream stays a hole
    (the sparse format 1.0 of GNU tar).

    Raises:
        StepError: what is in the archive is not what is on the volume, or a name cannot be in a tar.
    """
    first_names: dict[int, str] = {}
    with archive.open("r+b") as file:
        file.seek(_end(file))
        writer = _Writer(file, volume)
        for found in files:
            record, path = found.record, found.path
            info = _info(record, path)
            if record.is_directory:
                info.type = tarfile.DIRTYPE
                file.write(_header(info))
            elif (first := first_names.setdefault(record.number, path)) != path:
                info.type, info.linkname = tarfile.LNKTYPE, first
                file.write(_header(info))
                continue
            else:
                yield from writer.stream(record, "", info)
            for name in named(record):
                yield from writer.stream(record, name, _info(record, f"{STREAMS}/{path}:{name}"))
            yield
        file.write(bytes(2 * _BLOCK))
        file.truncate()
        file.flush()
        os.fsync(file.fileno())
        yield from writer.proven()


def _end(file: BinaryIO) -> int:
    """Returns where the last member of a tar ends, if its content does not end with zeros."""
    at = file.seek(0, os.SEEK_END)
    while at > 0:
        begin = max(at - _SCAN_BYTES, 0)
        file.seek(begin)
        if used := len(file.read(at - begin).rstrip(b"\0")):
            return -(-(begin + used) // _BLOCK) * _BLOCK
        at = begin
    return 0


def _info(record: Record, path: str) -> tarfile.TarInfo:
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise StepError(f"the name of {os.fsencode(path)!r} is no correct text, so it cannot be saved") from error
    info = tarfile.TarInfo(path)
    info.mode = 0o777
    information = record.find(STANDARD_INFORMATION)
    if information is not None and information.value is not None:
        written = struct.unpack_from("<Q", information.value, 8)[0]
        seconds, rest = divmod(written - _WINDOWS_EPOCH_SECONDS * 10_000_000, 10_000_000)
        info.pax_headers = {"mtime": f"{seconds}.{rest:07}"}
    return info


def _header(info: tarfile.TarInfo) -> bytes:
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


class _Writer:
    """Writes streams into an archive, and reads them back."""

    def __init__(self, file: BinaryIO, volume: NtfsVolume) -> None:
        self._file = file
        self._volume = volume
        self._written: list[_Written] = []

    def stream(self, record: Record, name: str, info: tarfile.TarInfo) -> Iterator[None]:
        file, attribute = self._file, record.find(DATA, name) or _EMPTY
        parts = [(place, len(block)) for place, block in self._volume.blocks(attribute)]
        path, info.size, listed = info.name, sum(size for _, size in parts), b""
        if info.size < attribute.size_bytes:
            parts.append((attribute.size_bytes, 0))
            listed = "".join(f"{number}\n" for number in (len(parts), *itertools.chain(*parts))).encode()
            listed += bytes(-len(listed) % _BLOCK)
            info.size += len(listed)
            sparse = {"major": "1", "minor": "0", "name": path, "realsize": str(attribute.size_bytes)}
            info.pax_headers = {**info.pax_headers, **{f"GNU.sparse.{key}": value for key, value in sparse.items()}}
            directory, _, base = path.rpartition("/")
            info.name = f"{directory}/GNUSparseFile.0/{base}"
        file.write(_header(info) + listed)
        self._written.append(_Written(file.tell(), attribute, path))
        for _, block in self._volume.blocks(attribute):
            file.write(block)
            yield
        file.write(bytes(-info.size % _BLOCK))

    def proven(self) -> Iterator[None]:
        for member in self._written:
            self._file.seek(member.place_bytes)
            for _, block in self._volume.blocks(member.attribute):
                if self._file.read(len(block)) != block:
                    raise StepError(f"the copy of /{member.path} is not what is on the volume")
                yield
