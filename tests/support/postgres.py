"""A PostgreSQL of the tests' own: made in a temporary directory, reached by a socket in it, gone at the end."""

from __future__ import annotations

import functools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

START_SECONDS = 30.0
STOP_SECONDS = 10.0
_USER = "fleetcast"
_FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=200", "shared_buffers=32MB")


@functools.cache
def programs() -> Path | None:
    """Returns the directory of the server's programs, or None; Debian keeps them out of the path."""
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    found = shutil.which("pg_isready")
    return versions[-1] if versions else (Path(found).parent if found else None)


def why_unavailable() -> str:
    """Returns why there can be no PostgreSQL here, in one line; empty if there can."""
    if programs() is None:
        return "PostgreSQL is not installed: deploy/packages.sh database"
    return "" if _account() is not None else "as root, PostgreSQL needs its user postgres"


class PostgresServer:
    """A server; a context manager. Nothing of it is durable, so it is fast."""

    def __init__(self) -> None:
        self._directory = Path()
        self._process: subprocess.Popen[bytes] | None = None
        self._count = 0

    def __enter__(self) -> Self:
        self._directory = Path(tempfile.mkdtemp(prefix="fleetcast-postgres-"))
        try:
            self._start(_account() or {})
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _start(self, account: dict[str, Any]) -> None:
        if "user" in account:
            os.chown(self._directory, account["user"], account["group"])
        data, log = self._directory / "data", self._directory / "log"
        own = ("--username", _USER, "--auth", "trust", "--locale", "C.UTF-8")
        self._run("initdb", "--pgdata", data, "--no-sync", *own)
        settings = [part for setting in _FAST for part in ("-c", setting)]
        with log.open("wb") as said:
            self._process = subprocess.Popen(
                [self._program("postgres"), "-D", data, "-k", self._directory, "-h", "", *settings],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=said,
                cwd=self._directory,
                **account,
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"PostgreSQL did not start: {log.read_text()[-500:]}")
            time.sleep(0.05)

    def _is_ready(self) -> bool:
        command = [str(self._program("pg_isready")), "--quiet", "--host", str(self._directory)]
        return subprocess.run(command, check=False, timeout=START_SECONDS).returncode == 0

    def close(self) -> None:
        """Ends the server and removes everything."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)  # fast: it waits for no connection
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        shutil.rmtree(self._directory, ignore_errors=True)

    def create_database(self) -> str:
        """Returns the URL of a new, empty database."""
        self._count += 1
        name = f"test{self._count}"
        self._run("createdb", "--host", self._directory, "--username", _USER, name)
        return f"postgresql://{_USER}@/{name}?host={self._directory}"

    def _run(self, program: str, *arguments: str | Path) -> None:
        subprocess.run(
            [self._program(program), *arguments],
            check=True,
            capture_output=True,
            timeout=60,
            cwd=self._directory,
            **(_account() or {}),
        )

    def _program(self, name: str) -> Path:
        directory = programs()
        assert directory is not None, why_unavailable()
        return directory / name


def _account() -> dict[str, Any] | None:
    """Returns as whom the server runs, for `subprocess`: never as root, which it refuses. None if nobody is there."""
    if os.geteuid() != 0:
        return {}
    try:
        found = pwd.getpwnam("postgres")
    except KeyError:
        return None
    return {"user": found.pw_uid, "group": found.pw_gid, "extra_groups": []}
