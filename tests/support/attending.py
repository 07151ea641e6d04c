"""Machines on disk files that wait for deployments, each a process of `fleetcast-agent run`."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.installation import BIN, Installation, ProcessFailedError, tail, wait_until


@dataclass
class AttendingMachine:
    """A computer whose disk is a file, and its agent."""

    name: str
    installation: Installation
    size_bytes: int
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.directory.mkdir(exist_ok=True)
        if not self.disk.exists():
            with self.disk.open("wb") as file:
                file.truncate(self.size_bytes)

    @property
    def directory(self) -> Path:
        """Where everything of this machine is."""
        return self.installation.directory / self.name

    @property
    def disk(self) -> Path:
        """The file that stands for its disk."""
        return self.directory / "disk.img"

    @property
    def state(self) -> Path:
        """Its agent's state directory."""
        return self.directory / "state"

    @property
    def log(self) -> Path:
        """What its agents said on standard error."""
        return self.directory / "agent.log"

    def start(self, *flags: str) -> subprocess.Popen[bytes]:
        """Starts the agent: `run --once --json`, and `flags`."""
        number = len(self.processes) + 1
        command = [str(BIN / "fleetcast-agent"), "run", "--once", "--json", "--server", self.installation.address]
        command += ["--state-dir", str(self.state), "--disk", str(self.disk), *flags]
        process = self.installation.start(
            command,
            environment={"FLEETCAST_DISPLAY_NAME": self.name},
            stdout=self.directory / f"run-{number}.json",
            stderr=self.log,
        )
        self.processes.append(process)
        return process

    def events(self) -> list[dict[str, Any]]:
        """Returns what its present agent said on standard output."""
        text = (self.directory / f"run-{len(self.processes)}.json").read_text()
        return [json.loads(line) for line in text.splitlines() if line.endswith("}")]

    def wait_for(self, event: str, timeout_seconds: float = 60, **fields: Any) -> dict[str, Any]:
        """Returns the first event of this kind and with these fields, once it was said."""
        found: list[dict[str, Any]] = []

        def said() -> bool:
            if self.processes[-1].poll() not in (None, 0, 1):
                raise ProcessFailedError(f"{self.name} ended:\n{tail(self.log)}")
            wanted = {"event": event} | fields
            found.extend(each for each in self.events() if wanted.items() <= each.items())
            return bool(found)

        wait_until(said, f"{self.name} says {event} {fields}", timeout_seconds)
        return found[0]

    def kill(self) -> None:
        """Ends the agent as a power cut does."""
        self.processes[-1].send_signal(signal.SIGKILL)
        self.processes[-1].wait()

    def wait(self, timeout_seconds: float = 120) -> int:
        """Returns the agent's exit code."""
        return self.processes[-1].wait(timeout_seconds)


def gather_machines(
    installation: Installation, names: Sequence[str], size_bytes: int, *flags: str, collection: str = "lab"
) -> list[AttendingMachine]:
    """Returns machines that attend, members of a collection that is made for them."""
    token = installation.fleetcast("enrolment-token", "create", "--uses", str(len(names)))["token"]
    machines = [AttendingMachine(name, installation, size_bytes) for name in names]
    for machine in machines:
        machine.start("--token", token, *flags)
    for machine in machines:
        machine.wait_for("standby")
    installation.fleetcast("collection", "create", collection)
    installation.fleetcast("collection", "add", collection, *names)
    return machines


def exit_codes(machines: Iterable[AttendingMachine], timeout_seconds: float = 120) -> dict[str, int]:
    """Returns the exit codes of the machines' agents."""
    return {machine.name: machine.wait(timeout_seconds) for machine in machines}
