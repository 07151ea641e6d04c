"""A scripted scheduler that machines register with and attend, for tests of `fleetcast-agent run`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from fleetcast.scheduler.v1 import deployment_pb2, machine_service_pb2, run_service_pb2
from fleetcast.scheduler.v1.machine_service_pb2_grpc import (
    MachineServiceServicer,
    add_MachineServiceServicer_to_server,
)
from fleetcast.scheduler.v1.run_service_pb2_grpc import RunServiceServicer, add_RunServiceServicer_to_server
from fleetcast_agent.deployments.agent import Agent
from fleetcast_agent.deployments.executing import HELD_SECONDS, LocalMachine
from fleetcast_agent.deployments.hardware import open_hardware
from fleetcast_agent.deployments.orders import Environment, RunControl, RunEnd, RunOrder, RunProgress, Standby
from fleetcast_agent.deployments.restarting import Rehearsal
from fleetcast_kit.errors import FailedPreconditionError
from fleetcast_kit.identity.peer import Role
from fleetcast_kit.rpc.server import Service
from fleetcast_sequence import canonical, digest, parse

from tests.support.trust import TrustedServer, serving

RUN = "deployments/d1/runs/r1"


def order_for(source: str, *, run: str = RUN, **fields: Any) -> run_service_pb2.RunOrder:
    """Returns the order to run the task sequence written in `source`."""
    sequence = parse(source)
    return run_service_pb2.RunOrder(
        run=run,
        attempt=1,
        task_sequence=canonical(sequence),
        task_sequence_digest=digest(sequence),
        remaining_seconds=3600,
        display_name="pc1",
        **fields,
    )


@dataclass
class Script:
    """What the scheduler does, and what it has heard."""

    order: run_service_pb2.RunOrder | None = None
    """Given to whoever arrives while it has no outcome."""
    offered: list[str] = field(default_factory=list)
    wanted_order: run_service_pb2.RunOrder | None = None
    """Given to whoever wants an available deployment."""
    refuse: bool = False
    held: int = 0
    """So many registrations are held."""
    forget_arrivals: int = 0
    """So many streams are ended right after the arrival, without a word."""
    swallow_outcomes: int = 0
    """After so many outcomes the stream breaks without an acknowledgement."""
    close: bool = True
    """Say that the run is closed once its outcome is there."""
    registrations: list[machine_service_pb2.RegisterMachineRequest] = field(default_factory=list)
    arrivals: list[run_service_pb2.Arrival] = field(default_factory=list)
    progress: list[run_service_pb2.RunProgress] = field(default_factory=list)
    steps: dict[tuple[str, int], deployment_pb2.StepRun] = field(default_factory=dict)
    step_messages: int = 0
    outcomes: list[run_service_pb2.RunOutcome] = field(default_factory=list)
    restarts: list[str] = field(default_factory=list)
    wanted: list[str] = field(default_factory=list)
    logs: dict[str, str] = field(default_factory=dict)
    words: asyncio.Queue[run_service_pb2.AttendResponse] = field(default_factory=asyncio.Queue)

    def say(self, **word: Any) -> None:
        """Says something to the machine that attends."""
        self.words.put_nowait(run_service_pb2.AttendResponse(**word))

    def control(self, action: str, reason: str = "") -> None:
        """Sends a RunControl."""
        number = run_service_pb2.RunControl.Action.Value(f"ACTION_{action}")
        self.say(control=run_service_pb2.RunControl(run=RUN, action=number, reason=reason))

    def step_outcomes(self) -> list[tuple[str, int, str]]:
        """Returns node, attempt and outcome of each attempt, in the order they were first heard of."""
        names = deployment_pb2.StepRun.Outcome.Name
        return [(step.node, step.attempt, names(step.outcome).removeprefix("OUTCOME_")) for step in self.steps.values()]


class Machines(MachineServiceServicer):
    def __init__(self, script: Script) -> None:
        self.script = script

    async def RegisterMachine(self, request: Any, context: Any) -> machine_service_pb2.RegisterMachineResponse:
        script = self.script
        script.registrations.append(request)
        if script.refuse:
            raise FailedPreconditionError("unknown machines are refused: ask for an import", reason="MACHINE_REFUSED")
        machine = machine_service_pb2.Machine(name="machines/m1", state=machine_service_pb2.Machine.STATE_APPROVED)
        if len(script.registrations) <= script.held:
            machine.state, machine.held_reason = machine_service_pb2.Machine.STATE_HELD, "nobody knows it"
        return machine_service_pb2.RegisterMachineResponse(machine=machine)

    async def GetMachine(self, request: Any, context: Any) -> Any:
        """Not for machines, as are those below; each service needs all of its methods."""

    ListMachines = UpdateMachine = ImportMachines = ApproveMachine = RemoveMachine = GetMachine
    GetRegistrationPolicy = SetRegistrationPolicy = GetMachine


class Runs(RunServiceServicer):
    def __init__(self, script: Script) -> None:
        self.script = script

    async def Attend(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        script, first = self.script, await anext(requests)
        assert first.sequence == 1
        script.arrivals.append(first.arrival)
        if script.forget_arrivals:
            script.forget_arrivals -= 1
            return
        yield self._answer(first.arrival)
        heard = asyncio.ensure_future(anext(requests, None))
        word = asyncio.ensure_future(script.words.get())
        try:
            while True:
                await asyncio.wait({heard, word}, return_when=asyncio.FIRST_COMPLETED)
                if word.done():
                    yield word.result()
                    word = asyncio.ensure_future(script.words.get())
                    continue
                request = heard.result()
                if request is None:
                    return
                if request.WhichOneof("message") == "outcome" and script.swallow_outcomes:
                    script.swallow_outcomes -= 1
                    await context.abort(grpc.StatusCode.UNAVAILABLE, "the server goes away")
                self._take(request)
                yield run_service_pb2.AttendResponse(acknowledged_sequence=request.sequence)
                if request.WhichOneof("message") == "outcome" and script.close:
                    yield self._closed(request.outcome.run)
                    yield run_service_pb2.AttendResponse(standby=run_service_pb2.Standby(reason="nothing to run"))
                heard = asyncio.ensure_future(anext(requests, None))
        finally:
            word.cancel()
            heard.cancel()

    def _answer(self, arrival: Any) -> Any:
        script = self.script
        if arrival.run and any(outcome.run == arrival.run for outcome in script.outcomes):
            return self._closed(arrival.run)
        if script.order is not None and not any(outcome.run == script.order.run for outcome in script.outcomes):
            return run_service_pb2.AttendResponse(acknowledged_sequence=1, order=script.order)
        offered = [run_service_pb2.OfferedDeployment(name=name, description="office") for name in script.offered]
        standby = run_service_pb2.Standby(reason="nothing to run", offered_deployments=offered)
        return run_service_pb2.AttendResponse(acknowledged_sequence=1, standby=standby)

    def _closed(self, run: str) -> Any:
        return run_service_pb2.AttendResponse(closed=run_service_pb2.RunClosed(run=run))

    def _take(self, request: Any) -> None:
        script = self.script
        match request.WhichOneof("message"):
            case "progress":
                script.progress.append(request.progress)
            case "step":
                script.step_messages += 1
                script.steps[request.step.node, request.step.attempt] = request.step
            case "outcome":
                script.outcomes.append(request.outcome)
            case "restarting":
                script.restarts.append(request.restarting.environment)
            case "wanted_deployment":
                script.wanted.append(request.wanted_deployment)
                script.say(order=script.wanted_order)

    async def UploadRunLog(self, requests: AsyncIterator[Any], context: Any) -> Any:
        pieces = [request async for request in requests]
        self.script.logs[pieces[0].run] = b"".join(piece.data for piece in pieces).decode()
        return run_service_pb2.UploadRunLogResponse()


def services(script: Script) -> list[Service]:
    """Returns the services of the scripted scheduler."""
    machine = frozenset({Role.MACHINE})
    methods = machine_service_pb2.DESCRIPTOR.services_by_name["MachineService"].methods
    return [
        Service(
            add_MachineServiceServicer_to_server,
            Machines(script),
            "fleetcast.scheduler.v1.MachineService",
            {method.name: machine for method in methods},
        ),
        Service(
            add_RunServiceServicer_to_server,
            Runs(script),
            "fleetcast.scheduler.v1.RunService",
            {"Attend": machine, "UploadRunLog": machine},
        ),
    ]


@dataclass
class Shown:
    """A display that remembers."""

    notices: list[str] = field(default_factory=list)
    standbys: list[Standby] = field(default_factory=list)
    ends: list[RunEnd] = field(default_factory=list)
    restarts: list[Environment] = field(default_factory=list)

    def registered(self, machine: str) -> None:
        self.notices.append(f"registered as {machine}")

    def waiting(self, standby: Standby) -> None:
        self.standbys.append(standby)

    def ordered(self, order: RunOrder, *, again: bool) -> None: ...

    def progressed(self, progress: RunProgress) -> None: ...

    def controlled(self, control: RunControl) -> None: ...

    def restarting(self, environment: Environment) -> None:
        self.restarts.append(environment)

    def ended(self, order: RunOrder, end: RunEnd) -> None:
        self.ends.append(end)

    def noticed(self, sentence: str) -> None:
        self.notices.append(sentence)


@dataclass
class Room:
    """A running scheduler, and a machine that is enrolled with it."""

    script: Script
    server: TrustedServer
    directory: Path
    shown: Shown = field(default_factory=Shown)
    stop: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def state(self) -> Path:
        return self.directory / "state"

    @property
    def disk(self) -> Path:
        return self.directory / "disk.img"

    def agent(
        self,
        *,
        accepted: tuple[str, ...] = (),
        once: bool = True,
        named: bool = True,
        environment: Environment | None = None,
        held_seconds: float = HELD_SECONDS,
    ) -> Agent:
        """Returns an agent as it is after a start of the machine's process; with the disk file `named`, or without."""
        local = LocalMachine(
            server=self.server.address,
            state_dir=self.state,
            hardware=open_hardware([self.disk] if named else [], None, self.state),
            starter=Rehearsal(self.state, environment),
            display_name="pc1",
            held_seconds=held_seconds,
        )
        return Agent(local, self.shown, accepted=accepted, once=once)

    async def run(self, **how: Any) -> RunEnd | None:
        """Runs an agent until its first run ended."""
        async with asyncio.timeout(30):
            return await self.agent(**how).run(self.stop)

    def log_says(self, text: str) -> bool:
        """Returns whether the log of the present run has `text`."""
        return any(text in log.read_text() for log in self.state.glob("runs/*/log.txt"))


@asynccontextmanager
async def room(directory: Path, script: Script) -> AsyncIterator[Room]:
    """Gives a scheduler that follows the script, and a machine on a disk file."""
    async with serving(services(script)) as server:
        made = Room(script, server, directory)
        made.state.mkdir()
        made.disk.write_bytes(bytes(4096))
        server.credentials(Role.MACHINE, "m1").save(made.state)
        yield made
