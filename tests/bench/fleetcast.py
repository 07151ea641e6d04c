"""fleetcast itself in the network lab, driven through its commands alone."""

import json
import shutil
import signal
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from datetime import datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.bench.cases import GIGABIT, PAYLOAD_SHARE, Case, Disturbance
from tests.bench.measurement import Measurement
from tests.bench.peers import check_copies, timeout_seconds
from tests.bench.process import BenchError, Meter, cpu_seconds_of, poll
from tests.support.installation import Installation, Reception
from tests.support.lab import INTERFACE, NetworkLab
from tests.support.slowdisk import SlowDisk

_PORT = 7443
_MULTICAST = ("--multicast-interface", INTERFACE)

_SLOW_BYTES_PER_SECOND = 20_000_000
_OF_THE_LAST = (Disturbance.DEAD, Disturbance.SLOW_DISK, Disturbance.LATE)
_SYMBOL_BYTES, _CHUNK_BYTES = 1408, 1 << 20


class Fleetcast:
    """A server with one image on the sender, an enrolled agent on each receiver; a context manager."""

    def __init__(self, lab: NetworkLab, source: Path, folder: Path) -> None:
        self._lab = lab
        self._source = source
        self._stack = ExitStack()
        self._installation = Installation(
            folder,
            listen=f"{lab.sender.address}:{_PORT}",
            place=partial(lab.command, lab.sender),
        )

    def __enter__(self) -> Self:
        try:
            self._stack.enter_context(self._installation)
            self._server = self._installation.start_server(*_MULTICAST)
            self._installation.fleetcast("image", "import", str(self._source), "--name", "bench")
            places = {host.name: partial(self._lab.command, host) for host in self._lab.receivers}
            self._machines = self._installation.enrol([host.name for host in self._lab.receivers], places)
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def run(self, folder: Path, case: Case) -> Measurement:
        """Make one transfer to all receivers and check it byte for byte. The copies go to `folder`.

        Raises:
            BenchError: an agent failed or hung, or a copy differs.
            ProcessFailedError: a command failed.
        """
        size_bytes = self._source.stat().st_size
        cpu_before, sent_before = cpu_seconds_of(self._server.pid), self._lab.sent_bytes(self._lab.sender)
        outputs = [folder / f"{machine.name}.out" for machine in self._machines]
        with ExitStack() as stack:
            targets = list(outputs)
            if case.disturbance is Disturbance.SLOW_DISK:
                # The device has a name that another run's may have had: this one is new, and holds nothing.
                shutil.rmtree(self._machines[-1].state_directory / "journals", ignore_errors=True)
                targets[-1] = stack.enter_context(SlowDisk(outputs[-1], size_bytes, _SLOW_BYTES_PER_SECOND)).device
            late = 1 if case.disturbance is Disturbance.LATE else 0
            staggered = case.disturbance is Disturbance.STAGGERED
            session = self._create_session(1 if staggered else len(targets) - late)
            if case.disturbance is Disturbance.HOSTILE:
                stack.callback(_end, self._attack(folder / "hostile.log"))
            started_at = time.monotonic()
            receptions: list[Reception] = []
            stack.callback(_kill, receptions)
            for machine, target in zip(self._machines, targets, strict=True):
                if late and machine is self._machines[-1]:
                    self._await_sent(sent_before + size_bytes // 4)  # it starts and joins until half is sent
                if staggered and receptions:
                    time.sleep(case.gap_seconds)
                receptions.append(
                    self._installation.receive(machine, target, session=session, flags=(*_MULTICAST, *case.agent_flags))
                )
            meters = [Meter(reception.process.pid) for reception in receptions]
            undisturbed = meters[:-1] if case.disturbance in _OF_THE_LAST else meters
            if case.disturbance is Disturbance.DEAD:
                self._await_sent(sent_before + size_bytes // 2)
                receptions.pop().process.send_signal(signal.SIGSTOP)
                meters.pop()
                outputs.pop()
            summaries = [_await(*pair, size_bytes) for pair in zip(meters, receptions, strict=True)]
            ended_at = max(meter.ended_at for meter in meters)
            sender_cpu_seconds = cpu_seconds_of(self._server.pid) - cpu_before
        undisturbed_seconds = self._seconds_since_start(session, max(meter.ended_at for meter in undisturbed))
        seconds = undisturbed_seconds if case.disturbance is Disturbance.DEAD else self._seconds_of(session)
        check_copies("fleetcast", self._source, outputs)
        return Measurement(
            tool="fleetcast",
            size_bytes=size_bytes,
            seconds=seconds,
            wall_seconds=ended_at - started_at,
            sender_cpu_seconds=sender_cpu_seconds,
            receiver_cpu_seconds=[float(summary["cpu_seconds"]) for summary in summaries],
            receiver_peak_memory_bytes=[meter.peak_memory_bytes for meter in meters],
            wire_bytes=self._lab.sent_bytes(self._lab.sender) - sent_before,
            extra={
                "undisturbed_seconds": undisturbed_seconds,
                **self._shares_of(session, size_bytes),
                "unicast_bytes": sum(float(summary["unicast_bytes"]) for summary in summaries),
                "rejected_datagrams": max(float(summary["rejected_datagram_count"]) for summary in summaries),
                "needless_chunks": _needless_chunks(summaries[-1], size_bytes),
                "receiver_start_cpu_seconds": statistics.fmean(
                    meter.cpu_seconds - float(summary["cpu_seconds"])
                    for meter, summary in zip(meters, summaries, strict=True)
                ),
            },
        )

    def _create_session(self, machine_count: int) -> str:
        created = self._installation.fleetcast(
            "session", "create", "--image", "bench", "--min-clients", str(machine_count)
        )
        return str(created["name"])

    def _await_sent(self, sent_bytes: int) -> None:
        limit = timeout_seconds(self._source.stat().st_size)
        sender = self._lab.sender
        poll(lambda: self._lab.sent_bytes(sender) > sent_bytes, limit, f"the sending of {sent_bytes} bytes")

    def _attack(self, log: Path) -> subprocess.Popen[bytes]:
        assert self._lab.hostile is not None
        return self._lab.popen(self._lab.hostile, [sys.executable, "-m", "tests.support.hostile"], log=log)

    def _seconds_of(self, session: str) -> float:
        """Returns the seconds from the instant at which all had joined to the instant at which all had finished."""
        deadline = time.monotonic() + 10
        while not (shown := self._installation.fleetcast("session", "show", session)).get("end_time"):
            if time.monotonic() > deadline:
                raise BenchError(f"the session does not end: {json.dumps(shown)}")
        return (datetime.fromisoformat(shown["end_time"]) - datetime.fromisoformat(shown["start_time"])).total_seconds()

    def _shares_of(self, session: str, size_bytes: int) -> dict[str, float]:
        """Returns what a carousel would send, in copies, and how long the last machine took from its joining."""
        joined = [
            (_timestamp(it["join_time"]), _timestamp(it["end_time"]))
            for it in self._installation.fleetcast("session", "show", session)["participants"]
            if it.get("end_time")
        ]
        if not joined:
            return {}
        first, (last, ended) = min(joined)[0], max(joined)
        copy_seconds = size_bytes * 8 / (GIGABIT * PAYLOAD_SHARE)
        return {"carousel_copies": 1 + (last - first) / copy_seconds, "last_machine_seconds": ended - last}

    def _seconds_since_start(self, session: str, ended_at: float) -> float:
        """Returns the seconds from the instant at which all had joined to an instant of the monotonic clock."""
        shown = self._installation.fleetcast("session", "show", session)
        ended = time.time() - (time.monotonic() - ended_at)
        return ended - datetime.fromisoformat(shown["start_time"]).timestamp()


def _timestamp(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _await(meter: Meter, reception: Reception, size_bytes: int) -> dict[str, Any]:
    if not meter.wait(timeout_seconds(size_bytes)):
        raise BenchError(f"an agent did not end: see {reception.stderr}")
    return reception.wait()


def _needless_chunks(summary: dict[str, Any], size_bytes: int) -> float:
    """Returns how many whole chunks a receiver was sent that it held; a part of the one in which it joined is none."""
    return max(0.0, float((summary["datagram_count"] * _SYMBOL_BYTES - size_bytes) // _CHUNK_BYTES))


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def _kill(receptions: list[Reception]) -> None:
    for reception in receptions:
        reception.process.kill()
        reception.process.wait()
