"""What a boot image does not carry. Every path was tried: what is not needed to load, install and report goes."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from fleetcast_boot.building.tools import run

FILES = Path(__file__).with_name("files")

PATHS = (FILES / "pruned-paths").read_text().split()
"""Patterns of paths in the root."""

MODULES = (FILES / "pruned-modules").read_text().split()
"""Folders of kernel modules: Wi-Fi cannot be started from, and the screen has the firmware's frame buffer."""

FIRMWARE_KEPT = ("rtl_nic", "tigon", "bnx2", "bnx2x", "cxgb3", "cxgb4", "e100", "tehuti", "3com", "acenic", "adaptec")
"""Folders of firmware for wired network cards; those whose names begin so stay as well."""

_EMPTY = ("run", "tmp", "var/cache", "var/log", "var/tmp", "proc", "sys", "dev", "mnt")

_AGENT_PATTERNS = (
    "numpy/f2py",
    "numpy/_core/include",
    "numpy/_core/lib",
    "bin",
    "share",
    "**/tests",
    "**/*.pyi",
    "**/*.pxd",
    "**/*.pyx",
)


def prune_root(root: Path) -> None:
    """Removes from the Debian of a boot image what it does not need."""
    _remove(root, PATHS)
    (kernel,) = [path.name for path in (root / "usr/lib/modules").iterdir()]
    _remove(root / "usr/lib/modules" / kernel / "kernel", MODULES)
    firmware = root / "usr/lib/firmware"
    _remove(firmware, [path.name for path in firmware.glob("*") if not path.name.startswith(FIRMWARE_KEPT)])
    _remove(root, ["**/__pycache__"])
    run(["depmod", "-b", root, kernel])
    for name in _EMPTY:
        (root / name).mkdir(parents=True, exist_ok=True)


def prune_agent(folder: Path) -> None:
    """Removes from the agent's packages what it does not need to run."""
    _remove(folder, _AGENT_PATTERNS)
    for path in folder.rglob("*.so*"):
        # numpy's own libraries are aligned in a way that strip breaks.
        if path.is_file() and not path.relative_to(folder).parts[0].startswith("numpy"):
            run(["strip", "--strip-unneeded", path])


def _remove(folder: Path, patterns: Sequence[str]) -> None:
    for pattern in patterns:
        for path in list(folder.glob(pattern)):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
