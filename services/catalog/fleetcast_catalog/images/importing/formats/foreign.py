"""Files of other programs that nothing here can read: what they are called, and the way out of each."""

from __future__ import annotations

from pathlib import PurePosixPath

HEAD_BYTES = 33 << 10
"""What `foreign_kind` wants to see of a file: tar and ISO say what they are behind the first 32 KiB at most."""

_UNPACK = "unpack it, and import the disk image or WIM that is in it"
_RESTORE = "restore it once, to a virtual machine for example, and import that machine's disk"
_DECRYPT = "decrypt it first"

_BY_CONTENT: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (0, b"PK\x03\x04", "a zip archive", _UNPACK),
    (0, b"Rar!\x1a\x07", "a rar archive", _UNPACK),
    (0, b"MSCF", "a cabinet archive", _UNPACK),
    (0, b"\x04\x22\x4d\x18", "an lz4 file", "decompress it first, with `lz4 -d`"),
    (0, b"\x02\x21\x4c\x18", "an lz4 file", "decompress it first, with `lz4 -d`"),
    (0, b"LZIP", "an lzip file", "decompress it first, with `lzip -d`"),
    (0, b"\x89LZO\x00\r\n\x1a\n", "an lzop file", "decompress it first, with `lzop -d`"),
    (0, b"LRZI", "an lrzip file", "decompress it first, with `lrzip -d`"),
    (0, b"\x1f\x9d", "a file compressed by `compress`", "decompress it first, with `uncompress`"),
    (0, b"\xfe\xef\x01", "a Ghost image", _RESTORE),
    (0, b"\xb4\x6e\x68\x44", "an Acronis backup", _RESTORE),
    (0, b"PaRtImAgE-VoLuMe", "a partimage file", "restore it with `partimage restore`, and import the volume"),
    (
        0,
        b"\0ntfsclone-image",
        "an ntfsclone file",
        "restore it with `ntfsclone -r`, and import the volume",
    ),
    (0, b"FsA0", "an fsarchiver archive", "restore it with `fsarchiver restfs`, and import the volume"),
    (0, b"hsqs", "a squashfs file system", "unpack it with `unsquashfs`, and capture a WIM or a disk from it"),
    (0, b"encrcdsa", "an encrypted Apple disk image", _DECRYPT),
    (0, b"sprs", "an Apple sparse disk image", "convert it first, with `hdiutil convert -format UDTO`"),
    (0, b"EVF\x09\x0d\x0a\xff\x00", "an EnCase image", "export it first, with `ewfexport -f raw`"),
    (0, b"AFF10\x0d\x0a\x00", "an AFF image", "convert it first, with `affconvert -r`"),
    (0, b"\x3a\xff\x26\xed", "an Android sparse image", "convert it first, with `simg2img`"),
    (0, b"VMA\x00", "a Proxmox backup", "unpack it first, with `vma extract`"),
    (0, b"Bochs Virtual HD Image", "a Bochs disk", "convert it first, with `qemu-img convert -O raw`"),
    (0, b"#!/bin/sh\n#V2.0 Format", "a cloop file", "convert it first, with `qemu-img convert -O raw`"),
    (0, b"# Disk DescriptorFile", "", ""),  # told by `virtual_disk`, which knows what is missing
    (0, b"Salted__", "a file encrypted by OpenSSL", _DECRYPT),
    (0, b"-----BEGIN PGP MESSAGE", "a file encrypted by PGP", _DECRYPT),
    (0, b"age-encryption.org/", "a file encrypted by age", _DECRYPT),
    (0, b"WINDOWS BACKUP", "a Windows backup", _RESTORE),
    (0, b"TAPE", "a Windows backup", _RESTORE),
)

_BY_NAME: dict[str, tuple[str, str]] = {
    "gho": ("a Ghost image", _RESTORE),
    "ghs": ("a part of a Ghost image", _RESTORE),
    "tib": ("an Acronis backup", _RESTORE),
    "tibx": ("an Acronis backup", _RESTORE),
    "mrimg": ("a Macrium Reflect image", _RESTORE),
    "mrimgx": ("a Macrium Reflect image", _RESTORE),
    "v2i": ("a Symantec image", _RESTORE),
    "iv2i": ("a Symantec image", _RESTORE),
    "pbd": ("an EaseUS backup", _RESTORE),
    "adi": ("an AOMEI backup", _RESTORE),
    "afi": ("an AOMEI backup", _RESTORE),
    "pbf": ("a Paragon backup", _RESTORE),
    "pvhd": ("a Paragon backup", _RESTORE),
    "sna": ("a Drive Snapshot image", _RESTORE),
    "omg": ("an O&O DiskImage backup", _RESTORE),
    "rdr": ("an R-Drive image", _RESTORE),
    "vbk": ("a Veeam backup", _RESTORE),
    "spf": ("a ShadowProtect image", _RESTORE),
    "spi": ("a ShadowProtect image", _RESTORE),
    "bkf": ("a Windows backup", _RESTORE),
    "dmg": ("an Apple disk image", "convert it first, with `hdiutil convert -format UDTO` or `dmg2img`"),
    "ova": ("an OVA appliance", "unpack it with `tar -xf`, and import the .vmdk file in it"),
    "ovf": ("the description of an appliance", "import the .vmdk file that belongs to it"),
    "vmx": ("the description of a virtual machine", "import the .vmdk file that belongs to it"),
    "vbox": ("the description of a virtual machine", "import the .vdi file that belongs to it"),
    "vmcx": ("the description of a virtual machine", "import the .vhdx file that belongs to it"),
    "avhd": ("a checkpoint of a Hyper-V machine", "merge it in Hyper-V, and import the .vhd file"),
    "avhdx": ("a checkpoint of a Hyper-V machine", "merge it in Hyper-V, and import the .vhdx file"),
    "xva": ("a XenServer appliance", _RESTORE),
    "vib": ("a part of a Veeam backup", _RESTORE),
}
_TAR = (257, b"ustar")
APPLE_TRAILER = b"koly"
"""How the last 512 bytes of an Apple disk image begin."""


def foreign_kind(head: bytes, file_name: str) -> tuple[str, str] | None:
    """Returns what a file is that cannot be imported, and the way out; None if nothing tells.

    `head` are its first `HEAD_BYTES`, `file_name` is the name that it came with.
    """
    for offset, magic, what, way_out in _BY_CONTENT:
        if head.startswith(magic, offset):
            return (what, way_out) if what else None
    if head.startswith(_TAR[1], _TAR[0]) and head[:100].rstrip(b"\0").lower().endswith(b".ovf"):
        return _BY_NAME["ova"]
    if head.startswith(b"<?xml") and b"Envelope" in head[:4096]:
        return _BY_NAME["ovf"]
    return _BY_NAME.get(PurePosixPath(file_name.lower()).suffix.removeprefix("."))


def apple_disk() -> tuple[str, str]:
    """Returns what an Apple disk image is, and the way out: only its end tells."""
    return _BY_NAME["dmg"]
