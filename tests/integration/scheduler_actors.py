"""The scheduler behind a real port, with a catalog, senders and machines that speak to it as the real ones do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import grpc
from fleetcast.catalog.v1 import catalog_service_pb2, image_pb2, task_sequence_pb2, task_sequence_service_pb2
from fleetcast.catalog.v1.catalog_service_pb2_grpc import (
    CatalogServiceServicer,
    add_CatalogServiceServicer_to_server,
)
from fleetcast.catalog.v1.task_sequence_service_pb2_grpc import (
    TaskSequenceServiceServicer,
    add_TaskSequenceServiceServicer_to_server,
)
from fleetcast.scheduler.v1 import participation_service_pb2, sender_registry_service_pb2, session_pb2
from fleetcast.scheduler.v1.participation_service_pb2_grpc import ParticipationServiceStub
from fleetcast.scheduler.v1.sender_registry_service_pb2_grpc import SenderRegistryServiceStub
from fleetcast.scheduler.v1.session_service_pb2_grpc import SessionServiceStub
from fleetcast_kit.errors import FailedPreconditionError, NotFoundError, UnavailableError
from fleetcast_kit.identity.authority import CertificateAuthority
from fleetcast_kit.identity.peer import Identity, Role
from fleetcast_kit.identity.trust import ServerCredentials, TrustBundle
from fleetcast_kit.rpc.channel import open_channel
from fleetcast_kit.rpc.server import GrpcServer, Service
from fleetcast_scheduler.app import SchedulerApp, open_scheduler
from fleetcast_scheduler.deployments.app import DeploymentOptions
from fleetcast_scheduler.sessions.domain.session import Timing

IMAGE = "images/win11@sha256:" + "a" * 64
SIZE_BYTES = 1_000_000
WAIT_SECONDS = 10.0


class FakeCatalog(CatalogServiceServicer):
    """Knows one image and remembers who holds it."""

    def __init__(self) -> None:
        self.held: dict[str, str] = {}
        self.image = IMAGE
        self.format = image_pb2.IMAGE_FORMAT_RAW
        self.contents: image_pb2.ImageContents | None = None
        self.owner = ""
        self.fails = False
        """It answers nothing for the moment."""

    def _image(self, name: str) -> image_pb2.Image:
        if name not in (self.image, self.image.partition("@")[0]):
            raise NotFoundError(f"there is no image {name!r}", reason="IMAGE_NOT_FOUND")
        return image_pb2.Image(
            name=self.image,
            size_bytes=SIZE_BYTES,
            state=image_pb2.Image.STATE_READY,
            format=self.format,
            contents=self.contents,
            owner=self.owner,
        )

    async def GetImage(self, request: Any, context: Any) -> Any:
        return catalog_service_pb2.GetImageResponse(image=self._image(request.name))

    async def HoldImage(self, request: Any, context: Any) -> Any:
        self._check()
        image = self._image(request.name)
        self.held[request.holder] = image.name
        return catalog_service_pb2.HoldImageResponse(image=image)

    def _check(self) -> None:
        if self.fails:
            raise UnavailableError("the catalog is not there")

    async def ReleaseImage(self, request: Any, context: Any) -> Any:
        self._check()
        self.held.pop(request.holder, None)
        return catalog_service_pb2.ReleaseImageResponse()

    async def ListHolds(self, request: Any, context: Any) -> Any:
        holds = [
            catalog_service_pb2.Hold(name=image, holder=holder)
            for holder, image in self.held.items()
            if holder.startswith(request.holder_prefix)
        ]
        return catalog_service_pb2.ListHoldsResponse(holds=holds)

    async def ImportImage(self, request_iterator: Any, context: Any) -> AsyncIterator[Any]:
        raise FailedPreconditionError("the scheduler imports nothing")
        yield

    async def VerifyImage(self, request: Any, context: Any) -> AsyncIterator[Any]:
        raise FailedPreconditionError("the scheduler verifies nothing")
        yield

    async def GetChunkTable(self, request: Any, context: Any) -> AsyncIterator[Any]:
        raise FailedPreconditionError("the scheduler reads no chunk table")
        yield

    async def ReadChunks(self, request: Any, context: Any) -> AsyncIterator[Any]:
        raise FailedPreconditionError("the scheduler reads no chunks")
        yield

    async def ListImages(self, request: Any, context: Any) -> Any:
        raise FailedPreconditionError("the scheduler lists no images")

    async def DeleteImage(self, request: Any, context: Any) -> Any:
        raise FailedPreconditionError("the scheduler deletes nothing")

    def service(self) -> Service:
        methods = catalog_service_pb2.DESCRIPTOR.services_by_name["CatalogService"].methods
        roles = {method.name: frozenset({Role.SERVICE, Role.ADMINISTRATOR}) for method in methods}
        return Service(add_CatalogServiceServicer_to_server, self, "fleetcast.catalog.v1.CatalogService", roles)


SEQUENCE = "taskSequences/bare-metal@sha256:" + "b" * 64
SEQUENCE_DIGEST = "sha256:" + "c" * 64


class FakeSequences(TaskSequenceServiceServicer):
    """Knows one task sequence, which needs the image, and remembers who holds it."""

    def __init__(self, catalog: FakeCatalog) -> None:
        self._catalog = catalog
        self.held: dict[str, str] = {}
        self.canonical_form = b'{"name": "bare-metal"}'
        self.needs_image = True
        self.required_variables: list[str] = []
        self.uploads: list[str] = []

    def _resolved(self, name: str) -> task_sequence_pb2.ResolvedTaskSequence:
        if name not in (SEQUENCE, SEQUENCE.partition("@")[0]):
            raise NotFoundError(f"there is no task sequence {name!r}", reason="TASK_SEQUENCE_NOT_FOUND")
        return task_sequence_pb2.ResolvedTaskSequence(
            task_sequence=task_sequence_pb2.TaskSequence(name=SEQUENCE),
            canonical_form=self.canonical_form,
            digest=SEQUENCE_DIGEST,
            images=[task_sequence_pb2.PinnedImage(name=self._catalog.image, size_bytes=SIZE_BYTES, is_wim=True)]
            if self.needs_image
            else [],
            required_variables=self.required_variables,
            uploads=self.uploads,
        )

    async def ResolveTaskSequence(self, request: Any, context: Any) -> Any:
        return task_sequence_service_pb2.ResolveTaskSequenceResponse(resolved=self._resolved(request.name))

    async def HoldTaskSequence(self, request: Any, context: Any) -> Any:
        resolved = self._resolved(request.name)
        self.held[request.holder] = resolved.task_sequence.name
        return task_sequence_service_pb2.HoldTaskSequenceResponse(resolved=resolved)

    async def ReleaseTaskSequence(self, request: Any, context: Any) -> Any:
        self.held.pop(request.holder, None)
        self._catalog.held.pop(request.holder, None)
        return task_sequence_service_pb2.ReleaseTaskSequenceResponse()

    async def ListTaskSequenceHolds(self, request: Any, context: Any) -> Any:
        holds = [
            task_sequence_service_pb2.TaskSequenceHold(name=name, holder=holder)
            for holder, name in self.held.items()
            if holder.startswith(request.holder_prefix)
        ]
        return task_sequence_service_pb2.ListTaskSequenceHoldsResponse(holds=holds)

    async def _refuse(self, request: Any, context: Any) -> Any:
        raise FailedPreconditionError("the scheduler does not ask that")

    CreateTaskSequence = ValidateTaskSequence = GetTaskSequence = _refuse
    ListTaskSequences = GetTaskSequenceSource = DeleteTaskSequence = _refuse

    def service(self) -> Service:
        methods = task_sequence_service_pb2.DESCRIPTOR.services_by_name["TaskSequenceService"].methods
        roles = {method.name: frozenset({Role.SERVICE}) for method in methods}
        return Service(
            add_TaskSequenceServiceServicer_to_server, self, "fleetcast.catalog.v1.TaskSequenceService", roles
        )


@dataclass
class Site:
    """One authority, one catalog, and a scheduler that can be killed and started again on the same port."""

    directory: Path
    authority: CertificateAuthority
    catalog: FakeCatalog
    timing: Timing
    database_url: str
    port: int = 0
    deployment_options: DeploymentOptions | None = None
    sequences: FakeSequences = field(init=False)
    app: SchedulerApp | None = None
    server: GrpcServer | None = None
    channels: list[grpc.aio.Channel] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.sequences = FakeSequences(self.catalog)

    @property
    def address(self) -> str:
        return f"localhost:{self.port}"

    async def start(self) -> None:
        trust = TrustBundle(self.authority.certificate)
        own = self.authority.issue_credentials(Identity.of(Role.SERVICE, "server"), names=["localhost"])
        self.app = await open_scheduler(
            self.database_url,
            authority=self.authority,
            trust=trust,
            timing=self.timing,
            deployment_options=self.deployment_options,
        )
        self.server = GrpcServer(
            f"localhost:{self.port}",
            ServerCredentials(own, trust),
            [*self.app.services, self.catalog.service(), self.sequences.service()],
        )
        await self.server.start()
        self.port = self.server.port
        await self.app.start(self.address, own)

    async def stop(self) -> None:
        assert self.server is not None
        assert self.app is not None
        await self.server.stop(0)
        await self.app.stop()

    async def kill(self) -> None:
        """What a SIGKILL leaves: nothing more is decided or stored, and every connection breaks."""
        assert self.server is not None
        assert self.app is not None
        tasks = self.app._tasks
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.app._tasks = []
        await self.server.stop(0)
        await self.app.stop()

    def channel(self, role: Role, identifier: str) -> grpc.aio.Channel:
        credentials = self.authority.issue_credentials(Identity.of(role, identifier))
        channel = open_channel(self.address, credentials)
        self.channels.append(channel)
        return channel

    def operator(self) -> Any:
        return SessionServiceStub(self.channel(Role.ADMINISTRATOR, "operator"))


@asynccontextmanager
async def open_site(
    directory: Path,
    timing: Timing | None = None,
    database_url: str = "",
    deployment_options: DeploymentOptions | None = None,
) -> AsyncIterator[Site]:
    site = Site(
        directory,
        CertificateAuthority.create(),
        FakeCatalog(),
        timing or Timing(),
        database_url or f"sqlite:///{directory / 'scheduler.db'}",
        deployment_options=deployment_options,
    )
    await site.start()
    try:
        yield site
    finally:
        for channel in site.channels:
            await channel.close()
        await site.stop()


class Dialled(Protocol):
    """Something that gives channels to a scheduler."""

    def channel(self, role: Role, identifier: str) -> grpc.aio.Channel: ...


class FakeSender:
    """Registers and answers every command; remembers them."""

    def __init__(self, at: Dialled, name: str = "a", **registration: Any) -> None:
        self.name = name
        self.registration = registration
        self.commands: list[sender_registry_service_pb2.ServeSenderResponse] = []
        self.running: dict[str, sender_registry_service_pb2.StartTransmission] = {}
        self.admitted: dict[str, set[str]] = {}
        self.answers = True
        self._channel = at.channel(Role.SENDER, name)
        self._call: Any = None
        self._task: asyncio.Task[None] | None = None

    async def connect(self) -> None:
        self._call = SenderRegistryServiceStub(self._channel).ServeSender(wait_for_ready=True)
        values: dict[str, Any] = {
            "address": f"sender-{self.name}:7444",
            "first_group": "239.192.0.0",
            "last_group": "239.192.0.255",
            "first_port": 7500,
            "last_port": 7599,
        }
        message = sender_registry_service_pb2.SenderRegistration(
            **values | self.registration, transmissions=list(self.running)
        )
        await self._call.write(sender_registry_service_pb2.ServeSenderRequest(registration=message))
        first = await asyncio.wait_for(self._call.read(), WAIT_SECONDS)
        assert first.registered.name == f"senders/{self.name}"
        self._task = asyncio.create_task(self._serve(self._call))

    async def disconnect(self) -> None:
        self._call.cancel()
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    async def closed(self) -> None:
        """Returns when the scheduler has ended the stream."""
        assert self._task is not None
        await asyncio.wait_for(self._task, WAIT_SECONDS)

    async def report(
        self,
        transmission: str,
        sent_source_bytes: int,
        *,
        unicast: Sequence[session_pb2.UnicastMachines] = (),
        **totals: Any,
    ) -> None:
        message = session_pb2.Transmission(name=transmission, sent_source_bytes=sent_source_bytes, **totals)
        report = sender_registry_service_pb2.TransmissionReport(
            transmission=message, state=sender_registry_service_pb2.TransmissionReport.STATE_SENDING, unicast=unicast
        )
        await self._call.write(sender_registry_service_pb2.ServeSenderRequest(report=report))

    async def _serve(self, call: Any) -> None:
        with suppress(grpc.aio.AioRpcError, asyncio.CancelledError):  # the scheduler went away, or the test ended it
            await self._obey(call)

    async def _obey(self, call: Any) -> None:
        while (command := await call.read()) is not grpc.aio.EOF:
            self.commands.append(command)
            match command.WhichOneof("message"):
                case "start":
                    self.running[command.start.transmission] = command.start
                    self.admitted[command.start.transmission] = set(command.start.machines)
                case "admit":
                    self.admitted[command.admit.transmission].update(command.admit.machines)
                case "stop":
                    self.running.pop(command.stop.transmission, None)
            if self.answers:
                result = sender_registry_service_pb2.CommandResult(command_id=command.command_id)
                await call.write(sender_registry_service_pb2.ServeSenderRequest(result=result))


class FakeMachine:
    """Joins and says what the test tells it to."""

    def __init__(self, site: Dialled, name: str) -> None:
        self.name = name
        self._channel = site.channel(Role.MACHINE, name)
        self._call: Any = None
        self._sequence = 0
        self.acknowledged = 0

    async def join(self, **join: Any) -> None:
        self._sequence = 0
        self.acknowledged = 0
        self._call = ParticipationServiceStub(self._channel).Participate(wait_for_ready=True)
        values: dict[str, Any] = {"display_name": self.name, "target_size_bytes": -1}
        await self._say(join=participation_service_pb2.Join(**values | join))

    async def progress(self, written_bytes: int) -> None:
        totals = session_pb2.ReceptionTotals(size_bytes=SIZE_BYTES, written_bytes=written_bytes)
        await self._say(progress=totals)

    async def finish(self, error: str = "") -> None:
        totals = session_pb2.ReceptionTotals(size_bytes=SIZE_BYTES, written_bytes=SIZE_BYTES)
        await self._say(outcome=participation_service_pb2.Outcome(totals=totals, succeeded=not error, error=error))

    async def sender_unreachable(self, transmission: str) -> None:
        await self._say(sender_unreachable=participation_service_pb2.SenderUnreachable(transmission=transmission))

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

    async def acknowledgement(self, sequence: int) -> None:
        """Returns when a request is acknowledged."""
        async with asyncio.timeout(WAIT_SECONDS):
            while self.acknowledged < sequence:
                self.acknowledged = (await self._call.read()).acknowledged_sequence

    def break_off(self) -> None:
        self._call.cancel()

    async def _say(self, **message: Any) -> None:
        self._sequence += 1
        await self._call.write(participation_service_pb2.ParticipateRequest(sequence=self._sequence, **message))
