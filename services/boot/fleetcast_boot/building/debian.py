"""What a boot image takes from Debian."""

from __future__ import annotations

import sys
from pathlib import Path

from fleetcast_kit.errors import FailedPreconditionError

from fleetcast_boot.building.tools import run

SUITES = {(3, 11): "bookworm", (3, 13): "trixie"}
"""The release whose Python is the one that the agent here runs with: its compiled modules fit no other."""

LOADER_SUITE = "trixie"
"""The signed GRUB of Debian 12 asks the wrong server after an answer of a proxy, and has no network with HTTP boot."""

PACKAGES = (
    "linux-image-amd64",
    "systemd-sysv",
    "udev",
    "dbus",  # without it systemctl says that it cannot reach the bus, though it restarts the machine
    "systemd-resolved",
    "kmod",
    "python3-minimal",
    "libpython3-stdlib",
    "libstdc++6",
    "libipsec-mb1",
    "util-linux",
    "mount",
    "fdisk",
    "gdisk",
    "dosfstools",
    "mtools",
    "e2fsprogs",
    "xfsprogs",
    "btrfs-progs",
    "lvm2",
    "ntfs-3g",
    "wimtools",
    "cabextract",
    "efibootmgr",
    "tar",
    "tzdata",
    "iproute2",
    "grub-common",
    "grub-efi-amd64-bin",
    "grub-pc-bin",
    "libhivex-bin",
)
FIRMWARE = ("firmware-realtek", "firmware-misc-nonfree", "firmware-bnx2", "firmware-bnx2x")
"""What wired network cards load into themselves."""

_IPSEC_MB = {"bookworm": "libipsec-mb1", "trixie": "libipsec-mb2"}

_LOADERS = {
    "shimx64.efi": "usr/lib/shim/shimx64.efi.signed",
    "grubx64.efi": "usr/lib/grub/x86_64-efi-signed/grubnetx64.efi.signed",
    "mmx64.efi": "usr/lib/shim/mmx64.efi.signed",
}
"""By the names that shim asks for; all signed, and used with and without Secure Boot."""


def suite() -> str:
    """Returns the Debian release that the agent here can run on.

    Raises:
        FailedPreconditionError: there is none.
    """
    version = sys.version_info[:2]
    if version not in SUITES:
        known = " or ".join(f"{major}.{minor} (Debian {name})" for (major, minor), name in SUITES.items())
        raise FailedPreconditionError(
            f"the agent here runs with Python {version[0]}.{version[1]}, and a boot image needs the Python of a Debian "
            f"release: run this command with Python {known}"
        )
    return SUITES[version]


def make_root(release: str, root: Path, mirror: str = "") -> None:
    """Unpacks and sets up the Debian of a boot image in the folder `root`, which must not exist."""
    names = [_IPSEC_MB[release] if name == "libipsec-mb1" else name for name in PACKAGES]
    archive = root.with_suffix(".tar")
    excluded = ("doc", "man", "locale", "info", "lintian", "bug")
    command: list[str | Path] = [
        "mmdebstrap",
        "--variant=essential",
        "--components=main non-free-firmware",
        f"--include={','.join([*names, *FIRMWARE])}",
        *(f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in excluded),
        '--essential-hook=mkdir -p "$1/etc/initramfs-tools" && echo do_symlinks=no > "$1/etc/kernel-img.conf"',
        release,
        archive,
        *([mirror] if mirror else []),
    ]
    # The kernel's own initial RAM disk is not used: the first stage takes its place.
    run(command, environment={"DEBIAN_FRONTEND": "noninteractive", "INITRD": "No"})
    root.mkdir(parents=True)
    run(["tar", "-xf", archive, "-C", root, "--numeric-owner", "--exclude=./dev/*"])
    archive.unlink()


def make_loaders(folder: Path, mirror: str = "") -> None:
    """Puts the boot loaders into `folder`: signed ones for UEFI, and GRUB for BIOS."""
    folder.mkdir(parents=True)
    archive = folder.with_suffix(".tar")
    command: list[str | Path] = [
        "mmdebstrap",
        "--variant=extract",
        "--include=shim-signed,grub-efi-amd64-signed",
        LOADER_SUITE,
        archive,
        *([mirror] if mirror else []),
    ]
    run(command)
    for name, member in _LOADERS.items():
        (folder / name).write_bytes(run(["tar", "-xOf", archive, f"./{member}"]))
    archive.unlink()
    _make_bios_loader(folder / "fleetcast.0")


_BIOS_MODULES = (
    "pxe net tftp http configfile normal echo test linux chain boot search search_fs_file smbios sleep biosdisk "
    "part_gpt part_msdos fat ext2 ntfs"
)


def _make_bios_loader(file: Path) -> None:
    early = file.with_suffix(".cfg")
    early.write_text("configfile (tftp,$net_default_server)/grub/grub.cfg\n")
    run(["grub-mkimage", "-O", "i386-pc-pxe", "-p", "/grub", "-c", early, "-o", file, *_BIOS_MODULES.split()])
    early.unlink()
