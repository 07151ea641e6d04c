"""Runs the cases: every tool in turn on the same file in the same network, several times."""

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.bench.bare import run_bare
from tests.bench.cases import BARE, OURS, UDPCAST, UFTP, Case, Disturbance
from tests.bench.fleetcast import Fleetcast
from tests.bench.measurement import Measurement
from tests.bench.peers import run_udpcast, run_uftp
from tests.bench.process import BenchError
from tests.bench.warm import WarmMemory
from tests.support.installation import ProcessFailedError
from tests.support.lab import NetworkLab

Runner = Callable[[Path], Measurement]

_FAILURES = (BenchError, ProcessFailedError, subprocess.SubprocessError, OSError)
_BLOCK_BYTES = 16 << 20
_MORE_BYTES, _EACH_BYTES = 1 << 30, 500 << 20
"""Memory that programs use besides the copies, in all and at each receiver."""
_MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of our own is made in it
_PREFIX = "fleetcast-bench-"
_LOCK = Path(tempfile.gettempdir(), "fleetcast-bench.lock")


@dataclass
class Outcome:
    """What came of all cases."""

    results: dict[tuple[str, str], list[Measurement]] = field(default_factory=lambda: defaultdict(list))
    """Measurements by case and tool, in the order of the runs."""
    failures: list[str] = field(default_factory=list)
    """Runs that gave no measurement, one line each."""


class Bench:
    """Runs cases one after the other and says on standard error how it goes.

    A tool that fails is left out of the rest of its case; its output is kept in `log_folder`.
    """

    def __init__(self, tools: Collection[str], *, size_bytes: int, run_count: int, log_folder: Path) -> None:
        self.outcome = Outcome()
        self._tools = tools
        self._size_bytes = size_bytes
        self._run_count = run_count
        self._log_folder = log_folder

    def run(self, cases: Sequence[Case]) -> Outcome:
        """Run every case with those of its tools that are wanted."""
        with _alone(), _work_folder(self._size_bytes) as folder:
            source = folder / "image.raw"
            _write_incompressible(source, self._size_bytes)
            receivers = max(case.receiver_count for case in cases)
            with closing(
                WarmMemory(folder / "warm", _MORE_BYTES + receivers * (self._size_bytes + _EACH_BYTES))
            ) as warm:
                for case in cases:
                    case_folder = folder / case.name
                    case_folder.mkdir()
                    self._run_case(case, source, case_folder, warm)
                    shutil.rmtree(case_folder)
        return self.outcome

    def _run_case(self, case: Case, source: Path, folder: Path, warm: WarmMemory) -> None:
        with (
            NetworkLab(
                receiver_count=case.receiver_count,
                rate_bits_per_second=case.rate_bits_per_second,
                coalescing="receivers" if case.loss else "switch",
                hostile_host=case.disturbance is Disturbance.HOSTILE,
            ) as lab,
            ExitStack() as stack,
        ):
            for seed, host in enumerate(lab.receivers, 1):
                if case.loss:
                    lab.set_loss(host, replace(case.loss, seed=seed))
            runners: dict[str, Runner] = {}
            for tool in case.tools:
                if tool in self._tools:
                    with self._noting_failure(case, tool, folder):
                        runners[tool] = _runner(case, tool, lab, source, stack)
            for number in range(1, self._run_count + 1):
                # Alternating, so that what changes on the machine meanwhile strikes every tool alike.
                for tool in sorted(runners, reverse=number % 2 == 0):
                    run_folder = folder / f"{tool}-{number}"
                    run_folder.mkdir()
                    before = len(self.outcome.failures)
                    with self._noting_failure(case, tool, folder), warm.lent():
                        measurement = runners[tool](run_folder)
                        self.outcome.results[case.name, tool].append(measurement)
                        _say(f"{case.title}: {tool} {number}: {measurement.goodput_bits_per_second / 1e6:.0f} Mbit/s")
                    if len(self.outcome.failures) > before:
                        del runners[tool]
                    shutil.rmtree(run_folder)
                    warm.take_back()

    @contextmanager
    def _noting_failure(self, case: Case, tool: str, folder: Path) -> Iterator[None]:
        """Note a failure instead of raising it, and keep the tool's logs from the case's folder."""
        try:
            yield
        except _FAILURES as error:
            kept = self._log_folder / f"{case.name}-{tool}"
            shutil.rmtree(kept, ignore_errors=True)
            logs = [log for tool_folder in folder.glob(f"{tool}-*") for log in tool_folder.rglob("*.log")]
            for log in logs:
                target = kept / log.relative_to(folder)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(log, target)
            self.outcome.failures.append(f"{case.title}: {tool}: {error} (output kept in {kept})")
            _say(self.outcome.failures[-1])


def _runner(case: Case, tool: str, lab: NetworkLab, source: Path, stack: ExitStack) -> Runner:
    if tool == OURS:
        folder = source.parent / case.name / f"{OURS}-installation"
        fleetcast = stack.enter_context(Fleetcast(lab, source, folder))
        return lambda run_folder: fleetcast.run(run_folder, case)
    runner = {UDPCAST: run_udpcast, UFTP: run_uftp, BARE: run_bare}[tool]
    return lambda run_folder: runner(lab, source, run_folder)


@contextmanager
def _alone() -> Iterator[None]:
    """Wait until no other bench runs on this machine: they would measure each other."""
    with open(_LOCK, "a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say("waiting for another bench to end")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _work_folder(size_bytes: int) -> Iterator[Path]:
    """Give an empty folder in memory if there is room for the copies, else on disk. Removes those of killed runs."""
    for abandoned in _MEMORY.glob(f"{_PREFIX}*"):
        if not Path("/proc", abandoned.name.removeprefix(_PREFIX).partition("-")[0]).exists():
            _unmount(abandoned)
            shutil.rmtree(abandoned, ignore_errors=True)
    room = shutil.disk_usage(_MEMORY).free if os.access(_MEMORY, os.W_OK) else 0
    in_memory = room > 14 * size_bytes + 5 * _MORE_BYTES
    if not in_memory:
        _say("there is not enough room in /dev/shm: the files are on disk, which may be what is measured")
    parent = _MEMORY if in_memory else None
    with tempfile.TemporaryDirectory(prefix=f"{_PREFIX}{os.getpid()}-", dir=parent) as name:
        if in_memory:
            _mount(name)
        try:
            yield Path(name)
        finally:
            _unmount(name)


def _mount(folder: str) -> None:
    """Mount a file system in memory that keeps files in large pages, as those on disks do, where the kernel can.

    In `/dev/shm` every 4 KiB are a page of their own, and to make it and free it costs more than to fill it.
    """
    options = "huge=within_size,size=100%,mode=700"
    command = ["mount", "-t", "tmpfs", "-o", options, "fleetcast-bench", folder]
    subprocess.run(command, stderr=subprocess.DEVNULL, check=False)


def _unmount(folder: str | Path) -> None:
    # Lazily: processes of a killed run may still have files open there.
    subprocess.run(["umount", "--lazy", folder], stderr=subprocess.DEVNULL, check=False)


def _write_incompressible(path: Path, size_bytes: int) -> None:
    with path.open("wb") as file:
        for start in range(0, size_bytes, _BLOCK_BYTES):
            file.write(os.urandom(min(_BLOCK_BYTES, size_bytes - start)))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
