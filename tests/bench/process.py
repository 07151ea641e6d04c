"""Programs under measurement: their output with times, their end, what they used."""

import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.support.lab import Host, NetworkLab

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class BenchError(Exception):
    """A program failed, hung or gave a wrong result; the message says where its output is."""


@dataclass(frozen=True)
class Line:
    """A line that a program printed."""

    at: float
    """When, in seconds of the monotonic clock."""
    text: str


class Meter:
    """What a child process of ours uses, taken without reaping it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.ended_at = 0.0
        """When it ended, in seconds of the monotonic clock; 0 while it runs."""
        self.cpu_seconds = 0.0
        """User and system time, once it ended."""
        self.peak_memory_bytes = 0
        """Largest resident set since its exec, as it was in its last tenth of a second."""
        self._ended = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._sampler = threading.Thread(target=self._sample, daemon=True)
        self._watcher.start()
        self._sampler.start()

    def wait(self, timeout_seconds: float) -> bool:
        """Returns whether the process has ended, as soon as it has, or after the timeout."""
        return self._ended.wait(timeout_seconds)

    def _watch(self) -> None:
        try:
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
            self.ended_at = time.monotonic()
            self.cpu_seconds = cpu_seconds_of(self.pid)  # of the zombie
        except (ChildProcessError, FileNotFoundError):
            self.ended_at = time.monotonic()  # reaped already: it was not waited for here
        finally:
            self._ended.set()

    def _sample(self) -> None:
        while not self._ended.is_set():
            with suppress(FileNotFoundError, ProcessLookupError, StopIteration):
                self.peak_memory_bytes = peak_memory_bytes_of(self.pid)
            self._ended.wait(0.1)


class Watched:
    """A program on a host of the lab. Its output is kept in memory and in the file `log`."""

    def __init__(
        self,
        lab: NetworkLab,
        host: Host,
        argv: Iterable[str | Path],
        log: Path,
        *,
        env: Mapping[str, str] | None = None,
    ) -> None:
        command = [str(argument) for argument in argv]
        self.name = f"{Path(command[0]).name} on {host.name}"
        self.log = log
        self.started_at = time.monotonic()
        self.lines: list[Line] = []
        self._news = threading.Condition()
        self._ended = False
        self._process = subprocess.Popen(
            lab.command(host, command),
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.meter = Meter(self._process.pid)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def text(self) -> str:
        """Everything it printed so far."""
        return "\n".join(line.text for line in self.lines)

    def wait_for_line(self, part: str, timeout_seconds: float) -> Line:
        """Returns the first line that contains `part`.

        Raises:
            BenchError: it did not come in time, or the program ended without it.
        """

        def found() -> Line | None:
            return next((line for line in self.lines if part in line.text), None)

        with self._news:
            self._news.wait_for(lambda: found() is not None or self._ended, timeout_seconds)
        line = found()
        if line is None:
            raise BenchError(f"{self.name} did not print {part!r} within {timeout_seconds} s: see {self.log}")
        return line

    def wait(self, timeout_seconds: float) -> None:
        """Wait for its success.

        Raises:
            BenchError: it failed, or went on for longer than `timeout_seconds`, and was killed.
        """
        if not self.meter.wait(timeout_seconds):
            self.kill()
            raise BenchError(f"{self.name} went on for more than {timeout_seconds:.0f} s: see {self.log}")
        self._reader.join()
        if self._process.wait():
            raise BenchError(f"{self.name} ended with {self._process.returncode}: see {self.log}")

    def stop(self, timeout_seconds: float = 10) -> None:
        """End it by SIGTERM, or by SIGKILL if that takes too long."""
        self._process.terminate()
        self.meter.wait(timeout_seconds)
        self.kill()

    def kill(self) -> None:
        """End it by SIGKILL, if it still runs."""
        self._process.kill()
        self.meter.wait(10)
        self._process.wait()
        self._reader.join()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as output, open(self.log, "ab") as log:
            for line in output:
                log.write(line)
                log.flush()
                with self._news:
                    self.lines.append(Line(time.monotonic(), line.decode(errors="replace").rstrip()))
                    self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()


def cpu_seconds_of(pid: int) -> float:
    """Returns the user and system time that a running process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND


def peak_memory_bytes_of(pid: int) -> int:
    """Returns the largest resident set that a running process has had since its exec."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))) * 1024


def poll(condition: Callable[[], bool], timeout_seconds: float, what: str) -> None:
    """Wait until a condition holds.

    Raises:
        BenchError: it does not within `timeout_seconds`; `what` says what was awaited.
    """
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        if time.monotonic() > deadline:
            raise BenchError(f"{what} did not happen within {timeout_seconds} s")
        time.sleep(0.02)
