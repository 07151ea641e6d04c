"""Network namespaces: commands in them, and their removal with everything in them."""

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path


class LabError(Exception):
    """A command that builds or changes the lab failed."""


def remove_abandoned(prefix: str) -> None:
    """Remove the namespaces PREFIX-PID-..., and kill the processes in them, of which the process PID is gone."""
    pattern = re.compile(rf"{prefix}-(\d+)-")
    remove(name for name in names() if (match := pattern.match(name)) and not Path("/proc", match.group(1)).exists())


def names() -> list[str]:
    """Returns the names of all namespaces."""
    return [entry["name"] for entry in json.loads(call(["ip", "-j", "netns", "list"]) or "[]")]


def remove(namespaces: Iterable[str]) -> None:
    """Kill every process in the namespaces and remove them."""
    for name in list(namespaces):
        for pid in attempt(["ip", "netns", "pids", name]).split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        attempt(["ip", "netns", "delete", name])


def attempt(argv: Sequence[str]) -> str:
    """Run a command that may fail and return what it printed."""
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=30).stdout


def batch(namespace: str, lines: Sequence[str]) -> None:
    """Run several commands of `ip` in a namespace.

    Raises:
        LabError: one failed.
    """
    call(["ip", "-n", namespace, "-batch", "-"], "\n".join(lines) + "\n")


def call(argv: Sequence[str], text: str = "") -> str:
    """Run a command with `text` as its input and return what it printed.

    Raises:
        LabError: it failed.
    """
    try:
        return subprocess.run(argv, input=text, capture_output=True, text=True, check=True, timeout=30).stdout
    except subprocess.CalledProcessError as error:
        raise LabError(f"{' '.join(argv)}: {error.stderr.strip() or error.stdout.strip()}") from error
