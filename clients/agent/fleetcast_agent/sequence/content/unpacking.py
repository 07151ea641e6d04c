"""Archives as people make them, unpacked below one directory or refused in one sentence."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from fleetcast_sequence.quantities import format_size

from fleetcast_agent.sequence.errors import StepError

if not hasattr(tarfile, "data_filter"):  # as in Debian 12: it would unpack to anywhere
    from backports import tarfile  # type: ignore[no-redef]

MAX_MEMBERS = 1_000_000
"""Of an archive: a thousand times as many as a driver package has."""
_COPY_BYTES = 1 << 20
_HEAD_BYTES = 512
_ENCRYPTED = 0x1
_MADE_BY_UNIX = 3
_COMPRESSIONS = {9: "Deflate64, as Windows Explorer does above 2 GiB", 93: "Zstandard", 98: "PPMd", 99: "AES"}
_ERRORS = (
    tarfile.TarError,
    zipfile.BadZipFile,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    gzip.BadGzipFile,
)
_MAGIC = (
    (b"MSCF", "a cabinet"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"Rar!", "a RAR archive"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "a Windows Installer package (MSI)"),
    (b"MZ", "a Windows program (EXE)"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard file"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"PK\x05\x06", "a ZIP archive"),
)
_COMPRESSED: Mapping[bytes, Callable[[Path], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
}
CABINET = "a cabinet"


def kind_of(path: Path) -> str:
    """Returns what a file is by how it begins, with its article, such as `a cabinet`; empty if that is not known here.

    Raises:
        StepError: it is an archive that ends too early.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            if kind == "a ZIP archive" and not zipfile.is_zipfile(path):
                raise StepError("it is a ZIP archive whose end is missing: it was not copied as a whole")
            return kind
    if head.lstrip()[:14].lower().startswith((b"<!doctype html", b"<html")):
        return "a page of HTML, as a web server sends in the place of a file that it does not give out"
    try:
        if tarfile.is_tarfile(path):
            return "a tar archive"
    except _ERRORS:
        pass
    for magic, opened in _COMPRESSED.items():
        if head.startswith(magic):
            try:
                with opened(path) as compressed:
                    compressed.read(_COPY_BYTES)
            except (*_ERRORS, OSError) as error:
                raise StepError(f"it is a compressed file that is damaged: {error}") from error
    return ""


def is_archive(kind: str) -> bool:
    """Returns whether `unpacked` takes what `kind_of` calls so."""
    return kind in ("a tar archive", "a ZIP archive")


def unpacked(archive: Path, target: Path) -> Iterator[None]:
    """Unpacks a tar or ZIP archive into the new directory `target`.

    Raises:
        StepError: it is damaged, encrypted, too large for the place, or leads outside of the directory.
    """
    target.mkdir()
    status = os.statvfs(target)
    room = _Room(status.f_bavail * status.f_frsize)
    try:
        if tarfile.is_tarfile(archive):
            yield from _tar(archive, target, room)
        else:
            yield from _zip(archive, target, room)
    except _ERRORS as error:
        raise StepError(f"it is damaged: {_plain(error)}") from error
    except OSError as error:
        raise StepError(f"it cannot be unpacked: {error.strerror or error}") from error


class _Room:
    """How much may still be unpacked."""

    def __init__(self, free_bytes: int) -> None:
        self._free_bytes = free_bytes
        self._used_bytes = 0
        self._members = 0

    def take(self, size_bytes: int) -> None:
        self._used_bytes += size_bytes
        self._members += 1
        if self._members > MAX_MEMBERS:
            raise StepError(f"it has more than {MAX_MEMBERS:,} members")
        if self._used_bytes > self._free_bytes:
            raise StepError(
                f"it would unpack to more than {format_size(self._used_bytes)}, and there is room for "
                f"{format_size(self._free_bytes)}"
            )


def _tar(archive: Path, target: Path, room: _Room) -> Iterator[None]:
    with tarfile.open(archive) as tar:
        for member in tar:
            _checked(member.name)
            room.take(member.size)
            try:
                tar.extract(member, target, filter="data")
            except tarfile.FilterError as error:
                raise StepError(f"{member.name!r} in it {_why(error)}") from error
            yield
        file = tar.fileobj
        if file is not None:
            file.seek(tar.offset)  # a tar ends with zeros: one that was cut off between two members does not
            if len(file.read(tarfile.BLOCKSIZE)) < tarfile.BLOCKSIZE:
                raise StepError("its end is missing: it was not copied as a whole")


def _why(error: tarfile.FilterError) -> str:
    if isinstance(error, tarfile.SpecialFileError):
        return "is a device or a pipe, which no package needs"
    return "leads outside of the package"


def _zip(archive: Path, target: Path, room: _Room) -> Iterator[None]:
    with zipfile.ZipFile(archive) as zipped:
        seen: set[str] = set()
        entries = zipped.infolist()
        for entry in entries:
            if entry.flag_bits & _ENCRYPTED:
                raise StepError(f"{entry.filename!r} in it is encrypted with a password: pack it without one")
            if entry.compress_type in _COMPRESSIONS:
                how = _COMPRESSIONS[entry.compress_type]
                raise StepError(f"{entry.filename!r} in it is packed by {how}: pack it again with Deflate")
        for entry in entries:
            # Windows PowerShell 5.1 and many tools of vendors write the separators of Windows.
            name = entry.filename if entry.create_system == _MADE_BY_UNIX else entry.filename.replace("\\", "/")
            place = target / _checked(name)
            if name.endswith("/"):
                place.mkdir(parents=True, exist_ok=True)
                continue
            if str(place) in seen:
                raise StepError(f"{name!r} is in it twice")
            seen.add(str(place))
            room.take(entry.file_size)
            place.parent.mkdir(parents=True, exist_ok=True)
            with zipped.open(entry) as source, place.open("wb") as file:
                while block := source.read(_COPY_BYTES):
                    file.write(block)
                    yield
            mode = entry.external_attr >> 16
            if entry.create_system == _MADE_BY_UNIX and stat.S_ISREG(mode):
                place.chmod(0o600 | stat.S_IMODE(mode) & 0o777)
            yield


def _checked(name: str) -> str:
    """Returns the name of a member if it stays inside its package."""
    parts = PurePosixPath(name).parts
    if not parts and name in (".", "./"):
        return name
    if not parts or parts[0] == "/" or ".." in parts or parts[0][1:2] == ":":
        raise StepError(f"{name!r} in it leads outside of the package")
    return name


def _plain(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
