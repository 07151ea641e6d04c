"""The step that makes a new system start."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from pathlib import Path

from fleetcast_sequence.steps.disk import PARTITION_TYPES
from fleetcast_sequence.steps.settings import ConfigureBoot

from fleetcast_agent.sequence.context import StepContext
from fleetcast_agent.sequence.disks import files, grub, volumes
from fleetcast_agent.sequence.disks import partition_tables as tables
from fleetcast_agent.sequence.disks.files import inside
from fleetcast_agent.sequence.disks.volumes import Volume
from fleetcast_agent.sequence.errors import StepError

_GRUB_MODULES = Path("/usr/lib/grub")
_MANAGED = ("/", "/boot/efi")
"""Mount points whose lines in /etc/fstab are this step's."""


async def configure_boot(arguments: ConfigureBoot, context: StepContext) -> None:
    """Writes what is needed."""
    if arguments.system == "windows":
        await _windows(arguments, context)
        return
    root = await volumes.find(context, arguments.volume)
    efi = await volumes.find(context, arguments.efi_volume) if arguments.efi_volume else None
    about = await _about(context, root)
    efi_about = await _about(context, efi) if efi else {}
    image = context.step_directory / "grub"
    platform = grub.efi_platform(_architecture(context)) if efi else "i386-pc"
    async with files.opened_tree(context, root) as tree:
        place = tree.place("/")
        if not tree.exists("/etc"):
            raise StepError(f"the volume {arguments.volume!r} holds no Linux system: it has no /etc")
        kernels = grub.kernels_in(inside(place, "/boot"))
        if arguments.bootloader == "grub" and not kernels:
            raise StepError(f"the volume {arguments.volume!r} holds no kernel: there is no /boot/vmlinuz-*")
        fstab = _fstab(await tree.read("/etc/fstab") or b"", about, efi_about)
        await tree.write("/etc/fstab", fstab.encode(), mode=0o644)
        if arguments.bootloader == "none":
            return
        modules = _modules(place, platform)
        text = grub.menu(kernels, about["UUID"], arguments.kernel_arguments)
        await tree.write("/boot/grub/grub.cfg", text.encode(), mode=0o600)
        await grub.make_image(context.tools, platform, modules, about["UUID"], image)
        boot_image = (modules / "boot.img").read_bytes() if efi is None else b""
    if efi is not None:
        async with files.opened(context, efi) as tree_of_efi:
            content = await asyncio.to_thread(image.read_bytes)
            await tree_of_efi.write(grub.efi_path(platform), content)
    else:
        await _embed(context, root, boot_image, await asyncio.to_thread(image.read_bytes))


async def _embed(context: StepContext, root: Volume, boot_image: bytes, core: bytes) -> None:
    disk = context.disks.find(str(root.backing))
    partitions = await tables.read(context.tools, disk)
    wanted = PARTITION_TYPES["bios-boot"][0]
    bios_boot = next((partition for partition in partitions if partition.type == wanted), None)
    if bios_boot is None and any("-" in partition.type for partition in partitions):
        raise StepError("a GPT disk needs a partition of the type `bios-boot` to start from BIOS: add one")
    await asyncio.to_thread(grub.embed, disk, boot_image, core, partitions, bios_boot)


async def _about(context: StepContext, volume: Volume) -> dict[str, str]:
    about = await volumes.about(context, volume)
    if not about.get("UUID"):
        raise StepError(f"the volume {volume.name!r} has no file system with an identifier")
    return about


def _fstab(before: bytes, root: dict[str, str], efi: dict[str, str]) -> str:
    """Returns /etc/fstab with the identifiers of the new file systems; lines about anything else stay."""
    kept = []
    for line in before.decode(errors="replace").splitlines():
        words = line.split()
        about_us = len(words) > 1 and not line.startswith("#") and words[1] in _MANAGED
        if not about_us:
            kept.append(line)
    lines = [f"UUID={root['UUID']} / {root['TYPE']} defaults 0 1"]
    if efi:
        lines.append(f"UUID={efi['UUID']} /boot/efi vfat umask=0077 0 2")
    return "\n".join([*kept, *lines]) + "\n"


def _modules(root: Path, platform: str) -> Path:
    """Returns GRUB's files for the platform: the new system's own, or those of the running one."""
    places: Sequence[Path] = (inside(root, str(_GRUB_MODULES / platform)), _GRUB_MODULES / platform)
    for place in places:
        if (place / "normal.mod").exists():
            return place
    package = {"i386-pc": "grub-pc-bin", "x86_64-efi": "grub-efi-amd64-bin", "arm64-efi": "grub-efi-arm64-bin"}
    raise StepError(
        f"GRUB for {platform} is nowhere: install the Debian package {package[platform]} here or in the image"
    )


def _architecture(context: StepContext) -> str:
    return str(context.variables.context.get("machine", {}).get("architecture", ""))


async def _windows(arguments: ConfigureBoot, context: StepContext) -> None:
    if shutil.which("bcdboot") is None:
        raise StepError(
            "only Windows PE can write Windows' boot files (bcdboot): run this step there, or put prepared boot files "
            "onto the EFI system partition by `copy-files`"
        )
    place = ["/s", arguments.efi_volume, "/f", "UEFI"] if arguments.efi_volume else ["/f", "BIOS"]
    await context.tools.run(["bcdboot", f"{arguments.volume}\\Windows", *place])
