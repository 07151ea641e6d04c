"""An installation seen from outside: a server, machines and an operator, each a process, all below one directory.

For end-to-end tests and the demo. Where a process runs is a function on its command: `HERE`, or a host of the network
lab. Nothing outlives the context.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

BIN = Path(sys.executable).parent
"""Where the commands are installed."""

SERVER_LOG = "server.log"
"""What the servers of an installation said on standard error, below its directory."""

START_SECONDS = 30.0
STOP_SECONDS = 20.0

Place = Callable[[Sequence[str]], list[str]]
"""Turns a command into the one that runs it in some place; the process keeps its id and its exit code."""

HERE: Place = list


class ProcessFailedError(Exception):
    """A process did not do what it was to do; the message has what it said."""


@dataclass
class Machine:
    """A computer with an agent, known to the server once it enrolled."""

    name: str
    directory: Path
    place: Place = HERE
    receptions: list["Reception"] = field(default_factory=list)

    @property
    def state_directory(self) -> Path:
        """The agent's state."""
        return self.directory / "state"

    @property
    def environment(self) -> dict[str, str]:
        """What its processes find in their environment besides the installation's."""
        return {"FLEETCAST_DISPLAY_NAME": self.name}


@dataclass
class Reception:
    """One run of `fleetcast-agent receive`."""

    process: subprocess.Popen[bytes]
    output: Path
    stdout: Path
    stderr: Path

    def wait(self, timeout_seconds: float = 120) -> dict[str, Any]:
        """Returns the summary of a reception that ends well.

        Raises:
            ProcessFailedError: it did not, or not in time.
        """
        try:
            code = self.process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            raise ProcessFailedError(
                f"a reception did not end within {timeout_seconds} s:\n{tail(self.stderr)}"
            ) from None
        if code:
            raise ProcessFailedError(f"a reception ended with exit code {code}:\n{tail(self.stderr)}")
        return self.summary()

    def summary(self) -> dict[str, Any]:
        """Returns the object that it printed last."""
        summary: dict[str, Any] = json.loads(self.stdout.read_text())
        return summary


