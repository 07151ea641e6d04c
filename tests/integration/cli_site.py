"""The command `fleetcast` as a process, in front of a scheduler on a real port."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleetcast.scheduler.v1.machine_service_pb2 import Inventory, Machine, RegisterMachineRequest
from fleetcast.scheduler.v1.machine_service_pb2_grpc import MachineServiceStub
from fleetcast_kit.identity.peer import Identity, Role

from tests.integration.scheduler_actors import Site, open_site
from tests.integration.test_scheduler import TIMING
from tests.support.forked import Ended, run_forked


@dataclass(frozen=True)
class Cli:
    """An administrator at a site."""

    site: Site
    credentials: Path
    time_zone: str = "Europe/Berlin"

    async def run(self, *arguments: str, stdin: bytes = b"") -> Ended:
        full = ["--server", self.site.address, "--credentials", str(self.credentials), *arguments]
        return await run_forked(full, stdin=stdin, environment={"TZ": self.time_zone})

    async def json(self, *arguments: str) -> Any:
        """Returns what a command prints with `--json`; it must do well and say nothing else."""
        ended = await self.run(*arguments, "--json")
        assert (ended.code, ended.err) == (0, ""), ended
        return json.loads(ended.out)

    async def text(self, *arguments: str, stdin: bytes = b"") -> str:
        """Returns what a command prints for people; it must do well."""
        ended = await self.run(*arguments, stdin=stdin)
        assert ended.code == 0, ended
        return ended.out

    async def refused(self, code: int, *arguments: str, stdin: bytes = b"") -> str:
        """Returns the one line of a command that must end with `code` and print nothing."""
        ended = await self.run(*arguments, stdin=stdin)
        assert (ended.code, ended.out) == (code, ""), ended
        assert ended.err.count("\n") == 1, ended.err
        return ended.err.removeprefix("fleetcast: ").rstrip("\n")

    async def register(self, number: int, **inventory: Any) -> Machine:
        """Has machine `number` register as its agent would."""
        stub: Any = MachineServiceStub(self.site.channel(Role.MACHINE, f"m{number}"))
        values: dict[str, Any] = {
            "serial_number": f"S{number}",
            "mac_addresses": [f"aa:bb:cc:00:00:{number:02x}"],
            "model": "OptiPlex",
            "memory_bytes": number * 2**30,
        }
        request = RegisterMachineRequest(display_name=f"pc-{number}", inventory=Inventory(**values | inventory))
        return (await stub.RegisterMachine(request)).machine  # type: ignore[no-any-return]


@asynccontextmanager
async def open_cli(directory: Path) -> AsyncIterator[Cli]:
    """Gives an administrator at a site with one image, `win11`, and no sender."""
    async with open_site(directory, TIMING) as site:
        credentials = directory / "administrator"
        site.authority.issue_credentials(Identity.of(Role.ADMINISTRATOR, "ada")).save(credentials)
        yield Cli(site, credentials)
