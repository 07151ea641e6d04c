"""A Debian disk image on disks of different sizes, and a machine that starts from it."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from fleetcast_agent.sequence.disks import volumes
from fleetcast_agent.sequence.engine.records import Outcome

from tests.support.debian import DebianError, kept_debian
from tests.support.sequences import Rehearsal, needs_disks, tool

_TOOLS = ("mmdebstrap", "qemu-system-x86_64", "grub-mkimage")
_PACKAGES = "linux-image-cloud-amd64,systemd-sysv,udev,login,passwd,e2fsprogs"
_OVMF = "/usr/share/ovmf/OVMF.fd"

pytestmark = [
    *needs_disks,
    *(pytest.mark.skipif(shutil.which(name) is None, reason=f"{name} is not installed") for name in _TOOLS),
]

MIB = 1 << 20
IMAGE_MIB = {"bios": 640, "uefi-linux": 1160}
BOOT_SECONDS = 600
"""Emulated on a busy core, a start takes minutes."""


@pytest.fixture(scope="session")
def debian() -> Path:
    """Returns an archive of a small Debian, kept between runs."""
    try:
        return kept_debian("bookworm", _PACKAGES)
    except DebianError as error:
        pytest.skip(str(error))


async def reference_disk(directory: Path, debian: Path, layout: str) -> Path:
    """Returns a disk image with a Debian that starts by itself."""
    machine = Rehearsal(directory, IMAGE_MIB[layout] * MIB)
    outcome = await machine.steps(f"partition-disk: {{layout: {layout}}}")
    assert outcome.outcome is Outcome.SUCCEEDED, outcome
    context = machine.context()
    async with volumes.mounted(context, await volumes.find(context, "root")) as root:
        await asyncio.to_thread(tool, "tar", "-xf", debian, "-C", root, "--numeric-owner", "--exclude=./dev/*")
    efi = ", efi_volume: 'label:EFI'" if layout == "uefi-linux" else ""
    outcome = await machine.steps(f"configure-boot: {{volume: 'label:root'{efi}, kernel_arguments: console=ttyS0}}")
    assert outcome.outcome is Outcome.SUCCEEDED, outcome
    return machine.disk


def starts(disk: Path, *options: str) -> str:
    """Returns what the machine said on its serial line until it asked for a login, or until the time was over."""
    command = ["qemu-system-x86_64", "-accel", "tcg", "-m", "512", "-nographic", "-no-reboot", "-nic", "none", *options]
    command += ["-drive", f"file={disk},format=raw,if=virtio", "-serial", "stdio", "-monitor", "none"]
    machine = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert machine.stdout is not None
    os.set_blocking(machine.stdout.fileno(), False)
    said = ""
    until = time.monotonic() + BOOT_SECONDS
    try:
        while "login:" not in said and machine.poll() is None and time.monotonic() < until:
            said += (machine.stdout.read() or b"").decode(errors="replace")
            time.sleep(0.2)
    finally:
        machine.kill()
        machine.wait()
        machine.stdout.close()
    return said


no_firmware = pytest.mark.skipif(not os.path.exists(_OVMF), reason="no UEFI firmware for qemu: install ovmf")


@pytest.mark.parametrize(
    "layout", [pytest.param("uefi-linux", marks=no_firmware), pytest.param("bios", marks=pytest.mark.slow)]
)
async def test_a_linux_image_grows_to_each_disk_and_starts(tmp_path: Path, debian: Path, layout: str) -> None:
    image = await reference_disk(tmp_path / "reference", debian, layout)
    size_mib = IMAGE_MIB[layout]
    identities = set()
    for number, more_mib in enumerate((0, 100, 700)):
        machine = Rehearsal(tmp_path / f"pc{number}", (size_mib + more_mib) * MIB)
        os.link(image, machine.content / "debian")
        outcome = await machine.steps(
            "apply-operating-system: {image: debian, disk: system, root: root}",
            f"apply-linux-settings: {{volume: root, host_name: pc{number}}}",
        )
        assert outcome.outcome is Outcome.SUCCEEDED, outcome
        context = machine.context()
        async with volumes.mounted(context, await volumes.find(context, "root"), read_only=True) as root:
            status = os.statvfs(root)
            assert status.f_blocks * status.f_frsize > (size_mib + more_mib - 600) * MIB
            identities.add((root / "etc/machine-id").read_text())
            assert (root / "etc/hostname").read_text() == f"pc{number}\n"
    assert len(identities) == 3
    firmware = ["-bios", _OVMF] if layout == "uefi-linux" else []
    said = await asyncio.to_thread(starts, machine.disk, *firmware)
    assert "pc2 login:" in said, said[-3000:]
