"""What kind of file an image is, by its content."""

from __future__ import annotations

from fleetcast_catalog.images.domain import ImageFileError, ImageFormat, unsupported
from fleetcast_catalog.images.importing import wim
from fleetcast_catalog.images.importing.sources import Source

_MAGICS = {
    b"QFI\xfb": ImageFormat.QCOW2,
    b"vhdxfile": ImageFormat.VHDX,
    b"KDMV": ImageFormat.VMDK,
    b"COWD": ImageFormat.VMDK,
    b"# Disk DescriptorFile": ImageFormat.VMDK,
    wim.MAGIC: ImageFormat.WIM,
    wim.PIPABLE_MAGIC: ImageFormat.WIM,
}

# What a person would hardly want on a disk byte for byte.
_FOREIGN = {
    b"BZh": "a bzip2 file",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"PK\x03\x04": "a zip archive",
    b"Rar!\x1a\x07": "a rar archive",
    b"\x04\x22\x4d\x18": "an lz4 file",
    b"\x5d\x00\x00\x80\x00\xff\xff": "an lzma file",
    b"LZIP": "an lzip file",
    b"conectix": "a VHD virtual disk",
    b"<<< Oracle VM VirtualBox Disk Image >>>": "a VDI virtual disk",
}


def detect(source: Source, requested: ImageFormat | None) -> ImageFormat:
    """Returns the format of the (decompressed) bytes of `source`, which stays at its start.

    `requested` is what the operator says it is, if anything.

    Raises:
        ImageFileError: it is empty, contradicts `requested`, or is of no use.
    """
    head = source.peek(wim.HEADER_BYTES)
    if not head:
        raise ImageFileError("is empty", reason="IMAGE_EMPTY")
    found = next((form for magic, form in _MAGICS.items() if head.startswith(magic)), ImageFormat.RAW)
    if found is ImageFormat.WIM and wim.Header.unpack(head).is_solid:
        found = ImageFormat.ESD
    foreign = next((what for magic, what in _FOREIGN.items() if head.startswith(magic)), None)
    if foreign and requested is None:
        raise unsupported(f"is {foreign}: unpack or convert it first, or give the format raw to take it byte for byte")
    # An ESD is a WIM with solid resources: who says WIM is right.
    if requested not in (None, found) and (requested, found) != (ImageFormat.WIM, ImageFormat.ESD):
        raise _contradiction(requested, found, foreign)
    return found


def check_head(source: Source, form: ImageFormat, size_bytes: int | None) -> None:
    """Checks as much of a file's soundness as its start can tell. `size_bytes` is its whole size, if known.

    Raises:
        ImageFileError: it is truncated.
    """
    if form.is_windows_imaging and size_bytes is not None:
        header = wim.Header.unpack(source.peek(wim.HEADER_BYTES))
        if not header.is_pipable:
            header.check_size(size_bytes)


def _contradiction(requested: ImageFormat | None, found: ImageFormat, foreign: str | None) -> ImageFileError:
    what = foreign or (f"a {found.label} file" if found is not ImageFormat.RAW else "raw data, of no known format")
    wanted = requested.label if requested else "auto"
    return ImageFileError(
        f"is not {wanted}: its content is {what}; leave the format out to take it as what it is",
        reason="IMAGE_FORMAT_CONTRADICTED",
    )
