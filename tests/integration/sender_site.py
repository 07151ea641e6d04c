"""A sender between a scripted scheduler and a small catalog, on one port, and machines that receive from it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from fleetcast.catalog.v1 import catalog_service_pb2, catalog_service_pb2_grpc
from fleetcast.scheduler.v1 import sender_registry_service_pb2, sender_registry_service_pb2_grpc, session_pb2
from fleetcast.type.v1 import chunk_table_pb2
from fleetcast_agent.receiving.messages import Assignment, Totals
from fleetcast_agent.receiving.multicast.memory import MemoryPlan
from fleetcast_agent.receiving.multicast.sockets.network import Network
from fleetcast_agent.receiving.timing import Timing
from fleetcast_agent.receiving.transmission import TransmissionStream, fetch_chunk_table
from fleetcast_agent.receiving.writing.download import Download
from fleetcast_agent.receiving.writing.journal import Journal
from fleetcast_agent.receiving.writing.target import Target
from fleetcast_kit.chunks.store import ChunkStore
from fleetcast_kit.identity.peer import Role
from fleetcast_kit.rpc.server import Service
from fleetcast_sender.app import SenderApp, open_sender
from fleetcast_sender.settings import SenderSettings
from fleetcast_wire.chunkset import unpack_chunk_set

from tests.support.trust import TrustedServer, serving
from tests.support.waiting import until
from tests.unit.agent.receiving.transmitting import StoredImage, make_image

RAW, ZSTD = chunk_table_pb2.CHUNK_ENCODING_RAW, chunk_table_pb2.CHUNK_ENCODING_ZSTD
GROUP, PORT = "239.192.77.1", 64077


class SmallCatalog(catalog_service_pb2_grpc.CatalogServiceServicer):
    """Has one image."""

    def __init__(self, image: StoredImage) -> None:
        self.image = image
        self.read_chunk_count = 0
        self.away = False
        """While true it answers as a server does that is not there."""
        self.refused_count = 0

    async def _be_there(self, context: Any) -> None:
        if self.away:
            self.refused_count += 1
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the catalog is away")

    async def GetChunkTable(self, request, context):  # type: ignore[no-untyped-def]
        await self._be_there(context)
        manifest = self.image.manifest
        response = catalog_service_pb2.GetChunkTableResponse(
            table=chunk_table_pb2.ChunkTable(
                digests=manifest.digests.tobytes(),
                stored_size_bytes=[len(stored) for stored in self.image.stored],
                encodings=[ZSTD if zstd else RAW for zstd in self.image.zstd],
            )
        )
        response.image.size_bytes, response.image.chunk_size_bytes = manifest.size_bytes, manifest.chunk_size_bytes
        yield response

    async def ReadChunks(self, request, context):  # type: ignore[no-untyped-def]
        await self._be_there(context)
        chunks = request.chunks
        members = unpack_chunk_set(chunks.bitmap, chunks.compressed, self.image.manifest.chunk_count)
        for chunk in members.nonzero()[0].tolist():
            self.read_chunk_count += 1
            yield catalog_service_pb2.ReadChunksResponse(chunk=chunk, stored=self.image.stored[chunk])

    async def _other(self, request, context):  # type: ignore[no-untyped-def]
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "not in this catalog")

    async def _other_stream(self, request, context):  # type: ignore[no-untyped-def]
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "not in this catalog")
        yield

    GetImage = ListImages = DeleteImage = HoldImage = ReleaseImage = ListHolds = _other
    ImportImage = VerifyImage = _other_stream

    def service(self) -> Service:
        everybody = frozenset(Role)
        methods = catalog_service_pb2.DESCRIPTOR.services_by_name["CatalogService"].methods
        return Service(
            catalog_service_pb2_grpc.add_CatalogServiceServicer_to_server,
            self,
            "fleetcast.catalog.v1.CatalogService",
            {method.name: everybody for method in methods},
        )


class ScriptedScheduler(sender_registry_service_pb2_grpc.SenderRegistryServiceServicer):
    """Says what a test tells it to, and remembers what it hears."""

    def __init__(self) -> None:
        self.registrations: list[sender_registry_service_pb2.SenderRegistration] = []
        self.reports: list[sender_registry_service_pb2.TransmissionReport] = []
        self.results: dict[int, str] = {}
        self._heard = asyncio.Event()
        self._commands: asyncio.Queue[sender_registry_service_pb2.ServeSenderResponse | None] = asyncio.Queue()
        self._number = 0

    async def ServeSender(self, request_iterator, context):  # type: ignore[no-untyped-def]
        first = await anext(request_iterator)
        self.registrations.append(first.registration)
        self._commands = asyncio.Queue()
        self._wake()
        reader = asyncio.create_task(self._read(request_iterator))
        try:
            yield sender_registry_service_pb2.ServeSenderResponse(
                registered=sender_registry_service_pb2.SenderRegistered(name="senders/test")
            )
            while (command := await self._commands.get()) is not None:
                yield command
        finally:
            reader.cancel()

    async def _read(self, requests: AsyncIterator[sender_registry_service_pb2.ServeSenderRequest]) -> None:
        async for request in requests:
            if request.HasField("result"):
                self.results[request.result.command_id] = request.result.error
            else:
                self.reports.append(request.report)
            self._wake()

    def _wake(self) -> None:
        self._heard.set()
        self._heard = asyncio.Event()

    def break_stream(self) -> None:
        """End the sender's stream, as a restart does."""
        self._commands.put_nowait(None)

    async def until(self, condition, seconds: float = 30) -> None:  # type: ignore[no-untyped-def]
        """Wait until something heard makes the condition true."""
        async with asyncio.timeout(seconds):
            while not condition():
                await self._heard.wait()

    async def command(self, command: sender_registry_service_pb2.ServeSenderResponse) -> str:
        """Give a command and return its error, empty if it succeeded."""
        self._number += 1
        number = command.command_id = self._number
        self._commands.put_nowait(command)
        await self.until(lambda: number in self.results)
        return self.results[number]

    @property
    def last_report(self) -> sender_registry_service_pb2.TransmissionReport:
        """What was reported last; an empty report before the first."""
        return self.reports[-1] if self.reports else sender_registry_service_pb2.TransmissionReport()

    def last_state(self) -> int:
        return self.last_report.state

    def service(self) -> Service:
        return Service(
            sender_registry_service_pb2_grpc.add_SenderRegistryServiceServicer_to_server,
            self,
            "fleetcast.scheduler.v1.SenderRegistryService",
            {"ServeSender": frozenset({Role.SENDER})},
        )


