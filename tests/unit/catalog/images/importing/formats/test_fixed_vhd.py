"""Raw data and the footers that may follow them."""

import struct
from pathlib import Path

import pytest
from fleetcast_catalog.images.domain import ImageFileError, ImageFormat
from fleetcast_catalog.images.importing.formats.fixed_vhd import RawDisk
from fleetcast_catalog.images.importing.sources import FileSource
from hypothesis import assume, example, given
from hypothesis import strategies as st

from tests.unit.catalog.images.memory import MemorySource, read_all


def footer(disk_type: int = 2, checksum: int | None = None) -> bytes:
    """Returns the 512 bytes that end a VHD."""
    packed = bytearray(b"conectix".ljust(60, b"\0") + struct.pack(">II", disk_type, 0) + bytes(444))
    packed[64:68] = struct.pack(">I", ~sum(packed) & 0xFFFFFFFF if checksum is None else checksum)
    return bytes(packed)


@given(st.binary(max_size=3000), st.booleans(), st.integers(1, 1500), st.integers(1, 1500))
@example(b"koly", False, 1, 1)
def test_a_stream_loses_the_footer_of_a_fixed_vhd_and_nothing_else(
    content: bytes, has_footer: bool, arriving_bytes: int, read_bytes: int
) -> None:
    assume(has_footer or not (len(content) >= 512 and content[-512:].startswith(b"koly")))  # the end of an Apple disk
    disk = RawDisk(MemorySource(content + (footer() if has_footer else b""), arriving_bytes))
    assert read_all(disk, read_bytes) == content
    assert disk.format is (ImageFormat.VHD if has_footer else ImageFormat.RAW)


def test_a_file_loses_the_footer_too_and_keeps_its_holes(tmp_path: Path) -> None:
    file = tmp_path / "disk.vhd"
    with file.open("wb") as opened:
        opened.truncate(4 << 20)
        opened.seek(4 << 20)
        opened.write(footer())
    with FileSource(file) as source:
        disk = RawDisk(source)
        assert disk.skip_hole(1 << 20)
        assert read_all(disk) == bytes(3 << 20)
        assert disk.format is ImageFormat.VHD


@pytest.mark.parametrize("last", [footer(checksum=1), footer(disk_type=3), b"conectix" + bytes(504)])
def test_what_only_looks_like_a_footer_stays(last: bytes) -> None:
    assert read_all(RawDisk(MemorySource(b"x" * 1000 + last))) == b"x" * 1000 + last


def test_the_end_of_an_apple_disk_image_is_recognised() -> None:
    with pytest.raises(ImageFileError, match=r"is an Apple disk image: .*dmg2img"):
        read_all(RawDisk(MemorySource(bytes(2000) + b"koly" + bytes(508))))
