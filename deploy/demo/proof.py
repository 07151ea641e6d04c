"""Proof that a disk holds exactly the image, by tools that know nothing of fleetcast."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.demo.inputs import Input

BLOCK_BYTES = 8 * 2**20


@dataclass(frozen=True)
class Proof:
    """What was found out about one machine's disk."""

    machine: str
    image: Input
    summary: dict[str, Any]
    """What the agent said at its end."""
    identical: bool
    clean: bool
    """The image's own tool found nothing wrong."""
    complaint: str
    """What that tool said otherwise."""

    @property
    def holds(self) -> bool:
        """True if every byte and the tool agree."""
        return self.identical and self.clean


def prove(machine: str, image: Input, output: Path, summary: dict[str, Any]) -> Proof:
    """Returns what comparing `output` with the image's file, and the image's own tool, say."""
    checked = subprocess.run([*image.check, output], capture_output=True, text=True, check=False)
    lines = (checked.stdout + checked.stderr).strip().splitlines()
    return Proof(
        machine=machine,
        image=image,
        summary=summary,
        identical=files_are_equal(image.file, output),
        clean=checked.returncode == 0,
        complaint="" if checked.returncode == 0 else lines[-1] if lines else f"exit code {checked.returncode}",
    )


def files_are_equal(one: Path, other: Path) -> bool:
    """Returns whether two files have the same bytes, by reading both."""
    if one.stat().st_size != other.stat().st_size:
        return False
    with one.open("rb") as left, other.open("rb") as right:
        while block := left.read(BLOCK_BYTES):
            if block != right.read(BLOCK_BYTES):
                return False
    return True
