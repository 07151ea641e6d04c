"""The first stage: what the boot loader loads besides the kernel. It finds a network and fetches the rest."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from fleetcast_boot.building.tools import run

FILES = Path(__file__).with_name("files")

MODULES = re.compile(
    r"kernel/(drivers/net/(ethernet|usb|phy|mdio|pcs|thunderbolt|hyperv|bonding|xen[^/]*|vmxnet3|virtio_net|mii|net_failover|"
    r"mdio[^/]*|macvlan|veth)|drivers/usb/(host|core|common|dwc3|roles|typec)|drivers/(virtio|hv|thunderbolt)|drivers/pci|"
    r"fs/(squashfs|overlayfs)|drivers/block/loop|net/8021q)"
)
"""What wired networks and the root file system need, built in or not; with what these need themselves."""

ALWAYS = ["virtio_net", "squashfs", "overlay", "loop"]


def make_first_stage(root: Path, work: Path, file: Path) -> None:
    """Makes the compressed archive `file` that the kernel unpacks into memory, from the Debian in `root`."""
    stage = work / "first"
    for name in ("bin", "proc", "sys", "dev", "run", "new", "etc", "tmp", "usr/share/udhcpc"):
        (stage / name).mkdir(parents=True)
    busybox = shutil.which("busybox", path="/usr/bin:/bin:/usr/sbin:/sbin") or "busybox"
    shutil.copy(busybox, stage / "bin/busybox")
    for applet in run([busybox, "--list"]).decode().split():
        if applet != "busybox":
            (stage / "bin" / applet).symlink_to("busybox")
    for name, target in (("init", "init"), ("udhcpc", "usr/share/udhcpc/default.script")):
        shutil.copy(FILES / name, stage / target)
        (stage / target).chmod(0o755)
    _copy_modules(root, stage)
    pack(stage, file)


def pack(folder: Path, file: Path) -> None:
    """Packs a folder as an archive that the kernel takes as its first root, always the same for the same files."""
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
    listing = "\0".join([".", *names]).encode() + b"\0"
    for path in (folder, *folder.rglob("*")):
        os.utime(path, (0, 0), follow_symlinks=False)
    archive = run(["cpio", "--null", "-o", "-H", "newc", "--quiet", "--reproducible"], stdin=listing, directory=folder)
    file.write_bytes(run(["zstd", "-q", "-19", "-T0", "-c"], stdin=archive))


def _copy_modules(root: Path, stage: Path) -> None:
    (kernel,) = [path.name for path in (root / "usr/lib/modules").iterdir()]
    source, target = root / "usr/lib/modules" / kernel, stage / "lib/modules" / kernel
    needs = {}
    for line in (source / "modules.dep").read_text().splitlines():
        name, _, needed = line.partition(":")
        needs[name] = needed.split()
    pending, taken = [name for name in needs if MODULES.match(name)], set[str]()
    while pending:
        name = pending.pop()
        if name not in taken:
            taken.add(name)
            pending += needs.get(name, [])
    for name in [*taken, "modules.builtin", "modules.order"]:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source / name, target / name)
    run(["depmod", "-b", stage, kernel])
    firmware = root / "usr/lib/firmware"
    for path in firmware.glob("*") if firmware.exists() else ():
        if path.is_dir():
            shutil.copytree(path, stage / "lib/firmware" / path.name, symlinks=True)