class Installation:
    """A server on `listen` in `place`, and what talks to it; a context manager."""

    def __init__(
        self,
        directory: Path,
        *,
        listen: str = "127.0.0.1:0",
        place: Place = HERE,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.directory = directory
        self.data_directory = directory / "data"
        self.listen = listen
        self._place = place
        self._processes: list[subprocess.Popen[bytes]] = []
        self._server: subprocess.Popen[bytes] | None = None
        self._starts = 0
        (directory / "home").mkdir(parents=True)
        (directory / "fleetcast.toml").touch()
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("FLEETCAST_", "OTEL_"))}
        self.environment = clean | {
            "HOME": str(directory / "home"),
            "FLEETCAST_CONFIG": str(directory / "fleetcast.toml"),
            "PYTHONUNBUFFERED": "1",
            **(environment or {}),
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Ends every process: gently, then not."""
        for process in self._processes:
            if process.poll() is None:
                process.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        for process in self._processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
            process.kill()
            process.wait()

    @property
    def address(self) -> str:
        """HOST:PORT of the server, known once it ran."""
        return str(json.loads((self.data_directory / "administrator" / "server.json").read_text())["address"])

    @property
    def catalog_address(self) -> str:
        """HOST:PORT of the catalog."""
        return self.address

    @property
    def catalog_directory(self) -> Path:
        """Where the catalog keeps everything."""
        return self.data_directory

    def start_server(self, *flags: str) -> subprocess.Popen[bytes]:
        """Starts the server and returns its process when it is ready; the second time on the same port.

        Raises:
            ProcessFailedError: it did not get ready.
        """
        self._starts += 1
        out, log = self.directory / f"server-{self._starts}.out", self.server_log
        server = self.start(self.server_command(*flags), place=self._place, stdout=out, stderr=log)
        deadline = time.monotonic() + START_SECONDS
        while not out.read_text().endswith("\n"):
            if server.poll() is not None or time.monotonic() > deadline:
                raise ProcessFailedError(f"the server did not get ready:\n{tail(log)}")
            time.sleep(0.02)
        self._server = server
        self.listen = f"{self.listen.rpartition(':')[0]}:{self.address.rpartition(':')[2]}"
        self.environment |= {
            "FLEETCAST_SERVER": self.address,
            "FLEETCAST_CREDENTIALS": str(self.data_directory / "administrator"),
        }
        return server

    def server_command(self, *flags: str) -> list[str]:
        """Returns the command that starts the server."""
        arguments = ["run", "--data-dir", str(self.data_directory), "--listen", self.listen, *flags]
        return [str(BIN / "fleetcast-server"), *arguments]

    @property
    def server_log(self) -> Path:
        """What the servers said on standard error."""
        return self.directory / SERVER_LOG

    def stop_server(self) -> None:
        """Ends the server as a service manager does.

        Raises:
            ProcessFailedError: it did not end well.
        """
        server = self._running_server()
        server.terminate()
        if code := server.wait(STOP_SECONDS):
            raise ProcessFailedError(f"the server ended with exit code {code}:\n{tail(self.server_log)}")

    def kill_server(self) -> None:
        """Ends the server as a power cut does."""
        server = self._running_server()
        server.send_signal(signal.SIGKILL)
        server.wait()

    def run(self, *arguments: str, stdin: bytes | None = None) -> subprocess.CompletedProcess[str]:
        """Returns the end of a `fleetcast` command, with what it printed."""
        ended = subprocess.run(
            self._place([str(BIN / "fleetcast"), *arguments]),
            env=self.environment,
            input=stdin,
            capture_output=True,
            timeout=300,
            check=False,
        )
        return subprocess.CompletedProcess(ended.args, ended.returncode, ended.stdout.decode(), ended.stderr.decode())

    def fleetcast(self, *arguments: str) -> Any:
        """Returns what a `fleetcast` command prints with `--json`; its progress is shown on standard error.

        Raises:
            ProcessFailedError: it failed.
        """
        command = self._place([str(BIN / "fleetcast"), *arguments, "--json"])
        ended = subprocess.run(command, env=self.environment, stdout=subprocess.PIPE, check=False)
        if ended.returncode:
            raise ProcessFailedError(f"`fleetcast {' '.join(arguments)}` ended with exit code {ended.returncode}")
        return json.loads(ended.stdout)

    def watch(self, session: str, *flags: str, stdout: Path | None = None) -> subprocess.Popen[bytes]:
        """Starts `fleetcast session watch`, shown on standard output or written to a file."""
        return self.start(
            [str(BIN / "fleetcast"), "session", "watch", session, *flags], place=self._place, stdout=stdout
        )

    def enrol(self, names: Iterable[str], places: Mapping[str, Place] | None = None) -> list[Machine]:
        """Returns machines that enrolled, all with one token.

        Raises:
            ProcessFailedError: one could not.
        """
        machines = [Machine(name, self.directory / name, (places or {}).get(name, HERE)) for name in names]
        token = self.fleetcast("enrolment-token", "create", "--uses", str(len(machines)))["token"]
        started = []
        for machine in machines:
            machine.directory.mkdir()
            command = [str(BIN / "fleetcast-agent"), "enrol", "--server", self.address, "--token", token]
            command += ["--state-dir", str(machine.state_directory)]
            log = machine.directory / "enrol.log"
            started.append((machine, log, self._start_agent(machine, command, log, log)))
        for machine, log, process in started:
            if process.wait(START_SECONDS):
                raise ProcessFailedError(f"{machine.name} could not enrol:\n{tail(log)}")
        return machines

    def receive(
        self, machine: Machine, output: Path, *, session: str = "", image: str = "", flags: Sequence[str] = ()
    ) -> Reception:
        """Starts a machine's reception of a session or an image."""
        number = len(machine.receptions) + 1
        stdout, stderr = machine.directory / f"receive-{number}.json", machine.directory / f"receive-{number}.log"
        target = ["--session", session] if session else ["--image", image]
        command = [str(BIN / "fleetcast-agent"), "receive", *target, "--output", str(output), "--json"]
        command += ["--state-dir", str(machine.state_directory), *flags]
        process = self._start_agent(machine, command, stdout, stderr)
        reception = Reception(process, output, stdout, stderr)
        machine.receptions.append(reception)
        return reception

    def start(
        self,
        command: Sequence[str],
        *,
        place: Place = HERE,
        environment: Mapping[str, str] | None = None,
        stdin: int = subprocess.DEVNULL,
        stdout: Path | None = None,
        stderr: Path | None = None,
    ) -> subprocess.Popen[bytes]:
        """Starts a process in a session of its own: Ctrl-C reaches the parent alone, which ends them all."""
        with _opened(stdout) as out, _opened(stderr) as log:
            process = subprocess.Popen(
                place(command),
                env=self.environment | dict(environment or {}),
                stdin=stdin,
                stdout=out,
                stderr=log,
                start_new_session=True,
            )
        self._processes.append(process)
        return process

    def _start_agent(
        self, machine: Machine, command: Sequence[str], stdout: Path, stderr: Path
    ) -> subprocess.Popen[bytes]:
        return self.start(command, place=machine.place, environment=machine.environment, stdout=stdout, stderr=stderr)

    def _running_server(self) -> subprocess.Popen[bytes]:
        if self._server is None:
            raise ProcessFailedError("no server was started")
        return self._server


def wait_until(condition: Callable[[], bool], what: str, timeout_seconds: float = 60) -> None:
    """Returns as soon as `condition` holds; `what` says in words what is waited for.

    Raises:
        AssertionError: it did not hold in time.
    """
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"this did not happen within {timeout_seconds} s: {what}")
        time.sleep(0.1)


def tail(file: Path, line_count: int = 15) -> str:
    """Returns the last lines of a file."""
    return "\n".join(file.read_text(errors="replace").splitlines()[-line_count:])


@contextmanager
def _opened(path: Path | None) -> Iterator[IO[bytes] | None]:
    """Gives a file to append to, or None to share the parent's stream."""
    if path is None:
        yield None
    else:
        with path.open("ab") as file:
            yield file
