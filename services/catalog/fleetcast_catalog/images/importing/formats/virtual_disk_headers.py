"""The headers of virtual disks: whether a file holds all of its disk, and whether its last user closed it."""

from __future__ import annotations

import re
import struct
from pathlib import Path

from fleetcast_catalog.images.domain import MAX_IMAGE_BYTES, ImageFormat, corrupt, truncated, unsupported
from fleetcast_catalog.images.importing.formats.fixed_vhd import FOOTER_BYTES, is_vhd_footer

_START_BYTES = 256 << 10
# Wherever the header says the descriptor is, QEMU looks for a parent here (block/vmdk.c).
_QEMU_DESCRIPTOR = slice(512, 512 + 20 * 512)
_PARENT = re.compile(rb"parentCID\s*=\s*([0-9a-fA-F]+)")
_WHOLE_SPARSE = re.compile(rb'createType="(?:monolithicSparse|streamOptimized)"')
_EXTENT = re.compile(rb"^\s*(?:RW|RDONLY|NOACCESS)\s", re.MULTILINE)
_NO_PARENT = b"ffffffff"
_VHD_DIFFERENCE = 4
_VDI_WHOLE = (1, 2)
_PARALLELS_IN_USE = 0x746F6E59


def check_self_contained(path: Path, form: ImageFormat) -> None:
    """Checks that the file holds all of its disk: who may import a file must not reach others of the server through it.

    qemu itself refuses VHDX files with a parent.

    Raises:
        ImageFileError: parts of the disk are missing, or are, or claim to be, in other files.
    """
    with path.open("rb") as file:
        start = file.read(_START_BYTES)
        size_bytes = file.seek(0, 2)
        file.seek(max(size_bytes - FOOTER_BYTES, 0))
        end = file.read(FOOTER_BYTES)
    match form:
        case ImageFormat.QCOW2:
            _check_qcow(start)
        case ImageFormat.QCOW:
            _check_qcow(start)
            _check_qcow_tables(path, start, size_bytes)
        case ImageFormat.VMDK:
            _check_vmdk(start)
        case ImageFormat.VHD:
            _check_vhd(start, end)
        case ImageFormat.VDI:
            _check_vdi(start, size_bytes)
        case ImageFormat.QED:
            _check_qed(start)


def needs_replay(path: Path, form: ImageFormat) -> bool:
    """Returns whether the last user of the file ended before everything was in its place: a log in the file has it."""
    with path.open("rb") as file:
        start = file.read(_START_BYTES)
    if form is ImageFormat.VHDX:
        return _has_vhdx_log(start)
    place = {
        ImageFormat.QCOW2: (">Q", 72, 0x1),  # incompatible_features: dirty
        ImageFormat.QED: ("<Q", 16, 0x2),  # features: need check
        ImageFormat.PARALLELS: ("<I", 44, _PARALLELS_IN_USE),
    }.get(form)
    if place is None or len(start) < 80 or (form is ImageFormat.QCOW2 and start[4:8] == b"\0\0\0\2"):
        return False
    layout, offset, wanted = place
    (value,) = struct.unpack_from(layout, start, offset)
    return int(value) & wanted == wanted


def _has_vhdx_log(start: bytes) -> bool:
    # [MS-VHDX] 2.2.2: of two headers the one with the larger sequence number counts.
    headers = [start[offset : offset + 4096] for offset in (64 << 10, 128 << 10)]
    valid = [header for header in headers if len(header) == 4096 and header.startswith(b"head")]
    if not valid:
        return False
    current = max(valid, key=lambda header: int(struct.unpack_from("<Q", header, 8)[0]))
    return any(current[48:64])


def _check_qcow(start: bytes) -> None:
    # docs/interop/qcow2.txt of QEMU.
    if len(start) < 72:
        raise truncated("a qcow2 file has a header of at least 72 bytes")
    version, backing_offset = struct.unpack_from(">IQ", start, 4)
    (encryption,) = struct.unpack_from(">I", start, 32 if version >= 2 else 36)
    incompatible_features = struct.unpack_from(">Q", start, 72)[0] if version >= 3 and len(start) >= 80 else 0
    if backing_offset:
        raise unsupported("is only the difference to a backing file: flatten it with `qemu-img convert` first")
    if incompatible_features & 0x4:
        raise unsupported("keeps its data in another file: make one file of it with `qemu-img convert` first")
    if encryption:
        raise unsupported("is encrypted: decrypt it with `qemu-img convert` first")


