"""The programs that a build calls."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from fleetcast_kit.errors import FailedPreconditionError

PACKAGES = {
    "mmdebstrap": "mmdebstrap",
    "mksquashfs": "squashfs-tools",
    "cpio": "cpio",
    "zstd": "zstd",
    "busybox": "busybox-static",
    "grub-mkimage": "grub-common",
    "strip": "binutils",
    "depmod": "kmod",
}
"""Debian's package of each program."""

_PATH = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"
_MESSAGE_BYTES = 2_000


def check_tools() -> None:
    """Makes sure that a build can run here.

    Raises:
        FailedPreconditionError: it cannot; the sentence says what to install, or that root is needed.
    """
    if os.geteuid() != 0:
        raise FailedPreconditionError(
            "a boot image is built as root: it has device nodes and files of other owners; run it with sudo"
        )
    missing = sorted(package for tool, package in PACKAGES.items() if shutil.which(tool, path=_PATH) is None)
    if not Path("/usr/lib/grub/i386-pc/pxeboot.img").exists():
        missing.append("grub-pc-bin")
    if missing:
        raise FailedPreconditionError(
            f"a boot image cannot be built without: apt-get install {' '.join(missing)}", reason="TOOLS_MISSING"
        )


def run(
    command: Sequence[str | Path],
    *,
    stdin: bytes | None = None,
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
    timeout_seconds: float = 1_800,
) -> bytes:
    """Returns what a program prints on its standard output.

    Raises:
        FailedPreconditionError: it fails; the sentence has its last words.
    """
    words = [str(word) for word in command]
    settings = {"PATH": _PATH, "LC_ALL": "C.UTF-8", "HOME": "/root", **(environment or {})}
    try:
        ended = subprocess.run(
            words, input=stdin, env=settings, cwd=directory, capture_output=True, timeout=timeout_seconds, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise FailedPreconditionError(f"the boot image cannot be built: {words[0]}: {error}") from error
    if ended.returncode:
        said = ended.stderr.decode(errors="replace").strip()[-_MESSAGE_BYTES:]
        raise FailedPreconditionError(
            f"the boot image cannot be built: {words[0]} ended with {ended.returncode}: {said or 'it said nothing'}"
        )
    return ended.stdout
