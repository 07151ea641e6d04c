"""GRUB put onto a disk without its installer, which needs device nodes that files and fresh disks do not have.

The images come from grub-mkimage. On UEFI the image is one file on the EFI system partition. On BIOS, boot.img goes
into the first sector and the core image behind it, or into a BIOS boot partition: what grub-bios-setup does (GRUB
manual, "BIOS installation").
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from pathlib import Path

from fleetcast_agent.sequence.disks.tables.model import Existing
from fleetcast_agent.sequence.errors import StepError
from fleetcast_agent.sequence.machine.disks import Disk
from fleetcast_agent.sequence.tools import Tools

_MODULES = [
    "part_gpt",
    "part_msdos",
    "ext2",
    "xfs",
    "fat",
    "search",
    "search_fs_uuid",
    "configfile",
    "normal",
    "linux",
    "echo",
    "test",
    "minicmd",
    "boot",
]
_SECTOR_BYTES = 512
"""What BIOS reads, and all that it can start from."""
_BOOT_CODE_BYTES = 440
"""Of the first sector; disk identifier and partition table follow."""
_KERNEL_SECTOR_AT = 0x5C
"""Where boot.img says in which sector the core image begins: 8 bytes, little endian."""
_BLOCK_LIST_AT = 0x1F4
"""Where the core image's first sector says in which sector its rest begins: 8 bytes, little endian."""
_EFI_NAMES = {"x86_64-efi": "BOOTX64.EFI", "arm64-efi": "BOOTAA64.EFI"}


def efi_platform(architecture: str) -> str:
    """Returns GRUB's name for UEFI on this architecture, such as `x86_64-efi`."""
    return "arm64-efi" if architecture in ("aarch64", "arm64") else "x86_64-efi"


def efi_path(platform: str) -> str:
    """Returns the path on the EFI system partition that firmware starts without being told."""
    return f"EFI/BOOT/{_EFI_NAMES[platform]}"


async def make_image(tools: Tools, platform: str, modules: Path, uuid: str, target: Path) -> None:
    """Makes the bootloader image that finds its menu on the file system `uuid`; `modules` is GRUB's own directory.

    Raises:
        StepError: grub-mkimage is not there or failed.
    """
    early = target.with_suffix(".cfg")
    lines = (
        f"search --no-floppy --fs-uuid --set=root {uuid}",
        "set prefix=($root)/boot/grub",
        "configfile $prefix/grub.cfg",
    )
    early.write_text("\n".join(lines) + "\n")
    drivers = ["biosdisk"] if platform == "i386-pc" else []
    command: list[str | Path] = ["grub-mkimage", "-O", platform, "-d", modules, "-p", "/boot/grub", "-c", early]
    await tools.run([*command, "-o", target, *_MODULES, *drivers])


def menu(kernels: Sequence[tuple[str, str]], uuid: str, arguments: str) -> str:
    """Returns a grub.cfg that starts the first of `kernels` (kernel and initial RAM disk under /boot, newest first)."""
    lines = ["set timeout=2", "set default=0"]
    for kernel, initrd in kernels:
        lines += [
            f"menuentry '{kernel}' {{",
            f"  search --no-floppy --fs-uuid --set=root {uuid}",
            f"  linux /boot/{kernel} root=UUID={uuid} ro {arguments}".rstrip(),
            *([f"  initrd /boot/{initrd}"] if initrd else []),
            "}",
        ]
    return "\n".join(lines) + "\n"


def kernels_in(boot: Path) -> list[tuple[str, str]]:
    """Returns names of kernels and their initial RAM disks in a /boot directory, the newest first."""
    found = []
    for kernel in boot.glob("vmlinuz-*"):
        version = kernel.name.removeprefix("vmlinuz-")
        names = (f"initrd.img-{version}", f"initramfs-{version}.img", f"initrd-{version}")
        initrd = next((name for name in names if (boot / name).exists()), "")
        found.append((kernel.stat().st_mtime, kernel.name, initrd))
    return [(kernel, initrd) for _, kernel, initrd in sorted(found, reverse=True)]


def embed(
    disk: Disk, boot_image: bytes, core: bytes, partitions: Sequence[Existing], bios_boot: Existing | None
) -> None:
    """Writes the bootloader for BIOS onto the disk.

    Raises:
        StepError: there is no room for it, or BIOS cannot start from such a disk.
    """
    if disk.sector_bytes != _SECTOR_BYTES:
        sectors = f"{disk.path} has sectors of {disk.sector_bytes} bytes"
        raise StepError(f"{sectors}, and BIOS starts only from sectors of {_SECTOR_BYTES}: start the machine by UEFI")
    if bios_boot is not None:
        start, room = bios_boot.start_bytes // _SECTOR_BYTES, bios_boot.size_bytes
    else:
        start = 1
        room = min((partition.start_bytes for partition in partitions), default=0) - _SECTOR_BYTES
    if len(core) > room:
        place = "the BIOS boot partition" if bios_boot else "the gap before the first partition"
        raise StepError(f"the bootloader needs {len(core)} bytes, and {place} has {max(room, 0)}")
    first = bytearray(boot_image[:_BOOT_CODE_BYTES])
    struct.pack_into("<Q", first, _KERNEL_SECTOR_AT, start)
    rest = bytearray(core)
    struct.pack_into("<Q", rest, _BLOCK_LIST_AT, start + 1)
    descriptor = os.open(disk.path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.pwrite(descriptor, rest, start * _SECTOR_BYTES)
        os.pwrite(descriptor, first, 0)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
