"""The command `fleetcast`, forked from a process that has imported it: importing takes a second, tests run it often."""

import asyncio
import multiprocessing
import os
import pkgutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import fleetcast_cli
from fleetcast_cli.app import app
from fleetcast_kit.process.commandline import run_command_line

_MODULES = [module.name for module in pkgutil.walk_packages(fleetcast_cli.__path__, "fleetcast_cli.")]
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload([__name__, *_MODULES])


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


async def run_forked(
    arguments: Sequence[str], *, stdin: bytes = b"", environment: Mapping[str, str], timeout_seconds: float = 60
) -> Ended:
    """Returns the end of `fleetcast` with `arguments`; `environment` replaces all OTEL_ and FLEETCAST_ variables."""
    with tempfile.TemporaryDirectory() as directory:
        streams = [Path(directory, name) for name in ("in", "out", "err")]
        streams[0].write_bytes(stdin)
        process = _FORKS.Process(target=_run, args=(list(arguments), streams, dict(environment)))
        process.start()
        ended, loop = asyncio.Event(), asyncio.get_running_loop()
        loop.add_reader(process.sentinel, ended.set)
        try:
            await asyncio.wait_for(ended.wait(), timeout_seconds)
        finally:
            loop.remove_reader(process.sentinel)
            process.kill()
            process.join()
        return Ended(process.exitcode or 0, streams[1].read_text(), streams[2].read_text())


def _run(arguments: list[str], streams: list[Path], environment: dict[str, str]) -> None:
    """Is the command, in a process of its own."""
    for descriptor, (path, flags) in enumerate(zip(streams, (os.O_RDONLY, os.O_WRONLY, os.O_WRONLY), strict=True)):
        os.dup2(os.open(path, flags | os.O_CREAT), descriptor)
    for name in [name for name in os.environ if name.startswith(("OTEL_", "FLEETCAST_"))]:
        del os.environ[name]
    os.environ.update(environment)
    time.tzset()
    sys.stdin = os.fdopen(0)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
    code = run_command_line(app, "fleetcast", arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
