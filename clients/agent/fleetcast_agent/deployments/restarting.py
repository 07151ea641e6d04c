"""What this machine has started from, and how it is restarted."""

from __future__ import annotations

import asyncio
import json
import shutil
import uuid
from pathlib import Path
from typing import Protocol

from fleetcast_kit.errors import FailedPreconditionError
from fleetcast_kit.files import make_private_directory, write_atomically

from fleetcast_agent.deployments.orders import Environment
from fleetcast_agent.sequence.machine import inventory

_REBOOT_SECONDS = 60.0
_OF_BOOT_ENVIRONMENTS = frozenset({"rootfs", "tmpfs", "ramfs", "overlay", "squashfs", "nfs", "nfs4"})
"""File systems that a boot environment runs from."""


class Starter(Protocol):
    """Knows what the machine has started, and restarts it."""

    @property
    def environment(self) -> Environment:
        """What has started."""
        ...

    @property
    def boot_id(self) -> str:
        """Another one after each start of the machine."""
        ...

    async def restart(self, environment: Environment) -> bool:
        """Restarts; returns whether this process goes on, as part of a machine that has started anew.

        Raises:
            FailedPreconditionError: it cannot be restarted from here.
        """
        ...


class Computer:
    """This computer itself."""

    def __init__(self, environment: Environment | None) -> None:
        """Takes what has started, or None to see by the root file system."""
        self.environment: Environment = environment or _environment_of(Path("/proc/self/mounts").read_text())
        self.boot_id = inventory.boot_id()

    async def restart(self, environment: Environment) -> bool:
        """Restarts the computer; which system comes up is for its firmware to say. This process will be ended."""
        command = ["systemctl", "reboot"] if _has_systemd() else ["reboot"]
        program = shutil.which(command[0])
        if program is None:
            raise FailedPreconditionError(f"this system has no program {command[0]!r}: restart the machine by hand")
        process = await asyncio.create_subprocess_exec(
            program, *command[1:], stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
        )
        _, said = await asyncio.wait_for(process.communicate(), _REBOOT_SECONDS)
        if process.returncode:
            detail = said.decode(errors="replace").strip() or f"exit code {process.returncode}"
            raise FailedPreconditionError(f"the machine cannot be restarted from here ({detail}): restart it by hand")
        return False


class Rehearsal:
    """A machine on disk files: it restarts by going on as if it had."""

    def __init__(self, state_dir: Path, environment: Environment | None) -> None:
        """Takes where it is remembered what has started, and what has, unless that was remembered."""
        self._file = state_dir / "started.json"
        try:
            kept = json.loads(self._file.read_text())
            self.environment: Environment = "installed" if kept["environment"] == "installed" else "boot"
            self.boot_id = str(kept["boot_id"])
        except (OSError, ValueError, KeyError, TypeError):
            self._start(environment or "boot")

    async def restart(self, environment: Environment) -> bool:
        """Notes on disk that the machine has restarted."""
        await asyncio.to_thread(self._start, environment)
        return True

    def _start(self, environment: Environment) -> None:
        self.environment, self.boot_id = environment, str(uuid.uuid4())
        make_private_directory(self._file.parent)
        content = json.dumps({"environment": self.environment, "boot_id": self.boot_id})
        write_atomically(self._file, content.encode())


def _has_systemd() -> bool:
    return Path("/run/systemd/system").exists()


def _environment_of(mounts: str) -> Environment:
    """Returns what has started, by the mounts of its processes: a boot environment runs from memory or the network."""
    kind = next((fields[2] for fields in map(str.split, mounts.splitlines()) if fields[1] == "/"), "")
    return "boot" if kind in _OF_BOOT_ENVIRONMENTS else "installed"
