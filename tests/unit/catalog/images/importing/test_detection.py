import pytest
from fleetcast_catalog.images.domain import ImageFileError, ImageFormat
from fleetcast_catalog.images.importing.detection import check_head, detect

from tests.support.wimfile import WimFile
from tests.unit.catalog.images.memory import MemorySource

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
        (b"QFI\xfb\x00\x00\x00\x01" + bytes(504), ImageFormat.QCOW),
        (b"conectix" + bytes(504), ImageFormat.VHD),
        (b"<<< Oracle VM VirtualBox Disk Image >>>".ljust(64, b"\0") + b"\x7f\x10\xda\xbe", ImageFormat.VDI),
        (b"<<< QEMU VM Virtual Disk Image >>>\n".ljust(64, b"\0") + b"\x7f\x10\xda\xbe", ImageFormat.VDI),
        (b"QED\0" + bytes(508), ImageFormat.QED),
        (b"WithouFreSpacExt" + bytes(48), ImageFormat.PARALLELS),
        (b"partclone-image\0" + bytes(100), ImageFormat.PARTCLONE),
        (bytes(32769) + b"CD001", ImageFormat.ISO),
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
        (b"\x04\x22\x4d\x18" + bytes(500), ImageFormat.WIM, "is not WIM: its content is an lz4 file"),
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


@pytest.mark.parametrize(
    ("content", "name", "what", "way_out"),
    [
        (b"\xfe\xef\x01" + bytes(500), "x.bin", "a Ghost image", "restore it once"),
        (bytes(512), "WIN11.GHO", "a Ghost image", "restore it once"),
        (b"\xb4\x6e\x68\x44" + bytes(500), "x", "an Acronis backup", "restore it once"),
        (bytes(512), "c.tibx", "an Acronis backup", "restore it once"),
        (bytes(512), "c.mrimg", "a Macrium Reflect image", "restore it once"),
        (b"PaRtImAgE-VoLuMe" + bytes(500), "x", "a partimage file", "partimage restore"),
        (b"FsA0" + bytes(500), "x", "an fsarchiver archive", "fsarchiver restfs"),
        (b"hsqs" + bytes(500), "x", "a squashfs file system", "unsquashfs"),
        (b"PK\x03\x04" + bytes(500), "x", "a zip archive", "unpack it"),
        (b"Salted__" + bytes(500), "x", "a file encrypted by OpenSSL", "decrypt it first"),
        (b"lab.ovf".ljust(257, b"\0") + b"ustar" + bytes(250), "x", "an OVA appliance", "tar -xf"),
        (b'<?xml version="1.0"?><Envelope xmlns="x">', "x", "the description of an appliance", ".vmdk"),
        (bytes(512), "disk.avhdx", "a checkpoint of a Hyper-V machine", "merge it"),
        (b"\x3a\xff\x26\xed" + bytes(500), "x", "an Android sparse image", "simg2img"),
    ],
)
def test_what_nothing_here_can_read_is_refused_by_its_name_with_the_way_out(
    content: bytes, name: str, what: str, way_out: str
) -> None:
    with pytest.raises(ImageFileError, match=f"is {what}: .*{way_out}.*; or give the format raw"):
        detect(MemorySource(content), None, name)
    assert detect(MemorySource(content), ImageFormat.RAW, name) is ImageFormat.RAW


def test_a_tar_archive_can_be_a_package_and_a_disc_can_be_taken_as_it_is() -> None:
    tar = b"driver.inf".ljust(257, b"\0") + b"ustar" + bytes(250)
    assert detect(MemorySource(tar), None, "drivers.tar") is ImageFormat.RAW
    disc = bytes(32769) + b"CD001"
    assert detect(MemorySource(disc), ImageFormat.RAW) is ImageFormat.RAW


def test_an_empty_file_is_refused() -> None:
    with pytest.raises(ImageFileError, match="is empty"):
        detect(MemorySource(b""), None)


def test_a_wim_whose_size_is_known_is_found_truncated_before_it_is_read() -> None:
    source = MemorySource(WIM)
    check_head(source, ImageFormat.WIM, len(WIM))
    check_head(source, ImageFormat.WIM, None)
    with pytest.raises(ImageFileError, match="truncated"):
        check_head(source, ImageFormat.WIM, len(WIM) - 1)
