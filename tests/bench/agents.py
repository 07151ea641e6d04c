"""Thousands of simulated agents against one server: `python -m tests.bench.agents [--agents N]`.

Each has its own identity, TLS connection and stream, all in this process: it shares the cores with the server. All
enrol, register, join one session, half of them within one second, report once a second, and end.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path

import grpc
from fleetcast.scheduler.v1.machine_service_pb2 import Inventory, RegisterMachineRequest
from fleetcast.scheduler.v1.machine_service_pb2_grpc import MachineServiceStub
from fleetcast.scheduler.v1.participation_service_pb2 import Join, Outcome, ParticipateRequest, ParticipateResponse
from fleetcast.scheduler.v1.participation_service_pb2_grpc import ParticipationServiceStub
from fleetcast.scheduler.v1.session_pb2 import ReceptionTotals
from fleetcast.scheduler.v1.session_service_pb2 import WatchSessionRequest
from fleetcast.scheduler.v1.session_service_pb2_grpc import SessionServiceStub
from fleetcast_kit.identity.credentials import Credentials
from fleetcast_kit.joining.enrolment import enrol
from fleetcast_kit.rpc.channel import open_channel

from tests.bench.process import cpu_seconds_of, peak_memory_bytes_of
from tests.support.installation import Installation

_IMAGE_BYTES = 8 << 20
_REGISTRATIONS_AT_ONCE = 32
_REPORT_SECONDS = 20
_JOIN_SECONDS = 60.0


@dataclass(frozen=True)
class Figures:
    """What was measured."""

    agent_count: int
    registration_seconds: float
    """Until all were enrolled and registered with their hardware; the keys are made on the same cores."""
    burst_join_count: int
    burst_admission_seconds: float
    """From the first of the joins, sent within a second, to the last of them answered."""
    assignment_seconds: float
    """From the last join to the last agent that knew where to receive."""
    server_cores: float
    """Processor time of the server per second while all report."""
    server_peak_memory_bytes: int
    visible_median_seconds: float
    """From the sending of a report to its being seen in a watch."""
    visible_p99_seconds: float
    reports_seen: int


@dataclass
class Mark:
    """Something that happens once, and when."""

    event: asyncio.Event = field(default_factory=asyncio.Event)
    at: float = 0.0

    def set(self) -> None:
        """It has happened; the first time counts."""
        if not self.event.is_set():
            self.at = time.monotonic()
            self.event.set()


@dataclass
class Agent:
    """One simulated agent."""

    credentials: Credentials
    channel: grpc.aio.Channel
    admitted: Mark = field(default_factory=Mark)
    assigned: Mark = field(default_factory=Mark)
    requests: asyncio.Queue[ParticipateRequest | None] = field(default_factory=asyncio.Queue)
    sequence: int = 0

    def say(self, **message: Join | ReceptionTotals | Outcome) -> None:
        """Send a message."""
        self.sequence += 1
        self.requests.put_nowait(ParticipateRequest(sequence=self.sequence, **message))  # type: ignore[arg-type]

    async def take_part(self) -> None:
        """Hold the stream until the scheduler ends it."""
        call = ParticipationServiceStub(self.channel).Participate(self._outgoing())
        async for response in call:
            self._note(response)
            if response.HasField("dismissal"):
                break
        self.requests.put_nowait(None)

    async def _outgoing(self) -> AsyncIterator[ParticipateRequest]:
        while (request := await self.requests.get()) is not None:
            yield request

    def _note(self, response: ParticipateResponse) -> None:
        if response.HasField("waiting") or response.HasField("assignment"):
            self.admitted.set()
        if response.HasField("assignment"):
            self.assigned.set()


class Watcher:
    """Watches the session as an operator does. Reports carry the time of their sending as their number of datagrams."""

    def __init__(self, start: float) -> None:
        self._start = start
        self._seen: dict[str, int] = {}
        self.delays: list[float] = []

    async def watch(self, channel: grpc.aio.Channel, session: str) -> None:
        """Note every change until cancelled."""
        async for response in SessionServiceStub(channel).WatchSession(WatchSessionRequest(name=session)):
            now = time.monotonic() - self._start
            for participant in response.participants:
                stamp = participant.totals.datagram_count
                if stamp > self._seen.get(participant.name, 0):
                    self._seen[participant.name] = stamp
                    self.delays.append(now - stamp / 1000)


async def measure(installation: Installation, server_pid: int, folder: Path, agent_count: int) -> Figures:
    """Returns the figures of one session with so many agents."""
    token = installation.fleetcast("enrolment-token", "create", "--uses", str(agent_count))["token"]
    create = ("session", "create", "--image", "bench", "--min-clients", str(agent_count))
    session = str((await asyncio.to_thread(installation.fleetcast, *create))["name"])
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        began = time.monotonic()
        agents = await _register_all(installation.address, token, folder, agent_count, stack)
        registration_seconds = time.monotonic() - began
        _say(f"{agent_count} registered in {registration_seconds:.1f} s")
        burst, rest = agents[: agent_count // 2], agents[agent_count // 2 :]
        began = time.monotonic()
        for chunk in _tenths(burst):
            _join(chunk, session, group)
            await asyncio.sleep(0.1)
        burst_seconds = await _all(agent.admitted for agent in burst) - began
        _say(f"{len(burst)} admitted in {burst_seconds:.2f} s")
        joined_at = time.monotonic()
        _join(rest, session, group)
        assignment_seconds = await _all(agent.assigned for agent in agents) - joined_at
        _say(f"all assigned {assignment_seconds:.2f} s after the last join")

        watching = await _start_watching(installation, session, start := time.monotonic())
        cpu_before, began = cpu_seconds_of(server_pid), time.monotonic()
        await _report(agents, start, began)
        cores = (cpu_seconds_of(server_pid) - cpu_before) / (time.monotonic() - began)
        seen, _ = await watching.communicate(b"")  # it ends with its input
        for agent in agents:
            totals = ReceptionTotals(size_bytes=_IMAGE_BYTES, written_bytes=_IMAGE_BYTES)
            agent.say(outcome=Outcome(totals=totals, succeeded=True))
    delays = sorted(json.loads(seen))
    return Figures(
        agent_count=agent_count,
        registration_seconds=registration_seconds,
        burst_join_count=len(burst),
        burst_admission_seconds=burst_seconds,
        assignment_seconds=assignment_seconds,
        server_cores=cores,
        server_peak_memory_bytes=peak_memory_bytes_of(server_pid),
        visible_median_seconds=delays[len(delays) // 2],
        visible_p99_seconds=delays[len(delays) * 99 // 100],
        reports_seen=len(delays),
    )


async def _register_all(address: str, token: str, folder: Path, count: int, stack: AsyncExitStack) -> list[Agent]:
    """Returns agents that are enrolled, connected for as long as the stack stands, and registered."""
    places = asyncio.Semaphore(_REGISTRATIONS_AT_ONCE)

    async def one(number: int) -> Agent:
        async with places:
            credentials = await enrol(address, token, folder / f"agent{number}", f"simulated{number}")
            channel = await stack.enter_async_context(open_channel(address, credentials))
            mac_address = f"02:00:00:00:{number >> 8:02x}:{number & 255:02x}"
            inventory = Inventory(serial_number=f"S{number}", mac_addresses=[mac_address], model="simulated")
            request = RegisterMachineRequest(display_name=f"simulated{number}", inventory=inventory)
            await MachineServiceStub(channel).RegisterMachine(request, timeout=_JOIN_SECONDS)
        return Agent(credentials, channel)

    return await asyncio.gather(*(one(number) for number in range(count)))


def _join(agents: list[Agent], session: str, group: asyncio.TaskGroup) -> None:
    for agent in agents:
        agent.say(join=Join(session=session, display_name=agent.credentials.identity.name, target_size_bytes=-1))
        group.create_task(agent.take_part())


async def _start_watching(installation: Installation, session: str, start: float) -> asyncio.subprocess.Process:
    """Returns a process of its own that watches, as an operator's is; it prints the delays when its input ends."""
    where = [installation.address, str(installation.data_directory / "administrator"), session, repr(start)]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.bench.agents", "--watch", *where),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    await process.stdout.readline()
    return process


