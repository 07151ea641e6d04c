"""What the agent can be told by flags, FLEETCAST_* variables and the file's table `agent`."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from fleetcast_kit.errors import InvalidArgumentError, NotFoundError
from fleetcast_kit.files import write_atomically
from fleetcast_kit.process.settings import CommaSeparated, Settings
from pydantic import BeforeValidator, Field, field_validator
from pydantic_settings import NoDecode

_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_SERVER_FILE = "server.json"
LEAST_MEMORY_BYTES = 64 << 20


def default_state_dir() -> Path:
    """Returns where the agent keeps its identity and its journals."""
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        return Path("/var/lib/fleetcast-agent")
    return Path.home() / ".local/state/fleetcast-agent"


def _split(value: object) -> object:
    return [part for part in value.split(",") if part] if isinstance(value, str) else value


Paths = Annotated[tuple[Path, ...], NoDecode, BeforeValidator(_split)]
"""Type of a field with several paths: a repeated flag, `A,B` in a variable, an array in the file."""


class AgentSettings(Settings):
    """The agent's settings."""

    table: ClassVar[str] = "agent"

    server: str = ""
    """HOST:PORT; empty to use the one that this machine enrolled with."""
    state_dir: Path = default_state_dir()
    display_name: str = Field(default_factory=socket.gethostname)
    """What people see; the host name unless it says little, as in a container."""
    multicast_interface: str = ""
    memory: int = 0
    """About how many bytes the process may use; 0 chooses by the machine's memory."""
    disk: Paths = ()
    """The machine's disks, or files that stand for them, the system's first; empty to use this computer's."""
    environment: Literal["", "boot", "installed"] = ""
    """What has started; empty to see by oneself."""
    ticket: str = ""
    """What the boot service gave this start of the machine, for its own identity."""
    accept: CommaSeparated = ()
    """Available deployments to run without being asked, by their ids; `any` for all."""

    @field_validator("memory", mode="before")
    @classmethod
    def _parse_memory(cls, value: object) -> int:
        parsed = parse_bytes(str(value))
        if parsed and parsed < LEAST_MEMORY_BYTES:
            raise ValueError(f"at least {LEAST_MEMORY_BYTES >> 20}MiB are needed")
        return parsed

    def server_address(self) -> str:
        """Returns the address of the scheduler.

        Raises:
            NotFoundError: none was given, and this machine is not enrolled.
        """
        if self.server:
            return self.server
        try:
            return str(json.loads((self.state_dir / _SERVER_FILE).read_text())["address"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise NotFoundError(
                f"this machine is not enrolled ({self.state_dir} names no server): run fleetcast-agent enrol first",
                reason="NOT_ENROLLED",
            ) from error


def save_server_address(state_dir: Path, address: str) -> None:
    """Keep the address of the scheduler for later commands."""
    write_atomically(state_dir / _SERVER_FILE, json.dumps({"address": address}).encode())


def parse_bytes(text: str) -> int:
    """Returns the bytes that `128MiB`, `1G` or a plain number says; prefixes are powers of 1024.

    Raises:
        InvalidArgumentError: it says none.
    """
    compact = text.strip().lower().removesuffix("b").removesuffix("i")
    unit = compact[-1:] if compact[-1:] in _UNITS else ""
    number = compact.removesuffix(unit)
    if not (number.isascii() and number.isdecimal()):
        raise InvalidArgumentError(f"{text!r} is not a size: write it like 128MiB or 1GiB", field="memory")
    return int(number) * _UNITS[unit]
