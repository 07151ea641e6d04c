"""Task sequences run on disk files with the real tools, for tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fleetcast_agent.sequence.content.content import ContentSource, DirectoryContent
from fleetcast_agent.sequence.context import StepContext
from fleetcast_agent.sequence.control import Control
from fleetcast_agent.sequence.engine.interface import SequenceOutcome, SequenceProgress
from fleetcast_agent.sequence.engine.records import Record
from fleetcast_agent.sequence.engine.run_journal import RunJournal
from fleetcast_agent.sequence.engine.state import replay
from fleetcast_agent.sequence.execution import execute
from fleetcast_agent.sequence.machine.disks import Disks, loops_of
from fleetcast_agent.sequence.tools import Tools
from fleetcast_sequence import Scope, Variables, parse

MIB = 1 << 20
TOOLS = ("sfdisk", "losetup", "mkfs.ntfs", "ntfs-3g", "mkfs.fat", "mcopy", "mkfs.ext4", "mkfs.xfs", "wimlib-imagex")

needs_disks = [
    pytest.mark.e2e,
    pytest.mark.skipif(os.geteuid() != 0, reason="loop devices and mounts need root"),
    pytest.mark.skipif(not Path("/dev/loop-control").exists(), reason="this kernel has no loop devices"),
    pytest.mark.skipif(not Path("/dev/fuse").exists(), reason="ntfs-3g needs /dev/fuse"),
    *(pytest.mark.skipif(shutil.which(tool) is None, reason=f"{tool} is not installed") for tool in TOOLS),
]
"""Marks of tests that work on disks."""


@dataclass
class Rehearsal:
    """A machine whose disk is a file, and a directory of images."""

    directory: Path
    size_bytes: int
    runs: int = 0
    reports: list[SequenceProgress] = field(default_factory=list)
    source: ContentSource | None = None
    """In place of the directory."""
    device: Path | None = None
    """A block device over the file, which is the disk in its place."""

    def __post_init__(self) -> None:
        self.content.mkdir(parents=True, exist_ok=True)
        if not self.disk.exists():
            with self.disk.open("wb") as file:
                file.truncate(self.size_bytes)

    @property
    def disk(self) -> Path:
        return self.directory / "disk.img"

    @property
    def content(self) -> Path:
        return self.directory / "content"

    @property
    def state(self) -> Path:
        return self.directory / f"run-{self.runs}"

    @property
    def log(self) -> str:
        return (self.state / "log.txt").read_text()

    def on(self, device: Path) -> Rehearsal:
        """Has the sequences run on this block device over the file."""
        self.device = device
        return self

    async def run(self, source: str, **values: str) -> SequenceOutcome:
        """Runs a new sequence on the disk as it is."""
        self.runs += 1
        return await self.go_on(source, **values)

    async def go_on(self, source: str, **values: str) -> SequenceOutcome:
        """Runs what is left of the last sequence."""
        return await execute(
            parse(source),
            self.state,
            values={Scope.DEPLOYMENT: values},
            machine="pc1",
            content=self.source or DirectoryContent(self.content),
            disks=Disks([self.device or self.disk]),
            control=Control(),
            report=self.reports.append,
        )

    async def steps(self, *steps: str, **values: str) -> SequenceOutcome:
        """Runs these steps, each `type: {arguments}`."""
        return await self.run(_sequence(steps), **values)

    def context(self) -> StepContext:
        """Returns a context in which the test can look at the volumes of the last run."""
        return looking_at(self.device or self.disk, self.directory / "looking", replay(_records(self.state)).volumes)


def looking_at(disk: Path, directory: Path, volumes: Mapping[str, dict[str, Any]] | None = None) -> StepContext:
    """Returns a context in which a test can look at a disk, from a directory of its own."""
    directory.mkdir(exist_ok=True)

    async def nothing(*_: object) -> dict[str, object]:
        return {}

    control = Control()
    return StepContext(
        run_directory=directory,
        step_directory=directory,
        tools=Tools(control, lambda line: None),
        control=control,
        disks=Disks([disk]),
        content=DirectoryContent(directory),
        variables=Variables({}, {}),
        environment="boot",
        log=lambda line: None,
        progress=lambda fraction: None,
        save=nothing,  # type: ignore[arg-type]
        volumes=volumes or {},
        gather=nothing,
    )


def _records(state: Path) -> list[Record]:
    journal = RunJournal(state / "journal")
    journal.close()
    return journal.records


def _sequence(steps: Sequence[str]) -> str:
    lines = []
    for step in steps:
        kind, _, arguments = step.partition(":")
        lines.append(f"  - {{name: {kind}, type: {kind}, with: {arguments.strip()}}}\n")
    return "name: rehearsal\nsteps:\n" + "".join(lines)


def tool(*command: str | Path) -> str:
    """Runs a tool and returns what it printed."""
    return subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True).stdout


def make_tree(root: Path) -> Path:
    """Makes a tree with all that a WIM can hold and a copy can lose."""
    deep = root / "Windows" / "System32" / ("long-" + "n" * 120) / "ordner-äöü-ß"
    deep.mkdir(parents=True)
    (deep / "datei-é.txt").write_text("grüße\n" * 1000)
    (root / "Users" / "Anna").mkdir(parents=True)
    (root / "Users/Anna/big.bin").write_bytes(os.urandom(3 * MIB))
    (root / "Users/Anna/empty").touch()
    os.link(root / "Users/Anna/big.bin", root / "Users/Anna/hard link.bin")
    (root / "Users/Anna/symbolic").symlink_to("big.bin")
    (root / "Windows/kernel.exe").write_bytes(b"MZ" + bytes(100_000))
    return root


def make_wim(tree: Path, wim: Path) -> None:
    """Captures a tree into a WIM with two images; the second has a file more."""
    tool("wimlib-imagex", "capture", tree, wim, "First", "--compress=XPRESS")
    (tree / "Windows/second").write_text("only in index 2")
    tool("wimlib-imagex", "append", tree, wim, "Second")


def let_go(disk: Path) -> bool:
    """Returns whether no loop device holds the disk, within ten seconds.

    The kernel keeps one that was let go of while somebody else has it open, such as a test beside this one that looks
    at the disks of the computer.
    """
    until = time.monotonic() + 10
    while loops_of(disk) and time.monotonic() < until:
        time.sleep(0.02)
    return not loops_of(disk)
