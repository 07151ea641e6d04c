"""Machines and operators that speak to a scheduler's deployments as the real ones do."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import grpc
from fleetcast.scheduler.v1 import (
    collection_service_pb2,
    deployment_pb2,
    deployment_service_pb2,
    machine_service_pb2,
    run_service_pb2,
)
from fleetcast.scheduler.v1.collection_service_pb2_grpc import CollectionServiceStub
from fleetcast.scheduler.v1.deployment_service_pb2_grpc import DeploymentServiceStub
from fleetcast.scheduler.v1.machine_service_pb2_grpc import MachineServiceStub
from fleetcast.scheduler.v1.run_service_pb2_grpc import RunServiceStub
from fleetcast_kit.identity.peer import Role

from tests.integration.scheduler_actors import IMAGE, WAIT_SECONDS, Site

STATE = deployment_pb2.Run.State
DEPLOYMENT_STATE = deployment_pb2.Deployment.State
OUTCOME = deployment_pb2.StepRun.Outcome
REQUIRED = deployment_pb2.Deployment.PURPOSE_REQUIRED


class Operator:
    """Makes collections and deployments, and looks at them."""

    def __init__(self, site: Site) -> None:
        channel = site.channel(Role.ADMINISTRATOR, "operator")
        self.deployments: Any = DeploymentServiceStub(channel)
        self.collections: Any = CollectionServiceStub(channel)
        self.machines: Any = MachineServiceStub(channel)

    async def collect(self, *names: str, name: str = "lab", **fields: Any) -> str:
        """Makes a collection of machines and returns its name."""
        message = collection_service_pb2.Collection(name=f"collections/{name}", **fields)
        await self.collections.CreateCollection(collection_service_pb2.CreateCollectionRequest(collection=message))
        if names:
            members = [f"machines/{one}" for one in names]
            await self.collections.AddMembers(
                collection_service_pb2.AddMembersRequest(name=message.name, machines=members)
            )
        return message.name

    async def deploy(self, *, confirmed: int = 0, request_id: str = "", dry: bool = False, **fields: Any) -> Any:
        """Makes a required deployment of the image to the lab, unless `fields` say otherwise; returns the answer."""
        values: dict[str, Any] = {"collection": "collections/lab", "purpose": REQUIRED}
        if "task_sequence" not in fields:
            values["image"] = IMAGE.partition("@")[0]
        deployment = deployment_pb2.Deployment(**values | fields)
        return await self.deployments.CreateDeployment(
            deployment_service_pb2.CreateDeploymentRequest(
                deployment=deployment, confirmed_machine_count=confirmed, request_id=request_id, validate_only=dry
            )
        )

    async def get(self, name: str) -> deployment_pb2.Deployment:
        answer = await self.deployments.GetDeployment(deployment_service_pb2.GetDeploymentRequest(name=name))
        return answer.deployment  # type: ignore[no-any-return]

    async def runs(self, parent: str) -> list[deployment_pb2.Run]:
        answer = await self.deployments.ListRuns(deployment_service_pb2.ListRunsRequest(parent=parent))
        return list(answer.runs)

    async def run_when(self, parent: str, state: int) -> deployment_pb2.Run:
        """Returns the newest run of a parent as soon as it is in a state."""
        async with asyncio.timeout(WAIT_SECONDS):
            while True:
                run = (await self.runs(parent))[0]
                if run.state == state:
                    return run
                await asyncio.sleep(0.02)


class RunningMachine:
    """Registers, attends, and does what the test says."""

    def __init__(self, site: Site, name: str) -> None:
        self.name = name
        self._channel = site.channel(Role.MACHINE, name)
        self._call: Any = None
        self._sequence = 0
        self.acknowledged = 0

    async def register(
        self, disks: Sequence[machine_service_pb2.Disk] = (), **fields: Any
    ) -> machine_service_pb2.Machine:
        stub: Any = MachineServiceStub(self._channel)
        inventory = machine_service_pb2.Inventory(
            serial_number=f"S{self.name}", mac_addresses=[f"aa:bb:cc:00:{self._octets()}"], disks=disks
        )
        request = machine_service_pb2.RegisterMachineRequest(
            display_name=f"pc-{self.name}", inventory=inventory, **fields
        )
        answer = await stub.RegisterMachine(request, wait_for_ready=True)
        return answer.machine  # type: ignore[no-any-return]

    def _octets(self) -> str:
        number = sum(self.name.encode())
        return f"{number >> 8:02x}:{number & 255:02x}"

    async def attend(self, run: str = "") -> None:
        self._sequence = self.acknowledged = 0
        self._call = RunServiceStub(self._channel).Attend(wait_for_ready=True)
        await self.say(arrival=run_service_pb2.Arrival(run=run, environment="boot"))

    async def say(self, **message: Any) -> int:
        self._sequence += 1
        await self._call.write(run_service_pb2.AttendRequest(sequence=self._sequence, **message))
        return self._sequence

    async def progress(self, step: int, **fields: Any) -> int:
        values: dict[str, Any] = {"step": step, "step_count": 3, "step_name": f"step {step}"}
        return await self.say(progress=run_service_pb2.RunProgress(**values | fields))

    async def finish(self, run: str, outcome: int = OUTCOME.OUTCOME_SUCCEEDED, **fields: Any) -> int:
        return await self.say(outcome=run_service_pb2.RunOutcome(run=run, outcome=outcome, **fields))  # type: ignore[arg-type]

    async def hear(self, kind: str) -> Any:
        """Returns the next message of a kind, whatever comes before."""
        async with asyncio.timeout(WAIT_SECONDS):
            while True:
                response = await self._call.read()
                if response is grpc.aio.EOF:
                    raise AssertionError(f"{self.name}: the stream ended before {kind}: {await self._call.code()}")
                self.acknowledged = response.acknowledged_sequence
                if response.WhichOneof("message") == kind:
                    return getattr(response, kind)

    async def known(self, sequence: int) -> None:
        """Returns when a request is acknowledged."""
        async with asyncio.timeout(WAIT_SECONDS):
            while self.acknowledged < sequence:
                self.acknowledged = (await self._call.read()).acknowledged_sequence

    def break_off(self) -> None:
        self._call.cancel()

    async def upload_log(self, run: str, *pieces: bytes) -> None:
        stub: Any = RunServiceStub(self._channel)

        async def requests() -> Any:
            for number, data in enumerate(pieces):
                yield run_service_pb2.UploadRunLogRequest(run="" if number else run, data=data)

        await stub.UploadRunLog(requests())
