"""Programs under measurement: their output with times, their end, what they used."""

import os
import signal
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
        self.ended_at = 0.0
        self.exit_code: int | None = None
        self.cpu_seconds = 0.0
        """User and system time, once ended."""
        self.peak_memory_bytes = 0
        """Largest resident set seen in its last tenth of a second or before."""
        self.lines: list[Line] = []
        self._news = threading.Condition()
        self._process = subprocess.Popen(
            lab.command(host, command),
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.pid = self._process.pid
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._read, self._reap, self._sample)]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def text(self) -> str:
        """Everything it printed so far."""
        return "\n".join(line.text for line in self.lines)

    def wait_for_line(self, part: str, timeout_seconds: float) -> Line:
        """Return the first line that contains `part`.

        Raises:
            BenchError: it did not come in time, or the program ended without it.
        """

        def found() -> Line | None:
            return next((line for line in self.lines if part in line.text), None)

        with self._news:
            self._news.wait_for(lambda: found() or self.exit_code is not None, timeout_seconds)
        if self.exit_code is not None:
            self._threads[0].join(1)
        line = found()
        if line is None:
            raise BenchError(f"{self.name} did not print {part!r} within {timeout_seconds} s: see {self.log}")
        return line

    def wait(self, timeout_seconds: float) -> None:
        """Wait for its success.

        Raises:
            BenchError: it failed, or went on for longer than `timeout_seconds`, and was killed.
        """
        with self._news:
            ended = self._news.wait_for(lambda: self.exit_code is not None, timeout_seconds)
        if not ended:
            self.kill()
            raise BenchError(f"{self.name} went on for more than {timeout_seconds:.0f} s: see {self.log}")
        self._threads[0].join(1)
        if self.exit_code:
            raise BenchError(f"{self.name} ended with {self.exit_code}: see {self.log}")

    def stop(self, timeout_seconds: float = 10) -> None:
        """End it by SIGTERM, or by SIGKILL if that takes too long."""
        if self.exit_code is None:
            self._signal(signal.SIGTERM)
            with self._news:
                self._news.wait_for(lambda: self.exit_code is not None, timeout_seconds)
        self.kill()

    def kill(self) -> None:
        """End it by SIGKILL, if it still runs."""
        if self.exit_code is None:
            self._signal(signal.SIGKILL)
        for thread in self._threads:
            thread.join(5)

    def freeze(self) -> None:
        """Stop it as it is, for ever."""
        self._signal(signal.SIGSTOP)

    def _signal(self, number: signal.Signals) -> None:
        with self._news:  # not after it was reaped
            if self.exit_code is None:
                os.kill(self.pid, number)

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as output, open(self.log, "ab") as log:
            for line in output:
                log.write(line)
                log.flush()
                with self._news:
                    self.lines.append(Line(time.monotonic(), line.decode(errors="replace").rstrip()))
                    self._news.notify_all()

    def _reap(self) -> None:
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        ended_at = time.monotonic()
        with self._news:
            _, status, usage = os.wait4(self.pid, 0)
            self.ended_at = ended_at
            self.cpu_seconds = usage.ru_utime + usage.ru_stime
            self._process.returncode = self.exit_code = os.waitstatus_to_exitcode(status)
            self._news.notify_all()

    def _sample(self) -> None:
        # Not ru_maxrss, which counts this process before the exec, too.
        with self._news:
            while self.exit_code is None:
                with suppress(FileNotFoundError, ProcessLookupError, StopIteration):
                    self.peak_memory_bytes = peak_memory_bytes_of(self.pid)
                self._news.wait_for(lambda: self.exit_code is not None, 0.1)


def cpu_seconds_of(pid: int) -> float:
    """Return the user and system time that a running process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND


def peak_memory_bytes_of(pid: int) -> int:
    """Return the largest resident set that a running process has had since its exec."""
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