def _check_qcow_tables(path: Path, start: bytes, size_bytes: int) -> None:
    """Checks that the clusters of a first version's file are in it: qemu-img cannot, and takes zeros for the others."""
    disk_bytes, cluster_bits, table_bits, _, table_offset = struct.unpack_from(">QBBxxIQ", start, 24)
    if not (9 <= cluster_bits <= 16 and 6 <= table_bits <= 13 and 0 < disk_bytes <= MAX_IMAGE_BYTES):
        raise corrupt("its header describes no disk")
    cluster_bytes = 1 << cluster_bits
    table_count = -(-disk_bytes // (cluster_bytes << table_bits))
    with path.open("rb") as file:

        def entries(offset: int, count: int) -> list[int]:
            file.seek(offset)
            packed = file.read(8 * count)
            if len(packed) < 8 * count:
                raise truncated("parts of the disk lie beyond the end of the file")
            return [place for place in struct.unpack(f">{count}Q", packed) if place]

        for table in entries(table_offset, table_count):
            ends = (
                (place & (1 << 63 - cluster_bits) - 1) + (place >> 63 - cluster_bits & cluster_bytes - 1)
                if place >> 63  # a compressed cluster says its size in the bits below the first
                else place + min(512, cluster_bytes)
                for place in entries(table, 1 << table_bits)
            )
            if max(ends, default=0) > size_bytes:
                raise truncated("parts of the disk lie beyond the end of the file")


def _check_qed(start: bytes) -> None:
    # docs/specs/qed_spec.rst of QEMU.
    if len(start) < 64:
        raise truncated("a qed file has a header of at least 64 bytes")
    if struct.unpack_from("<Q", start, 16)[0] & 0x1:
        raise unsupported("is only the difference to a backing file: flatten it with `qemu-img convert` first")


def _check_vhd(start: bytes, end: bytes) -> None:
    # A dynamic VHD begins with a copy of the footer that ends it.
    if not is_vhd_footer(end):
        raise truncated("the footer that ends a VHD is missing")
    if struct.unpack_from(">I", start, 60)[0] == _VHD_DIFFERENCE:
        raise unsupported("is only the difference to a parent disk: merge it with Hyper-V, or Merge-VHD, first")


def _check_vdi(start: bytes, size_bytes: int) -> None:
    if len(start) < 512:
        raise truncated("a VDI file has a header of 512 bytes")
    (image_type,) = struct.unpack_from("<I", start, 76)
    (data_offset,) = struct.unpack_from("<I", start, 344)
    block_bytes, extra_bytes, _, allocated_count = struct.unpack_from("<IIII", start, 376)
    if image_type not in _VDI_WHOLE or any(start[424:456]):
        raise unsupported(
            "is only the difference to a parent disk: merge its snapshots in VirtualBox, or clone it with "
            "`VBoxManage clonemedium`, first"
        )
    needed = data_offset + allocated_count * (block_bytes + extra_bytes)
    if needed > size_bytes:
        raise truncated(f"its header needs {needed} bytes, the file has {size_bytes}")


def _check_vmdk(start: bytes) -> None:
    # VMware, "Virtual Disk Format 5.0": sparse extents embed a descriptor, which may name other files.
    if start.startswith(b"# Disk"):
        raise unsupported("is only the description of a disk that lies in other files: make one file of it first")
    if len(start) < 512:
        raise truncated("a vmdk file has a header of 512 bytes")
    descriptor = start[_QEMU_DESCRIPTOR]
    if start.startswith(b"KDMV"):
        (capacity_sectors,) = struct.unpack_from("<Q", start, 12)
        offset_sectors, size_sectors = struct.unpack_from("<QQ", start, 28)
        if not capacity_sectors:
            raise unsupported("has no size of its own: make one file of the disk with `qemu-img convert` first")
        if size_sectors:
            described = start[offset_sectors * 512 : (offset_sectors + size_sectors) * 512].rstrip(b"\0")
            if not _WHOLE_SPARSE.search(described) or len(_EXTENT.findall(described)) > 1:
                raise unsupported("is only a part of a disk: make one file of it with `qemu-img convert` first")
            descriptor += described
    parents = _PARENT.findall(descriptor)
    if b"parentFileNameHint" in descriptor or any(parent.lower() != _NO_PARENT for parent in parents):
        raise unsupported("is only the difference to a parent disk: flatten it with `qemu-img convert` first")
