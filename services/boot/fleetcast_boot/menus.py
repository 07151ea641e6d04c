"""What GRUB reads: a first configuration that asks which machine it is on, and what that machine is told. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote

from fleetcast_boot.domain import Answer, Decision

_PLAIN = re.compile(r"[A-Za-z0-9._:/@%+=,\[\]-]*")
"""What stands for itself in a line of GRUB's."""

_UEFI_LOADERS = (
    "/EFI/Microsoft/Boot/bootmgfw.efi",
    "/EFI/debian/shimx64.efi",
    "/EFI/ubuntu/shimx64.efi",
    "/EFI/fedora/shimx64.efi",
    "/EFI/redhat/shimx64.efi",
    "/EFI/centos/shimx64.efi",
    "/EFI/rocky/shimx64.efi",
    "/EFI/almalinux/shimx64.efi",
    "/EFI/opensuse/shim.efi",
    "/EFI/sles/shim.efi",
    "/EFI/debian/shimaa64.efi",
    "/EFI/ubuntu/shimaa64.efi",
    "/EFI/BOOT/BOOTX64.EFI",
    "/EFI/BOOT/BOOTAA64.EFI",
)
"""Boot loaders of installed systems, the more particular first: the last are what any system may have put there."""

_LOCAL = f"""\
if [ "$grub_platform" = "efi" ]; then
  for file in {" ".join(_UEFI_LOADERS)}; do
    search --no-floppy --file "$file" --set=root
    if [ -e "($root)$file" ]; then
      echo "fleetcast: starting ($root)$file"
      chainloader "($root)$file"
      boot
    fi
  done
  echo "fleetcast: no disk has a system to start"
  sleep 5
  exit 1
fi
for disk in hd0 hd1 hd2 hd3; do
  if [ -e "($disk)" ]; then
    set root="$disk"
    chainloader +1
    boot
  fi
done
"""
"""Starts the system of the disk from here: to return to the firmware costs a minute, or ends in its set-up menu."""


@dataclass(frozen=True, slots=True)
class BootFiles:
    """Where a boot image is, and what it is."""

    base_url: str
    """Of its files, such as `http://10.0.0.1:7480/image/4f…`."""
    root_sha256: str
    """Of `root.squashfs`, in hexadecimal digits."""
    server: str
    """HOST:PORT at which the agent finds the scheduler."""


def first_menu(web: str) -> str:
    """Returns `grub.cfg`: it asks for this machine's menu at `web` (HOST:PORT), and starts the disk if none comes."""
    # With `&` a value needs quotes, or GRUB takes it for the end of a command.
    query = "platform=${grub_platform}&cpu=${grub_cpu}&uuid=${uuid}"
    return (
        "set timeout=0\n"
        "insmod http\n"
        "smbios --type 1 --get-uuid 8 --set uuid\n"
        f'configfile "(http,{_plain(web)})/machine/${{net_default_mac}}?{query}"\n'
        'echo "fleetcast: the boot service does not answer, starting from the disk"\n'
        f"{_LOCAL}"
    )


def machine_menu(decision: Decision, mac_address: str, files: BootFiles | None) -> str:
    """Returns what one machine is told: to start the boot image, or its own disk.

    Without `files`, which is where the boot image is, it starts its disk.
    """
    if decision.answer not in (Answer.INSTALL, Answer.KNOCK) or files is None:
        return f'echo "fleetcast: nothing to do, starting from the disk"\n{_LOCAL}'
    arguments = [
        "quiet",
        "console=ttyS0,115200",
        "console=tty0",
        "fbcon=font:TER16x32",  # read from two metres
        f"BOOTIF=01-{mac_address.replace(':', '-')}",
        f"fleetcast.server={_plain(files.server)}",
        f"fleetcast.token={_plain(decision.token)}",
        *([f"fleetcast.ticket={_plain(decision.ticket)}"] if decision.ticket else []),
        f"fleetcast.root={_plain(files.base_url)}/root.squashfs",
        f"fleetcast.sha256={_plain(files.root_sha256)}",
    ]
    place = files.base_url.removeprefix("http://")
    host, _, path = place.partition("/")
    return (
        'echo "fleetcast: starting the boot image"\n'
        f"linux (http,{_plain(host)})/{_plain(path)}/vmlinuz {' '.join(arguments)}\n"
        f"initrd (http,{_plain(host)})/{_plain(path)}/first.img\n"
        "boot\n"
        'echo "fleetcast: the boot image cannot be started, starting from the disk"\n'
        f"{_LOCAL}"
    )


def _plain(text: str) -> str:
    """Returns a text as it may stand in a line of GRUB's: what could be a command is escaped as in a URL."""
    return text if _PLAIN.fullmatch(text) else quote(text, safe="._:/@+=,[]-")
