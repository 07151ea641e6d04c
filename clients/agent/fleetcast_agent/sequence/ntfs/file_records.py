"""The records of an NTFS volume: one for each file, with all its names, streams and attributes. Nothing is written."""

from __future__ import annotations

import bisect
import functools
import os
import struct
from collections.abc import Callable, Iterator
from typing import BinaryIO, Concatenate, ParamSpec, TypeVar

from fleetcast_agent.sequence.ntfs.compression import decompress
from fleetcast_agent.sequence.ntfs.forms import (
    ATTRIBUTE_LIST,
    BITMAP,
    COMPRESSED,
    DATA,
    FIRST_USER_RECORD,
    FIXUP_BYTES,
    INDEX_ALLOCATION,
    INDEX_ROOT,
    READ_BYTES,
    SECURE_RECORD,
    SECURITY_DESCRIPTOR,
    STANDARD_INFORMATION,
    VOLUME_INFORMATION,
    VOLUME_RECORD,
    Attribute,
    ClusterRun,
    NtfsError,
    Record,
    descriptors,
    entries,
    listed,
    mended,
    places,
)

_MAX_RECORD_BYTES = 1 << 16
_MAX_CONTENT_BYTES = 1 << 28
"""Of an attribute that is read as a whole; the largest are the security descriptors of a volume, some MiB."""
_P = ParamSpec("_P")
_R = TypeVar("_R")


def _or_damaged(read: Callable[Concatenate[NtfsVolume, _P], _R]) -> Callable[Concatenate[NtfsVolume, _P], _R]:
    """Makes what damaged records lead to, such as a place behind their end, the one error that callers know."""

    @functools.wraps(read)
    def reading(self: NtfsVolume, /, *arguments: _P.args, **named: _P.kwargs) -> _R:
        try:
            return read(self, *arguments, **named)
        except (struct.error, IndexError, UnicodeDecodeError, OverflowError) as error:
            raise NtfsError("a record of a file is damaged") from error

    return reading


