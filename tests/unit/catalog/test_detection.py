import pytest
from fleetcast_catalog.images.domain import ImageFileError, ImageFormat
from fleetcast_catalog.images.importing.detection import check_head, detect

from tests.support.wimfile import WimFile
from tests.unit.catalog.memory import MemorySource

WIM = WimFile().pack()
ESD = WimFile(version=0xE00).pack()
QCOW2 = b"QFI\xfb" + bytes(508)
VHDX = b"vhdxfile" + bytes(504)
VMDK = b"KDMV" + bytes(508)
RAW = b"\xeb\x63\x90" + bytes(509)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (WIM, ImageFormat.WIM),
        (WimFile(pipable=True).pack(), ImageFormat.WIM),
        (ESD, ImageFormat.ESD),
        (QCOW2, ImageFormat.QCOW2),
        (VHDX, ImageFormat.VHDX),
        (VMDK, ImageFormat.VMDK),
        (RAW, ImageFormat.RAW),
        (b"x", ImageFormat.RAW),
    ],
)
def test_the_content_tells_the_format(content: bytes, found: ImageFormat) -> None:
    source = MemorySource(content)
    assert detect(source, None) is found
    assert detect(source, found) is found
    assert source.read(4) == content[:4]


@pytest.mark.parametrize(
    ("content", "requested", "what"),
    [
        (QCOW2, ImageFormat.RAW, "is not raw: its content is a qcow2 file"),
        (RAW, ImageFormat.QCOW2, "is not qcow2: its content is raw data"),
        (WIM, ImageFormat.ESD, "is not esd: its content is a WIM file"),
        (VMDK, ImageFormat.VHDX, "is not vhdx: its content is a vmdk file"),
        (b"BZh91AY&SY" + bytes(500), ImageFormat.WIM, "is not WIM: its content is a bzip2 file"),
    ],
)
def test_a_format_that_contradicts_the_content_is_an_error_that_says_what_was_found(
    content: bytes, requested: ImageFormat, what: str
) -> None:
    with pytest.raises(ImageFileError, match=what) as caught:
        detect(MemorySource(content), requested)
    assert caught.value.reason == "IMAGE_FORMAT_CONTRADICTED"


def test_who_says_wim_of_an_esd_is_right() -> None:
    assert detect(MemorySource(ESD), ImageFormat.WIM) is ImageFormat.ESD


def test_an_archive_is_not_taken_for_a_disk_unless_the_operator_says_so() -> None:
    archive = b"7z\xbc\xaf\x27\x1c" + bytes(100)
    with pytest.raises(ImageFileError, match="is a 7z archive"):
        detect(MemorySource(archive), None)
    assert detect(MemorySource(archive), ImageFormat.RAW) is ImageFormat.RAW


def test_an_empty_file_is_refused() -> None:
    with pytest.raises(ImageFileError, match="is empty"):
        detect(MemorySource(b""), None)


def test_a_wim_whose_size_is_known_is_found_truncated_before_it_is_read() -> None:
    source = MemorySource(WIM)
    check_head(source, ImageFormat.WIM, len(WIM))
    check_head(source, ImageFormat.WIM, None)
    with pytest.raises(ImageFileError, match="truncated"):
        check_head(source, ImageFormat.WIM, len(WIM) - 1)
