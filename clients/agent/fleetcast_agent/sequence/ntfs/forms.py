"""The forms in which NTFS writes down what it knows. No I/O."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

STANDARD_INFORMATION, ATTRIBUTE_LIST, FILE_NAME, SECURITY_DESCRIPTOR = 0x10, 0x20, 0x30, 0x50
DATA, INDEX_ROOT, INDEX_ALLOCATION, BITMAP, REPARSE_POINT, EXTENDED_ATTRIBUTES = 0x80, 0x90, 0xA0, 0xB0, 0xC0, 0xE0
"""Types of attributes, as in the records."""
VOLUME_RECORD, ROOT_RECORD, SECURE_RECORD = 3, 5, 9
"""Records of the volume itself, of the directory at its top, of all security descriptors."""
FIRST_USER_RECORD = 24
"""Records before this one belong to NTFS itself; only the top directory among them is anybody's."""
COMPRESSED, _ENCRYPTED = 0x00FF, 0x4000
"""Flags of an attribute."""
VOLUME_INFORMATION = 0x70
FIXUP_BYTES = 512
"""Every so many bytes of a record or index block the last two are kept apart, whatever the disk's sector size."""
_SDS_BLOCK_BYTES = 1 << 18
"""Security descriptors lie in blocks of this size, each followed by a copy of itself."""
READ_BYTES = 1 << 20


class NtfsError(ValueError):
    """The records contradict themselves: the file system is damaged."""


@dataclass(frozen=True)
class ClusterRun:
    """Bytes of a stream that lie together on the volume."""

    offset_bytes: int
    """In the stream."""
    size_bytes: int
    place_bytes: int
    """On the volume."""


@dataclass
class Attribute:
    """An attribute of a file, such as one of its streams."""

    type: int
    name: str
    flags: int
    size_bytes: int = 0
    value: bytes | None = None
    """Its value, if the record itself holds it."""
    runs: list[ClusterRun] = field(default_factory=list)
    """Where the rest of it lies, in order; what no run covers reads as zeros."""
    initialized_bytes: int = 0
    """What lies behind this many bytes reads as zeros."""
    unit_bytes: int = 0
    """If it is compressed: what is compressed together."""

    @property
    def encrypted(self) -> bool:
        """True if EFS encrypted it."""
        return bool(self.flags & _ENCRYPTED)

    @property
    def stored_bytes(self) -> int:
        """How much of it is more than zeros that were never written."""
        if self.value is not None:
            return len(self.value)
        used = (min(run.offset_bytes + run.size_bytes, self.initialized_bytes) - run.offset_bytes for run in self.runs)
        return sum(max(size, 0) for size in used)


@dataclass(frozen=True)
class FileName:
    """A name of a file in one directory."""

    parent: int
    name: str
    is_short: bool
    """It is the name in the form 8.3 beside a longer one."""


@dataclass
class Record:
    """A file or directory."""

    number: int
    is_directory: bool
    attributes: list[Attribute]

    def find(self, kind: int, name: str = "") -> Attribute | None:
        """Returns the attribute of that type and name; None if there is none."""
        return next((item for item in self.attributes if item.type == kind and item.name == name), None)

    @property
    def streams(self) -> dict[str, Attribute]:
        """What the file holds, by the streams' names; the main one has none."""
        return {item.name: item for item in self.attributes if item.type == DATA}

    @property
    def names(self) -> list[FileName]:
        """Its names; more than one if it has hard links."""
        values = (item.value for item in self.attributes if item.type == FILE_NAME)
        return [file_name(value) for value in values if value is not None]


def places(attribute: Attribute) -> Iterator[int]:
    """Yields where the parts of 1 MiB begin in which anything was ever written."""
    if attribute.value is not None:
        yield from range(0, len(attribute.value), READ_BYTES)
    last = -1
    for run in attribute.runs:
        end = min(run.offset_bytes + run.size_bytes, attribute.initialized_bytes, attribute.size_bytes)
        for place in range(run.offset_bytes // READ_BYTES * READ_BYTES, end, READ_BYTES):
            if place > last:
                last = place
                yield place


def mended(raw: bytes, magic: bytes) -> bytes:
    """Returns a record or index block with the bytes in their places that NTFS keeps apart as a check."""
    at, count = struct.unpack_from("<HH", raw, 4)
    if raw[:4] != magic or not count or at + 2 * count > len(raw):
        raise NtfsError("a record of a file is damaged")
    mended = bytearray(raw)
    for index in range(1, count):
        end = index * FIXUP_BYTES
        if end > len(raw) or raw[end - 2 : end] != raw[at : at + 2]:
            raise NtfsError("a record of a file was written by half")
        mended[end - 2 : end] = raw[at + 2 * index : at + 2 * index + 2]
    return bytes(mended)


def file_name(value: bytes) -> FileName:
    """Returns what an attribute or index entry says of a name."""
    parent = int.from_bytes(value[:6], "little")
    return FileName(parent, value[66 : 66 + 2 * value[64]].decode("utf-16-le", "surrogatepass"), value[65] == 2)


def listed(value: bytes) -> Iterator[int]:
    """Yields the records that an attribute list leads to."""
    at = 0
    while at + 26 <= len(value):
        (length,) = struct.unpack_from("<H", value, at + 4)
        yield int.from_bytes(value[at + 16 : at + 22], "little")
        if length < 26:
            raise NtfsError("a list of attributes is damaged")
        at += length


def entries(block: bytes, header_at: int, found: dict[str, int]) -> None:
    """Adds the names that a node of a directory's index holds."""
    (first,) = struct.unpack_from("<I", block, header_at)
    at = header_at + first
    while at + 16 <= len(block):
        reference, length, key_length, flags = struct.unpack_from("<QHHH", block, at)
        if flags & 2:
            return
        if length < 16:
            break
        if key_length >= 66:
            name = file_name(block[at + 16 : at + 16 + key_length])
            if not name.is_short:
                found[name.name] = reference & ((1 << 48) - 1)
        at += length
    raise NtfsError("the index of a directory is damaged")


def descriptors(content: bytes) -> dict[int, tuple[int, int]]:
    """Returns where the security descriptor of each number lies in the stream that holds them all, and its size."""
    found = {}
    for block in range(0, len(content), 2 * _SDS_BLOCK_BYTES):
        at = block
        while at + 20 <= min(block + _SDS_BLOCK_BYTES, len(content)):
            _, number, offset, size = struct.unpack_from("<IIQI", content, at)
            if size < 20 or offset != at:
                break
            found[number] = (at + 20, size - 20)
            at += (size + 15) & ~15
    return found