@dataclass
class Site:
    """All of it, running."""

    server: TrustedServer
    sender: SenderApp
    scheduler: ScriptedScheduler
    catalog: SmallCatalog
    image: StoredImage
    directory: Path
    transmission: str = "sessions/1/transmissions/1"
    interface: str = "lo"
    channels: list[grpc.aio.Channel] = field(default_factory=list)
    downloads: dict[str, Download] = field(default_factory=dict)
    """The running or the last reception of each machine."""
    totals_of: dict[str, Totals] = field(default_factory=dict)
    """What each machine received, once it ended."""

    @property
    def image_name(self) -> str:
        return f"images/test@{self.image.manifest.digest}"

    async def start(
        self,
        *machines: str,
        group: str = GROUP,
        port: int = PORT,
        transmission: str = "",
        fixed_bits_per_second: int = 0,
        slow_policy: session_pb2.SlowPolicy | None = None,
    ) -> str:
        """Have a transmission started; return the error."""
        return await self.scheduler.command(
            sender_registry_service_pb2.ServeSenderResponse(
                start=sender_registry_service_pb2.StartTransmission(
                    transmission=transmission or self.transmission,
                    image=self.image_name,
                    group=group,
                    port=port,
                    rate=session_pb2.RatePolicy(fixed_bits_per_second=fixed_bits_per_second),
                    machines=[f"machines/{machine}" for machine in machines],
                    slow_policy=slow_policy,
                )
            )
        )

    async def stop(self, transmission: str = "") -> str:
        stop = sender_registry_service_pb2.StopTransmission(transmission=transmission or self.transmission)
        return await self.scheduler.command(sender_registry_service_pb2.ServeSenderResponse(stop=stop))

    async def admit(self, *machines: str) -> str:
        names = [f"machines/{machine}" for machine in machines]
        admit = sender_registry_service_pb2.AdmitParticipants(transmission=self.transmission, machines=names)
        return await self.scheduler.command(sender_registry_service_pb2.ServeSenderResponse(admit=admit))

    def dial(self, machine: str) -> grpc.aio.Channel:
        channel = self.server.dial(Role.MACHINE, machine)
        self.channels.append(channel)
        return channel

    async def move_to_unicast(self, *machines: str) -> str:
        names = [f"machines/{machine}" for machine in machines]
        move = sender_registry_service_pb2.MoveToUnicast(transmission=self.transmission, machines=names)
        return await self.scheduler.command(sender_registry_service_pb2.ServeSenderResponse(move_to_unicast=move))

    async def until_received(self, machine: str, *, unicast: bool = False) -> None:
        """Wait until a machine has got something of the image in its running reception."""

        def received() -> int:
            if not (download := self.downloads.get(machine)):
                return 0
            return download.totals().unicast_bytes if unicast else download.totals().multicast_bytes

        await until(received)

    async def receive(
        self,
        machine: str,
        *,
        transmission: str = "",
        unicast: bool = False,
        memory_mib: int = 200,
        disk: type[Target] | None = None,
    ) -> bytes:
        """Receive the image as an agent does; return its content."""
        channel = self.dial(machine)
        assignment = Assignment(
            "sessions/1", self.image_name, 0, transmission or self.transmission, self.server.address, ""
        )
        table = await fetch_chunk_table(channel, assignment)
        path = self.directory / f"{machine}.img"
        network = Network(self.interface)
        if unicast:
            network.take_none("the test wants unicast")
        target = (disk or Target)(path)
        journal = Journal(self.directory / f"{machine}-journal", path)
        download = self.downloads[machine] = await Download.open(self.image_name, table, target, journal)
        try:
            await TransmissionStream(
                channel,
                assignment,
                download,
                memory=MemoryPlan.of(memory_mib << 20),
                network=network,
                timing=Timing(),
                notice=lambda _: None,
            ).run()
            await download.finish()
        finally:
            self.totals = self.totals_of[machine] = download.totals()
            await download.close(keep=True)
            target.close()
        return path.read_bytes()