class NtfsVolume:
    """An NTFS volume. Not for several threads at once."""

    def __init__(self, file: BinaryIO, start_bytes: int = 0) -> None:
        """Takes the disk, device or file, which stays the caller's, and where on it the volume begins.

        Raises:
            NtfsError: there is no NTFS.
        """
        self._file = file
        self._start_bytes = start_bytes
        boot = self._read(0, 512)
        if boot[3:11] != b"NTFS    ":
            raise NtfsError("there is no NTFS")
        sector_bytes, clusters = struct.unpack_from("<HB", boot, 11)
        # [NTFS boot sector] more than 128 sectors to a cluster are written as a negative power of two.
        self.cluster_bytes: int = sector_bytes * (clusters if clusters <= 0x80 else 1 << (256 - clusters))
        (mft_cluster,) = struct.unpack_from("<Q", boot, 48)
        (record_clusters,) = struct.unpack_from("<b", boot, 64)
        self._record_bytes: int = record_clusters * self.cluster_bytes if record_clusters > 0 else 1 << -record_clusters
        if not self.cluster_bytes or not FIXUP_BYTES <= self._record_bytes <= _MAX_RECORD_BYTES:
            raise NtfsError("its boot sector is damaged")
        first = ClusterRun(0, self._record_bytes, mft_cluster * self.cluster_bytes)
        self._table = Attribute(DATA, "", 0, self._record_bytes, None, [first], self._record_bytes)
        # The table lists itself, and the list may itself be spread over records that only a part of it leads to.
        for _ in range(2):
            table = self.record(0)
            if table is None or (found := table.find(DATA)) is None:
                raise NtfsError("its table of files is damaged")
            self._table = found
        self._descriptors: dict[int, tuple[int, int]] | None = None

    @property
    def record_count(self) -> int:
        """How many records there are, those in use and others."""
        stored = sum(run.size_bytes for run in self._table.runs)
        file_bytes = os.fstat(self._file.fileno()).st_size or stored
        return min(self._table.size_bytes, stored, file_bytes) // self._record_bytes

    @property
    def is_dirty(self) -> bool:
        """True if the volume is marked as one that must be checked before it is used."""
        record = self.record(VOLUME_RECORD)
        found = record.find(VOLUME_INFORMATION) if record is not None else None
        return bool(found and found.value and found.value[10] & 1)

    @_or_damaged
    def record(self, number: int) -> Record | None:
        """Returns a file's record with all its attributes; None if it is not in use or continues another one.

        Raises:
            NtfsError: it is damaged.
        """
        raw = self._raw(number)
        if raw is None or int.from_bytes(raw[32:40], "little") & ((1 << 48) - 1):
            return None
        parts = list(self._parts(raw))
        others: set[int] = set()
        for kind, name, header in parts:
            if kind == ATTRIBUTE_LIST:
                others |= set(listed(self.content(self._joined(kind, name, [header]))))
        for other in sorted(others - {number}):
            if (more := self._raw(other)) is not None:
                parts += self._parts(more)
        grouped: dict[tuple[int, str, int], list[bytes]] = {}
        for index, (kind, name, header) in enumerate(parts):
            # Names and the like may be there several times; streams in several pieces.
            grouped.setdefault((kind, name, 0 if header[8] else index + 1), []).append(header)
        attributes = [self._joined(kind, name, headers) for (kind, name, _), headers in grouped.items()]
        return Record(number, bool(raw[22] & 2), attributes)

    def records(self) -> Iterator[Record]:
        """Yields the record of each file and directory that is not NTFS' own."""
        for number in range(FIRST_USER_RECORD, self.record_count):
            if (record := self.record(number)) is not None and record.names:
                yield record

    @_or_damaged
    def children(self, record: Record) -> dict[str, int]:
        """Returns the record of each name in a directory, without its names in the form 8.3."""
        found: dict[str, int] = {}
        root = record.find(INDEX_ROOT, "$I30")
        if root is None or root.value is None:
            raise NtfsError(f"the directory with the record {record.number} has no index")
        entries(root.value, 16, found)
        allocation = record.find(INDEX_ALLOCATION, "$I30")
        if allocation is not None:
            (block_bytes,) = struct.unpack_from("<I", root.value, 8)
            bitmap = record.find(BITMAP, "$I30")
            used = self.content(bitmap) if bitmap is not None else b""
            if not FIXUP_BYTES <= block_bytes <= _MAX_RECORD_BYTES:
                raise NtfsError("the index of a directory is damaged")
            for index in range(min(allocation.size_bytes // block_bytes, 8 * len(used))):
                if used[index // 8] >> index % 8 & 1:
                    block = self.part(allocation, index * block_bytes, block_bytes)
                    entries(mended(block, b"INDX"), 24, found)
        return found

    @_or_damaged
    def security_descriptor(self, record: Record) -> bytes:
        """Returns who may do what with the file, as a self-relative security descriptor; empty if there is none."""
        own = record.find(SECURITY_DESCRIPTOR)
        if own is not None:
            return self.content(own)
        information = record.find(STANDARD_INFORMATION)
        if information is None or information.value is None or len(information.value) < 56:
            return b""
        (number,) = struct.unpack_from("<I", information.value, 52)
        secure = self.record(SECURE_RECORD)
        stream = secure.find(DATA, "$SDS") if secure is not None else None
        if stream is None:
            return b""
        if self._descriptors is None:
            self._descriptors = descriptors(self.content(stream))
        offset, size = self._descriptors.get(number, (0, 0))
        return self.part(stream, offset, size)

    def content(self, attribute: Attribute) -> bytes:
        """Returns all of an attribute that is small.

        Raises:
            NtfsError: it is large, which only a damaged one is.
        """
        if attribute.size_bytes > _MAX_CONTENT_BYTES:
            raise NtfsError(f"an attribute of a file has {attribute.size_bytes} bytes")
        return self.part(attribute, 0, attribute.size_bytes)

    @_or_damaged
    def part(self, attribute: Attribute, begin: int, size_bytes: int) -> bytes:
        """Returns a part of an attribute.

        Raises:
            NtfsError: its place or its compressed form is damaged.
        """
        size_bytes = max(min(size_bytes, attribute.size_bytes - begin), 0)
        if attribute.value is not None:
            return attribute.value[begin : begin + size_bytes]
        if not attribute.unit_bytes:
            content = self._raw_part(attribute, begin, size_bytes)
        else:
            unit = attribute.unit_bytes
            first, last = begin // unit * unit, begin + size_bytes
            whole = b"".join(self._unit(attribute, place) for place in range(first, last, unit))
            content = whole[begin - first : begin - first + size_bytes]
        known = max(min(size_bytes, attribute.initialized_bytes - begin), 0)
        return content[:known].ljust(size_bytes, b"\0")

    def blocks(self, attribute: Attribute) -> Iterator[tuple[int, bytes]]:
        """Yields the content of a stream in parts of 1 MiB, each with its place; those with nothing but zeros not.

        The same content comes in the same parts, wherever it lies.
        """
        for place in places(attribute):
            block = self.part(attribute, place, READ_BYTES)
            if block.count(0) != len(block):
                yield place, block

    def _raw_part(self, attribute: Attribute, begin: int, size_bytes: int) -> bytes:
        """Returns a part of an attribute as it lies on the volume."""
        content = bytearray(size_bytes)
        end = begin + size_bytes
        index = bisect.bisect_right(attribute.runs, begin, key=lambda run: run.offset_bytes) - 1
        for run in attribute.runs[max(index, 0) :]:
            first, last = max(run.offset_bytes, begin), min(run.offset_bytes + run.size_bytes, end)
            if run.offset_bytes >= end:
                break
            if first < last:
                part = self._read(run.place_bytes + first - run.offset_bytes, last - first)
                content[first - begin : last - begin] = part
        return bytes(content)

    def _unit(self, attribute: Attribute, place: int) -> bytes:
        """Returns what is compressed together from `place` on: not compressed if it fills its place, zeros if none."""
        unit = attribute.unit_bytes
        allocated = 0
        index = bisect.bisect_right(attribute.runs, place, key=lambda run: run.offset_bytes) - 1
        for run in attribute.runs[max(index, 0) :]:
            if run.offset_bytes >= place + unit:
                break
            allocated += max(min(run.offset_bytes + run.size_bytes, place + unit) - max(run.offset_bytes, place), 0)
        if not allocated:
            return bytes(unit)
        raw = self._raw_part(attribute, place, allocated)
        try:
            return raw if allocated == unit else decompress(raw, unit)
        except ValueError as error:
            raise NtfsError(f"a file that NTFS compressed is damaged: {error}") from error

    def _raw(self, number: int) -> bytes | None:
        """Returns a record that is in use, as it was before it was protected; None for another."""
        raw = self.part(self._table, number * self._record_bytes, self._record_bytes)
        if len(raw) < self._record_bytes or raw[:4] == bytes(4) or not raw[22] & 1:
            return None
        return mended(raw, b"FILE")

    def _parts(self, raw: bytes) -> Iterator[tuple[int, str, bytes]]:
        """Yields type, name and bytes of each attribute, or piece of one, in a record."""
        (at,) = struct.unpack_from("<H", raw, 20)
        while at + 8 <= len(raw):
            kind, length = struct.unpack_from("<II", raw, at)
            if kind == 0xFFFFFFFF:
                return
            if length < 24 or at + length > len(raw):
                break
            header = raw[at : at + length]
            name_at = int.from_bytes(header[10:12], "little")
            yield kind, header[name_at : name_at + 2 * header[9]].decode("utf-16-le", "surrogatepass"), header
            at += length
        raise NtfsError("a record of a file is damaged")

    def _joined(self, kind: int, name: str, headers: list[bytes]) -> Attribute:
        """Returns the attribute that these pieces are."""
        flags = int.from_bytes(headers[0][12:14], "little")
        if not headers[0][8]:
            length, at = struct.unpack_from("<IH", headers[0], 16)
            value = headers[0][at : at + length]
            return Attribute(kind, name, flags, len(value), value, initialized_bytes=len(value))
        headers = sorted(headers, key=lambda header: int.from_bytes(header[16:24], "little"))
        size, initialized = struct.unpack_from("<QQ", headers[0], 48)
        runs = [run for header in headers for run in self._runs(header)]
        unit_bytes = self.cluster_bytes << headers[0][34] if flags & COMPRESSED else 0
        return Attribute(kind, name, flags, size, None, runs, initialized, unit_bytes)

    def _runs(self, header: bytes) -> Iterator[ClusterRun]:
        """Yields the runs that a piece of an attribute lists; a hole is none."""
        (cluster,) = struct.unpack_from("<Q", header, 16)
        (at,) = struct.unpack_from("<H", header, 32)
        place = 0
        while at < len(header) and header[at]:
            length_size, place_size = header[at] & 15, header[at] >> 4
            middle, end = at + 1 + length_size, at + 1 + length_size + place_size
            count = int.from_bytes(header[at + 1 : middle], "little")
            if place_size:
                place += int.from_bytes(header[middle:end], "little", signed=True)
                if place < 0:
                    raise NtfsError("a record of a file leads outside the volume")
                yield ClusterRun(cluster * self.cluster_bytes, count * self.cluster_bytes, place * self.cluster_bytes)
            cluster += count
            at = end

    def _read(self, offset_bytes: int, size_bytes: int) -> bytes:
        content = os.pread(self._file.fileno(), size_bytes, self._start_bytes + offset_bytes)
        if len(content) < size_bytes:
            raise NtfsError("the volume ends before its files do")
        return content
