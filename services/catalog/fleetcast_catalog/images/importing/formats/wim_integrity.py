"""The integrity table of a WIM file, which `wimlib-imagex --check` and DISM `/CheckIntegrity` write."""

from __future__ import annotations

import hashlib
import struct

from fleetcast_catalog.images.domain import corrupt
from fleetcast_catalog.images.importing.formats.wim import HEADER_BYTES, Header, Read

_MAX_TABLE_BYTES = 16 << 20
_READ_BYTES = 1 << 20


def check_integrity(read: Read, header: Header) -> None:
    """Checks the file against its integrity table, if it has one: SHA-1 of each piece from header to lookup table.

    Raises:
        ImageFileError: a piece does not match, or the table contradicts itself.
    """
    table = header.integrity_table
    if not table.size_bytes:
        return
    if not 12 <= table.size_bytes <= _MAX_TABLE_BYTES:
        raise corrupt(f"its integrity table has {table.size_bytes} bytes")
    packed = read(table.offset, table.size_bytes)
    size_bytes, count, piece_bytes = struct.unpack_from("<III", packed)
    end = header.lookup_table.end
    if size_bytes != 12 + 20 * count or size_bytes > len(packed) or not piece_bytes:
        raise corrupt("its integrity table contradicts itself")
    if count != -(-(end - HEADER_BYTES) // piece_bytes):
        raise corrupt("its integrity table is of another file")
    for piece in range(count):
        start = HEADER_BYTES + piece * piece_bytes
        if _sha1(read, start, min(start + piece_bytes, end)) != packed[12 + 20 * piece : 32 + 20 * piece]:
            raise corrupt(f"bytes {start} to {min(start + piece_bytes, end)} do not match its integrity table")


def _sha1(read: Read, start: int, end: int) -> bytes:
    sha = hashlib.sha1(usedforsecurity=False)
    while start < end:
        sha.update(read(start, min(_READ_BYTES, end - start)))
        start += _READ_BYTES
    return sha.digest()
