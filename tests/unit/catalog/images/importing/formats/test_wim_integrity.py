import hashlib
import struct
from contextlib import suppress
from dataclasses import replace

import pytest
from fleetcast_catalog.images.domain import ImageFileError
from fleetcast_catalog.images.importing.formats.wim import HEADER_BYTES, Extent, Header
from fleetcast_catalog.images.importing.formats.wim_integrity import check_integrity
from hypothesis import given
from hypothesis import strategies as st

from tests.support.wimfile import WimFile

FILE = WimFile().pack()
HEADER = Header.unpack(FILE)
PIECE_BYTES = 3000


def table_of(file: bytes, piece_bytes: int = PIECE_BYTES) -> bytes:
    covered = file[HEADER_BYTES : HEADER.lookup_table.end]
    pieces = [covered[start : start + piece_bytes] for start in range(0, len(covered), piece_bytes)]
    digests = b"".join(hashlib.sha1(piece, usedforsecurity=False).digest() for piece in pieces)
    return struct.pack("<III", 12 + len(digests), len(pieces), piece_bytes) + digests


def check(file: bytes, table: bytes) -> None:
    whole = file + table
    header = replace(HEADER, integrity_table=Extent(len(file), len(table), 0))
    check_integrity(lambda offset, size: whole[offset : offset + size], header)


def test_a_file_that_matches_its_table_is_sound() -> None:
    check(FILE, table_of(FILE))
    check(FILE, table_of(FILE, 1 << 31))


def test_a_file_without_a_table_is_not_checked() -> None:
    check_integrity(lambda offset, size: b"", HEADER)


@pytest.mark.parametrize("position", [HEADER_BYTES, 5000, HEADER.lookup_table.end - 1])
def test_a_changed_byte_is_found_and_its_piece_named(position: int) -> None:
    changed = bytearray(FILE)
    changed[position] ^= 1
    start = HEADER_BYTES + (position - HEADER_BYTES) // PIECE_BYTES * PIECE_BYTES
    with pytest.raises(ImageFileError, match=f"bytes {start} to"):
        check(bytes(changed), table_of(FILE))


@pytest.mark.parametrize("table", [b"short", bytes(12), table_of(FILE)[:-20], table_of(FILE, 100)[:12] + bytes(99)])
def test_a_table_that_contradicts_itself_is_corrupt(table: bytes) -> None:
    with pytest.raises(ImageFileError, match="corrupt"):
        check(FILE, table)


@given(st.binary(max_size=100), st.integers(0, 80))
def test_no_table_makes_the_check_raise_anything_but_its_own_error(tail: bytes, keep: int) -> None:
    with suppress(ImageFileError):
        check(FILE, table_of(FILE)[:keep] + tail)
