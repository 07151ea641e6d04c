"""fleetcast itself in the network lab, driven through its commands alone."""

import json
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.bench.measurement import Measurement
from tests.bench.peers import check_copies, timeout_seconds
from tests.bench.process import BenchError, Meter, cpu_seconds_of
from tests.support.installation import Installation, Reception
from tests.support.lab import INTERFACE, NetworkLab

_PORT = 7443
_MULTICAST = ("--multicast-interface", INTERFACE)

Disturbance = Callable[[list[Reception]], None]
"""Called when the transfer has begun, with the receptions in the order of the receivers."""


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

    def run(self, folder: Path, *, flags: tuple[str, ...] = ()) -> Measurement:
        """Make one transfer to all receivers and check it byte for byte.

        The copies go to `folder`; `flags` are for the agents.

        Raises:
            BenchError: an agent failed or hung, or a copy differs.
            ProcessFailedError: a command failed.
        """
        size_bytes = self._source.stat().st_size
        count = len(self._machines)
        cpu_before, sent_before = cpu_seconds_of(self._server.pid), self._lab.sent_bytes(self._lab.sender)
        session = self._create_session(count)
        outputs = [folder / f"{machine.name}.out" for machine in self._machines]
        receptions = []
        meters = []
        for machine, output in zip(self._machines, outputs, strict=True):
            reception = self._installation.receive(machine, output, session=session, flags=(*_MULTICAST, *flags))
            receptions.append(reception)
            meters.append(Meter(reception.process.pid))
        deadline = time.monotonic() + timeout_seconds(size_bytes)
        for meter, reception in zip(meters, receptions, strict=True):
            if not meter.wait(deadline - time.monotonic()):
                raise BenchError(f"an agent did not end: see {reception.stderr}")
        summaries = [reception.wait() for reception in receptions]
        seconds = self._wait_for_end(session)
        check_copies("fleetcast", self._source, outputs)
        return Measurement(
            tool="fleetcast",
            size_bytes=size_bytes,
            seconds=seconds,
            wall_seconds=max(meter.ended_at for meter in meters) - deadline + timeout_seconds(size_bytes),
            sender_cpu_seconds=cpu_seconds_of(self._server.pid) - cpu_before,
            receiver_cpu_seconds=[meter.cpu_seconds for meter in meters],
            receiver_peak_memory_bytes=[meter.peak_memory_bytes for meter in meters],
            wire_bytes=self._lab.sent_bytes(self._lab.sender) - sent_before,
            extra={"unicast_bytes": sum(float(summary.get("unicast_bytes", 0)) for summary in summaries)},
        )

    def _create_session(self, count: int) -> str:
        created = self._installation.fleetcast("session", "create", "--image", "bench", "--min-clients", str(count))
        return str(created["name"])

    def _wait_for_end(self, session: str) -> float:
        """Return the seconds from the instant at which all had joined to the instant at which all had finished."""
        deadline = time.monotonic() + 10
        while not (shown := self._installation.fleetcast("session", "show", session)).get("end_time"):
            if time.monotonic() > deadline:
                raise BenchError(f"the session does not end: {json.dumps(shown)}")
        return (_instant(shown, "end_time") - _instant(shown, "start_time")).total_seconds()


def _instant(shown: dict[str, Any], field: str) -> datetime:
    return datetime.fromisoformat(shown[field])