async def _watch(address: str, credentials: str, session: str, start: str) -> None:
    watcher = Watcher(float(start))
    async with open_channel(address, Credentials.load(Path(credentials))) as channel:
        watching = asyncio.create_task(watcher.watch(channel, session))
        print("watching", flush=True)
        await asyncio.to_thread(sys.stdin.read)
        if watching.done():
            watching.result()  # it goes on for ever, or failed
        watching.cancel()
    print(json.dumps(watcher.delays))


async def _report(agents: list[Agent], start: float, began: float) -> None:
    """Let every agent report once a second, evenly spread; reports carry the milliseconds since `start`."""
    for second in range(_REPORT_SECONDS):
        for tenth, chunk in enumerate(_tenths(agents)):
            await asyncio.sleep(max(0.0, began + second + tenth / 10 - time.monotonic()))
            stamp = int((time.monotonic() - start) * 1000) + 1
            written = _IMAGE_BYTES * second // _REPORT_SECONDS
            for agent in chunk:
                totals = ReceptionTotals(size_bytes=_IMAGE_BYTES, written_bytes=written, datagram_count=stamp)
                agent.say(progress=totals)


def _tenths(agents: list[Agent]) -> list[list[Agent]]:
    return [agents[start::10] for start in range(10)]


async def _all(marks: Iterable[Mark]) -> float:
    """Returns when the last mark was set, in seconds of the monotonic clock, once all are."""
    marks = list(marks)
    async with asyncio.timeout(_JOIN_SECONDS):
        for mark in marks:
            await mark.event.wait()
    return max(mark.at for mark in marks)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    """Measure and print the figures as JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.agents", description=__doc__)
    parser.add_argument("--agents", type=int, default=2000, metavar="N")
    parser.add_argument("--watch", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.watch:
        asyncio.run(_watch(*arguments.watch))
        return 0
    with tempfile.TemporaryDirectory(prefix="fleetcast-agents-") as name:
        folder = Path(name)
        image = folder / "image.raw"
        image.write_bytes(bytes(range(256)) * (_IMAGE_BYTES // 256))
        with Installation(folder / "installation") as installation:
            server = installation.start_server()
            installation.fleetcast("image", "import", str(image), "--name", "bench")
            figures = asyncio.run(measure(installation, server.pid, folder, arguments.agents))
    print(json.dumps(asdict(figures), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
