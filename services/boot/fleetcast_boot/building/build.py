"""Builds a boot image: root, first stage, kernel and loaders."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from fleetcast_boot.building import agent, debian
from fleetcast_boot.building.first_stage import FILES, make_first_stage
from fleetcast_boot.building.pruning import prune_agent, prune_root
from fleetcast_boot.building.tools import check_tools, run
from fleetcast_boot.images import FIRST_STAGE, KERNEL, LOADERS, ROOT, BootImage, BootImages

_IMPORT_ALL = """
import importlib, pkgutil, fleetcast_agent
for module in pkgutil.walk_packages(fleetcast_agent.__path__, "fleetcast_agent."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
importlib.import_module("fleetcast_agent.__main__")
"""
"""Imports every module of the agent: what pruning took too much of fails here, and not on three hundred machines."""


def build(images: BootImages, data_directory: Path, say: Callable[[str], None], mirror: str = "") -> BootImage:
    """Returns a boot image, built from Debian's packages and the agent that is installed here.

    It takes about three minutes, 3 GB below `data_directory` meanwhile, and `say` is told of each step.

    Raises:
        FailedPreconditionError: it cannot be built here; the sentence says why.
    """
    check_tools()
    release, agent_version = debian.suite(), agent.version()
    data_directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".build-", dir=data_directory) as name:
        work = Path(name)
        root, built = work / "root", work / "built"
        built.mkdir()
        say(f"installing Debian {release}")
        debian.make_root(release, root, mirror)
        (kernel,) = [path.name for path in (root / "usr/lib/modules").iterdir()]
        shutil.copy(root / "boot" / f"vmlinuz-{kernel}", built / KERNEL)
        say("removing what a boot image does not need")
        prune_root(root)
        say(f"adding the agent {agent_version}")
        _add_agent(root)
        say("making the first stage")
        make_first_stage(root, work, built / FIRST_STAGE)
        say("compressing the system")
        _compress(root, built / ROOT)
        say(f"fetching the signed boot loaders of Debian {debian.LOADER_SUITE}")
        debian.make_loaders(built / LOADERS, mirror)
        return images.add(
            built,
            architecture="amd64",
            kernel_version=kernel,
            agent_version=agent_version,
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )


def _add_agent(root: Path) -> None:
    library = root / "opt/fleetcast/lib"
    names = agent.copy_agent(library)
    prune_agent(library)
    (root / "opt/fleetcast/packages.txt").write_text("\n".join(names) + "\n")
    shutil.copytree(FILES / "overlay", root, dirs_exist_ok=True)
    (root / "opt/fleetcast/bin/boot-agent").chmod(0o755)
    for arguments in (["-c", _IMPORT_ALL], ["-m", "fleetcast_agent", "run", "--help"]):
        command: list[str | Path] = ["chroot", root, "/usr/bin/python3", "-sB", *arguments]
        run(command, environment={"PYTHONPATH": "/opt/fleetcast/lib"})
    (root / "etc/systemd/system/default.target").unlink(missing_ok=True)
    (root / "etc/systemd/system/default.target").symlink_to("fleetcast.target")
    (root / "etc/hostname").write_text("fleetcast-boot\n")
    (root / "etc/machine-id").write_text("")
    resolver = root / "etc/resolv.conf"
    resolver.unlink(missing_ok=True)
    resolver.symlink_to("/run/systemd/resolve/resolv.conf")


def _compress(root: Path, file: Path) -> None:
    command: list[str | Path] = ["mksquashfs", root, file, "-noappend", "-quiet", "-no-progress", "-no-xattrs"]
    command += ["-comp", "zstd", "-Xcompression-level", "19", "-b", "1M", "-all-time", "0", "-mkfs-time", "0"]
    run(command)
