import struct
from contextlib import suppress
from pathlib import Path

import pytest
from fleetcast_catalog.images.domain import ImageFileError, ImageFormat
from fleetcast_catalog.images.importing.formats.virtual_disk_headers import check_self_contained, needs_replay
from hypothesis import given
from hypothesis import strategies as st


def qcow2(version: int = 3, backing_offset: int = 0, incompatible_features: int = 0) -> bytes:
    start = b"QFI\xfb" + struct.pack(">IQ", version, backing_offset)
    return start.ljust(72, b"\0") + struct.pack(">Q", incompatible_features) + bytes(24)


def vmdk(descriptor: bytes, capacity_sectors: int = 100, *, descriptor_sector: int = 1) -> bytes:
    header = b"KDMV" + struct.pack("<IIQQQQ", 1, 3, capacity_sectors, 128, descriptor_sector, 20)
    return header.ljust(512 * descriptor_sector, b"\0") + descriptor.ljust(20 * 512, b"\0")


WHOLE = b'# Disk DescriptorFile\nCID=1\nparentCID=ffffffff\ncreateType="monolithicSparse"\nRW 100 SPARSE "x.vmdk"\n'


def check(tmp_path: Path, content: bytes, image_format: ImageFormat) -> None:
    file = tmp_path / "disk"
    file.write_bytes(content)
    check_self_contained(file, image_format)


def test_a_whole_virtual_disk_is_accepted(tmp_path: Path) -> None:
    check(tmp_path, qcow2(), ImageFormat.QCOW2)
    check(tmp_path, vmdk(WHOLE), ImageFormat.VMDK)
    check(tmp_path, b"vhdxfile", ImageFormat.VHDX)


@pytest.mark.parametrize(
    ("content", "image_format", "problem"),
    [
        (qcow2(backing_offset=512), ImageFormat.QCOW2, "backing file"),
        (qcow2(version=2, backing_offset=512), ImageFormat.QCOW2, "backing file"),
        (qcow2(incompatible_features=4), ImageFormat.QCOW2, "another file"),
        (b"QFI\xfb", ImageFormat.QCOW2, "truncated"),
        (b"# Disk DescriptorFile\nRW 1 FLAT /etc/shadow", ImageFormat.VMDK, "other files"),
        (b"KDMV", ImageFormat.VMDK, "truncated"),
        (vmdk(WHOLE, capacity_sectors=0), ImageFormat.VMDK, "no size"),
        (vmdk(WHOLE.replace(b"monolithicSparse", b"twoGbMaxExtentFlat")), ImageFormat.VMDK, "part of a disk"),
        (vmdk(WHOLE + b'RW 1 FLAT "/etc/shadow" 0\n'), ImageFormat.VMDK, "part of a disk"),
        (vmdk(WHOLE.replace(b"ffffffff", b"12345678")), ImageFormat.VMDK, "parent"),
        (vmdk(WHOLE + b'parentFileNameHint="/etc/shadow"\n'), ImageFormat.VMDK, "parent"),
        (vmdk(b"nothing"), ImageFormat.VMDK, "part of a disk"),
        (b"COWD".ljust(600, b"\0") + b'parentFileNameHint="/etc/shadow"', ImageFormat.VMDK, "parent"),
    ],
)
def test_a_virtual_disk_that_reaches_for_other_files_is_refused(
    tmp_path: Path, content: bytes, image_format: ImageFormat, problem: str
) -> None:
    with pytest.raises(ImageFileError, match=problem):
        check(tmp_path, content, image_format)


def test_a_parent_is_found_where_qemu_looks_whatever_the_header_says(tmp_path: Path) -> None:
    decoy = vmdk(WHOLE, descriptor_sector=40)
    content = decoy[:600] + b'parentFileNameHint="/etc/shadow"' + decoy[632:]
    with pytest.raises(ImageFileError, match="parent"):
        check(tmp_path, content, ImageFormat.VMDK)


KINDS = {
    ImageFormat.QCOW2: b"QFI\xfb",
    ImageFormat.QCOW: b"QFI\xfb\0\0\0\1",
    ImageFormat.VMDK: b"KDMV",
    ImageFormat.VHD: b"conectix",
    ImageFormat.VDI: b"<<<",
    ImageFormat.QED: b"QED\0",
    ImageFormat.PARALLELS: b"WithouFreSpacExt",
    ImageFormat.VHDX: b"vhdxfile",
}


@given(st.binary(max_size=1200), st.sampled_from(sorted(KINDS)))
def test_no_bytes_make_the_check_raise_anything_but_its_own_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, image_format: ImageFormat
) -> None:
    with suppress(ImageFileError):
        check(tmp_path_factory.getbasetemp(), KINDS[image_format] + content, image_format)
    needs_replay(tmp_path_factory.getbasetemp() / "disk", image_format)
