"""An installation whose catalog, scheduler and senders are processes of their own, each on a host of its own."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.installation import (
    BIN,
    HERE,
    START_SECONDS,
    STOP_SECONDS,
    Installation,
    Place,
    ProcessFailedError,
    tail,
    wait_until,
)

PORT = 7443


@dataclass(frozen=True)
class Spot:
    """A host for one part."""

    address: str
    place: Place = HERE
    port: int = PORT

    @property
    def listen(self) -> str:
        """HOST:PORT of the part."""
        return f"{self.address}:{self.port}"


class PartsInstallation(Installation):
    """The same as one process, in several: nothing is known to them but addresses, and a token for the first start."""

    def __init__(self, directory: Path, *, scheduler: Spot, catalog: Spot, senders: Sequence[Spot]) -> None:
        super().__init__(directory, listen=scheduler.listen, place=scheduler.place)
        self._catalog = catalog
        self._senders = list(senders)
        self.parts: dict[str, subprocess.Popen[bytes]] = {}
        """Those that were started last: `scheduler`, `catalog`, `sender-0` and so on."""

    @property
    def catalog_address(self) -> str:
        """HOST:PORT of the catalog."""
        return self._catalog.listen

    @property
    def catalog_directory(self) -> Path:
        """Where the catalog keeps everything."""
        return self.directory / "catalog"

    def start_server(self, *flags: str) -> subprocess.Popen[bytes]:
        """Starts all parts and returns the scheduler when the senders are registered.

        Raises:
            ProcessFailedError: one did not get ready.
        """
        scheduler = self._start_part(
            "scheduler",
            [*self.server_command(*flags), "--catalog", self._catalog.listen],
            self._place,
        )
        self.environment |= {"FLEETCAST_SERVER": self.address, "FLEETCAST_CREDENTIALS": self._administrator}
        self._start_part(
            "catalog",
            [
                *(str(BIN / "fleetcast-catalog"), "run", "--listen", self._catalog.listen),
                *("--scheduler", self.address, "--data-dir", str(self.catalog_directory)),
                *("--credentials", str(self.catalog_directory / "server")),
            ],
            self._catalog.place,
            role="service",
        )
        for number in range(len(self._senders)):
            self.start_sender(number)
        return scheduler

    def start_sender(self, number: int) -> None:
        """Starts one sender and waits for its registration.

        Raises:
            ProcessFailedError: it did not get ready.
        """
        spot, name = self._senders[number], f"sender-{number}"
        directory = self.directory / name
        self._start_part(
            name,
            [
                *(str(BIN / "fleetcast-sender"), "run", "--listen", spot.listen, "--scheduler", self.address),
                *("--credentials", str(directory)),
            ],
            spot.place,
            role="sender",
            environment={"FLEETCAST_CACHE_DIR": str(self.directory / f"{name}-cache")},
        )
        wait_until(lambda: spot.listen in self._connected_senders(), f"{name} is registered")

    def server_command(self, *flags: str) -> list[str]:
        """Returns the command that starts the scheduler."""
        arguments = ["run", "--data-dir", str(self.data_directory), "--listen", self.listen, *flags]
        return [str(BIN / "fleetcast-scheduler"), *arguments]

    def stop_server(self) -> None:
        """Ends every part as a service manager does.

        Raises:
            ProcessFailedError: one did not end well.
        """
        for process in self.parts.values():
            process.terminate()
        for name, process in self.parts.items():
            if code := process.wait(STOP_SECONDS):
                raise ProcessFailedError(f"{name} ended with exit code {code}:\n{tail(self.server_log)}")

    def kill_server(self) -> None:
        """Ends every part as a power cut does."""
        for name in self.parts:
            self.kill_part(name)

    def kill_part(self, name: str) -> None:
        """Ends one part as a power cut does."""
        self.parts[name].send_signal(signal.SIGKILL)
        self.parts[name].wait()

    def sender_names(self) -> list[str]:
        """Returns the resource names of the senders, in the order of their spots."""
        names = {sender["address"]: str(sender["name"]) for sender in self._listed_senders()}
        return [names[spot.listen] for spot in self._senders]

    @property
    def _administrator(self) -> str:
        return str(self.data_directory / "administrator")

    def _connected_senders(self) -> list[str]:
        return [sender["address"] for sender in self._listed_senders() if sender["connected"]]

    def _listed_senders(self) -> list[dict[str, str]]:
        listed: list[dict[str, str]] = self.fleetcast("sender", "list")["senders"]
        return listed

    def _start_part(
        self,
        name: str,
        command: Sequence[str],
        place: Place,
        *,
        role: str = "",
        environment: dict[str, str] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Starts a part and returns its process when it says that it is ready; with a token at its first start."""
        own = dict(environment or {})
        if role and name not in self.parts:
            own["FLEETCAST_TOKEN"] = self.fleetcast("enrolment-token", "create", "--role", role)["token"]
        self._starts += 1
        out, log = self.directory / f"{name}-{self._starts}.out", self.server_log
        process = self.start(command, place=place, environment=own, stdout=out, stderr=log)
        deadline = time.monotonic() + START_SECONDS
        while not out.read_text().endswith("\n"):
            if process.poll() is not None or time.monotonic() > deadline:
                raise ProcessFailedError(f"{name} did not get ready:\n{tail(log)}")
            time.sleep(0.02)
        self.parts[name] = process
        return process
