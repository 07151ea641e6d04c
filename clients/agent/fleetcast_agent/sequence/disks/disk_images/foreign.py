"""Files that are no image of a disk, by how they begin: what other tools made, and what has to be converted first."""

from __future__ import annotations

_KINDS = (
    (b"partclone-image", "a volume that partclone saved"),
    (b"conectix", "a VHD virtual disk"),
    (b"vhdxfile", "a VHDX virtual disk"),
    (b"QFI\xfb", "a qcow2 virtual disk"),
    (b"QED\0", "a QED virtual disk"),
    (b"KDMV", "a VMDK virtual disk"),
    (b"<<< ", "a VDI virtual disk"),
    (b"PaRtImAgE-VoLuMe", "a volume that partimage saved"),
    (b"\0ntfsclone-image", "a volume that ntfsclone saved"),
    (b"\x1f\x8b\x08", "a file compressed by gzip"),
    (b"\xfd7zXZ\0", "a file compressed by xz"),
    (b"\x28\xb5\x2f\xfd", "a file compressed by zstd"),
    (b"BZh", "a file compressed by bzip2"),
    (b"PK\x03\x04", "a zip archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"hsqs", "a squashfs file system"),
)


def foreign_kind(head: bytes) -> str:
    """Returns what a file is that makes no disk although it could be written to one; empty if nothing tells."""
    return next((kind for magic, kind in _KINDS if head.startswith(magic)), "")