@asynccontextmanager
async def running_site(
    directory: Path, *, size_bytes: int = 3_000_000, local: bool = True, **settings: object
) -> AsyncIterator[Site]:
    """Gives a site whose sender is registered."""
    image = make_image(1, size_bytes)
    catalog, scheduler = SmallCatalog(image), ScriptedScheduler()
    values: dict[str, object] = {"interface": "lo", "cache_dir": directory / "cache", "unicast_receivers": 0}
    if local:
        store = ChunkStore(directory / "store")
        for chunk in (~image.manifest.zero).nonzero()[0].tolist():
            start = chunk * image.manifest.chunk_size_bytes
            content = image.content[start : start + image.manifest.chunk_bytes(chunk)]
            digest = image.manifest.digests[chunk].tobytes()
            placement = store.put(digest, content)
            image.stored[chunk] = store.read(digest).stored
            image.zstd[chunk] = placement.form.encoding == 2
        values["chunk_store"] = directory / "store"
    sender = await open_sender(SenderSettings.model_validate(values | settings))
    async with serving([*sender.services, catalog.service(), scheduler.service()]) as server:
        site = Site(server, sender, scheduler, catalog, image, directory)
        await sender.start(
            scheduler=server.address,
            catalog=server.address,
            address=server.address,
            credentials=server.credentials(Role.SENDER),
        )
        await asyncio.wait_for(sender.registered(), 30)
        try:
            yield site
        finally:
            for channel in site.channels:
                await channel.close()
            await sender.stop()
