"""What kind of file an image is, by its content."""

from __future__ import annotations

import struct
from collections.abc import Callable

from fleetcast_catalog.images.domain import ImageFileError, ImageFormat, unsupported
from fleetcast_catalog.images.importing.formats import wim
from fleetcast_catalog.images.importing.formats.foreign import HEAD_BYTES, foreign_kind
from fleetcast_catalog.images.importing.sources import Source

_VDI_SIGNATURE = struct.pack("<I", 0xBEDA107F)
_ISO_IDENTIFIERS = (b"CD001", b"BEA01")


def _is_wim(head: bytes) -> bool:
    return head.startswith((wim.MAGIC, wim.PIPABLE_MAGIC))


# Where each says what it is: docs/interop of QEMU, the header of VirtualBox' VDI, partclone's image format, ECMA-119.
_FOUND: tuple[tuple[ImageFormat, Callable[[bytes], bool]], ...] = (
    (ImageFormat.WIM, _is_wim),
    (ImageFormat.QCOW, lambda head: head.startswith(b"QFI\xfb\x00\x00\x00\x01")),
    (ImageFormat.QCOW2, lambda head: head.startswith(b"QFI\xfb")),
    (ImageFormat.VHDX, lambda head: head.startswith(b"vhdxfile")),
    (ImageFormat.VMDK, lambda head: head.startswith((b"KDMV", b"COWD", b"# Disk DescriptorFile"))),
    (ImageFormat.VHD, lambda head: head.startswith(b"conectix")),
    (ImageFormat.VDI, lambda head: head.startswith(_VDI_SIGNATURE, 64) and head.startswith(b"<<<")),
    (ImageFormat.QED, lambda head: head.startswith(b"QED\0")),
    (ImageFormat.PARALLELS, lambda head: head.startswith((b"WithoutFreeSpace", b"WithouFreSpacExt"))),
    (ImageFormat.PARTCLONE, lambda head: head.startswith(b"partclone-image")),
    (ImageFormat.ISO, lambda head: head.startswith(_ISO_IDENTIFIERS, 32769)),
)


def detect(source: Source, requested: ImageFormat | None, file_name: str = "") -> ImageFormat:
    """Returns the format of the (decompressed) bytes of `source`, which stays at its start.

    `requested` is what the operator says it is, if anything; `file_name` is the name that the file came with.

    Raises:
        ImageFileError: it is empty, contradicts `requested`, or is of no use.
    """
    head = source.peek(HEAD_BYTES)
    if not head:
        raise ImageFileError("is empty", reason="IMAGE_EMPTY")
    found = next((form for form, matches in _FOUND if matches(head)), ImageFormat.RAW)
    if found is ImageFormat.WIM and wim.Header.unpack(head[: wim.HEADER_BYTES]).is_solid:
        found = ImageFormat.ESD
    if found is ImageFormat.ISO and requested is ImageFormat.RAW:
        return ImageFormat.RAW  # a disc can be written to a disk as it is
    foreign = foreign_kind(head, file_name) if found is ImageFormat.RAW else None
    if foreign and requested is None:
        what, way_out = foreign
        raise unsupported(f"is {what}: {way_out}; or give the format raw to take it byte for byte")
    # An ESD is a WIM with solid resources: who says WIM is right. A fixed VHD shows at its end only.
    if requested not in (None, found) and (requested, found) not in {
        (ImageFormat.WIM, ImageFormat.ESD),
        (ImageFormat.VHD, ImageFormat.RAW),
    }:
        raise _contradiction(requested, found, foreign[0] if foreign else None)
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
