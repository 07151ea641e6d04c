"""A scripted scheduler and sender on one port, and a group on the loopback, for tests of the agent."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from fleetcast.scheduler.v1 import participation_service_pb2, participation_service_pb2_grpc
from fleetcast.sender.v1 import transmission_service_pb2, transmission_service_pb2_grpc
from fleetcast.type.v1 import chunk_table_pb2
from fleetcast_agent.receiving.convert import chunk_set_message
from fleetcast_agent.receiving.receive import ReceiveRequest
from fleetcast_kit.errors import NotFoundError
from fleetcast_kit.identity.peer import Role
from fleetcast_kit.rpc.server import Service
from fleetcast_wire.chunkset import unpack_chunk_set
from fleetcast_wire.geometry import Geometry
from fleetcast_wire.keys import SenderKeys
from fleetcast_wire.runs import unpack_runs
from numpy.typing import NDArray

from tests.support.trust import TrustedServer, serving
from tests.support.waiting import until
from tests.unit.agent.receiving.transmitting import PassSender, StoredImage

GROUP = "239.192.88.1"
SESSION = "sessions/s1"


@dataclass
class Script:
    """What the site does, and what it has seen."""

    image: StoredImage
    loss: float = 0.0
    unicast: bool = False
    silent: bool = False
    """Multicast is announced and never sent: after a pass what is lacking is offered by unicast."""
    unusable_groups: list[str] = field(default_factory=list)
    """Named instead of the real one, to one receiver each."""
    traceparent: str = ""
    break_after_windows: int = 0
    """End the sender's stream once, after so many windows."""
    assign: bool = True
    image_name: str = "office"
    corrupt_fetches: int = 0
    """So many fetched chunks are damaged."""
    fetch_pause_seconds: float = 0.0
    fetch_limit: int = 0
    """After so many chunks no more is given to fetch; 0 gives all."""
    written_bytes: int = 0
    """What the machine reported last to have written."""
    dismiss_when_unreachable: bool = False
    geometry: Geometry = field(default_factory=lambda: Geometry(1024, 60, 4, 32, "leopard-rs16"))
    joins: list[participation_service_pb2.Join] = field(default_factory=list)
    receiver_joins: list[transmission_service_pb2.ReceiverJoin] = field(default_factory=list)
    progress: list[Any] = field(default_factory=list)
    outcomes: list[participation_service_pb2.Outcome] = field(default_factory=list)
    unreachable: list[str] = field(default_factory=list)
    fetched: list[int] = field(default_factory=list)
    passes: list[list[int]] = field(default_factory=list)
    table_of: Callable[[StoredImage], Any] | None = None
    dismissed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def pinned(self) -> str:
        return f"images/{self.image_name}@{self.image.manifest.digest}"


class Scheduler(participation_service_pb2_grpc.ParticipationServiceServicer):
    def __init__(self, script: Script) -> None:
        self.script = script
        self.address = ""
        self.transmission_count = 0

    async def Participate(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        script, first = self.script, await anext(requests)
        script.joins.append(first.join)
        wanted = first.join.image.removeprefix("images/").partition("@")[0]
        if wanted not in ("", script.image_name):
            raise NotFoundError(f"there is no image {wanted!r}")
        waiting = participation_service_pb2.Waiting(session=SESSION, image=script.pinned, reason="waits for 1 machine")
        yield participation_service_pb2.ParticipateResponse(acknowledged_sequence=1, waiting=waiting)
        if script.assign:
            yield self._assignment()
        heard = asyncio.ensure_future(anext(requests, None))
        dismissed = asyncio.ensure_future(script.dismissed.wait())
        while True:
            await asyncio.wait({heard, dismissed}, return_when=asyncio.FIRST_COMPLETED)
            if dismissed.done():
                reason = participation_service_pb2.Dismissal.REASON_CANCELLED
                yield participation_service_pb2.ParticipateResponse(
                    dismissal=participation_service_pb2.Dismissal(reason=reason, detail="enough")
                )
                return
            request = heard.result()
            if request is None:
                return
            match request.WhichOneof("message"):
                case "progress":
                    script.progress.append(request.progress)
                case "outcome":
                    script.outcomes.append(request.outcome)
                    dismissal = participation_service_pb2.Dismissal(
                        reason=participation_service_pb2.Dismissal.REASON_DONE
                    )
                    yield participation_service_pb2.ParticipateResponse(
                        acknowledged_sequence=request.sequence, dismissal=dismissal
                    )
                    return
                case "sender_unreachable":
                    script.unreachable.append(request.sender_unreachable.detail)
                    if script.dismiss_when_unreachable:
                        script.dismissed.set()
                    else:
                        yield self._assignment()
            heard = asyncio.ensure_future(anext(requests, None))

    def _assignment(self) -> Any:
        self.transmission_count += 1
        assignment = participation_service_pb2.Assignment(
            session=SESSION,
            image=self.script.pinned,
            size_bytes=self.script.image.manifest.size_bytes,
            transmission=f"{SESSION}/transmissions/t{self.transmission_count}",
            sender_address=self.address,
            traceparent=self.script.traceparent,
        )
        return participation_service_pb2.ParticipateResponse(acknowledged_sequence=1, assignment=assignment)


class Sender(transmission_service_pb2_grpc.TransmissionServiceServicer):
    def __init__(self, script: Script, port: int) -> None:
        self.script = script
        self.port = port
        self._random = Random(5)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
        self._socket.connect((GROUP, port))

    def close(self) -> None:
        self._socket.close()

    async def GetChunkTable(self, request: Any, context: Any) -> AsyncIterator[Any]:
        image = self.script.image
        if self.script.table_of is not None:
            yield self.script.table_of(image)
            return
        yield chunk_table_of(image)

    async def FetchChunks(self, request: Any, context: Any) -> AsyncIterator[Any]:
        script = self.script
        for chunk in members(request.chunks, script.image).nonzero()[0].tolist():
            await until(lambda: not script.fetch_limit or len(script.fetched) < script.fetch_limit)
            stored = script.image.stored[chunk]
            if script.corrupt_fetches:
                script.corrupt_fetches -= 1
                stored = bytes(len(stored))
            script.fetched.append(chunk)
            yield transmission_service_pb2.FetchChunksResponse(chunk=chunk, stored=stored)
            await asyncio.sleep(script.fetch_pause_seconds)

    async def Receive(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        script, first = self.script, await anext(requests)
        script.receiver_joins.append(first.join)
        held = members(first.join.held, script.image)
        unicast = script.unicast or first.join.unicast_only
        keys, geometry = SenderKeys.fresh(), script.geometry
        numbers = transmission_service_pb2.Geometry(**vars(geometry))
        welcome = transmission_service_pb2.ReceiverWelcome(geometry=numbers, report_interval_milliseconds=50)
        if not unicast:
            group = script.unusable_groups.pop(0) if script.unusable_groups else GROUP
            welcome.group, welcome.port, welcome.source_address = group, self.port, "127.0.0.1"
            welcome.key, welcome.initialization_vector = keys.key, keys.initialization_vector
            welcome.transmission_tag = keys.tag
            welcome.verification_key = keys.verification_key
        yield transmission_service_pb2.ReceiveResponse(welcome=welcome)
        inbox: asyncio.Queue[Any] = asyncio.Queue()
        reader = asyncio.create_task(self._drain(requests, inbox))
        try:
            while (await inbox.get()).WhichOneof("message") != "ready":
                pass
            sender = PassSender(keys, geometry, script.image)
            while not (held | script.image.manifest.zero).all():
                lacking = ~held & ~script.image.manifest.zero
                if unicast:
                    yield transmission_service_pb2.ReceiveResponse(
                        unicast=transmission_service_pb2.UnicastOffer(chunks=chunk_set_message(lacking))
                    )
                else:
                    script.passes.append(lacking.nonzero()[0].tolist())
                    sender.start_pass(script.passes[-1])
                    number = {"pass": sender.pass_number}
                    plan = transmission_service_pb2.PassPlan(chunks=chunk_set_message(lacking), **number)
                    yield transmission_service_pb2.ReceiveResponse(plan=plan)
                    if not await self._send_pass(sender, inbox):
                        return
                    yield transmission_service_pb2.ReceiveResponse(pass_end=transmission_service_pb2.PassEnd(**number))
                while (answer := await inbox.get()).WhichOneof("message") not in ("holding", "done"):
                    pass
                if answer.WhichOneof("message") == "done":
                    return
                held = members(answer.holding.held, script.image)
                unicast = unicast or script.silent
            while (await inbox.get()).WhichOneof("message") != "done":
                pass
        finally:
            reader.cancel()

    async def _drain(self, requests: AsyncIterator[Any], inbox: asyncio.Queue[Any]) -> None:
        async for request in requests:
            if request.WhichOneof("message") == "report":
                self.script.written_bytes = request.report.written_bytes
            inbox.put_nowait(request)

    async def _send_pass(self, sender: PassSender, inbox: asyncio.Queue[Any]) -> bool:
        """Send all windows with their repair; return False if the script breaks the stream here."""
        script = self.script
        for window in range(sender.layout.window_count):
            if script.break_after_windows and window == script.break_after_windows:
                script.break_after_windows = 0
                await until(lambda: script.written_bytes)
                return False
            await self._send(sender.source(window))
            await self._send([sender.mark(window)], lossless=True)
            for _ in range(10):
                await asyncio.sleep(0.01)
                reports = [inbox.get_nowait() for _ in range(inbox.qsize())]
                reports = [it.deficits for it in reports if it.WhichOneof("message") == "deficits"]
                if not reports:
                    continue
                for report in reports:
                    codewords = sender.layout.window(report.window).codewords
                    await self._send(
                        sender.parity(report.window, unpack_runs(report.run_values, report.run_lengths, codewords))
                    )
                await self._send([sender.mark(*sorted({report.window for report in reports}))], lossless=True)
        return True

    async def _send(self, datagrams: Iterable[bytes], *, lossless: bool = False) -> None:
        if self.script.silent:
            return
        for index, datagram in enumerate(datagrams):
            if lossless or self._random.random() >= self.script.loss:
                self._socket.send(datagram)
            if index % 64 == 63:
                await asyncio.sleep(0.001)


def members(message: Any, image: StoredImage) -> NDArray[np.bool_]:
    return unpack_chunk_set(message.bitmap, message.compressed, image.manifest.chunk_count)


def chunk_table_of(image: StoredImage) -> transmission_service_pb2.GetChunkTableResponse:
    raw, zstd = chunk_table_pb2.CHUNK_ENCODING_RAW, chunk_table_pb2.CHUNK_ENCODING_ZSTD
    return transmission_service_pb2.GetChunkTableResponse(
        size_bytes=image.manifest.size_bytes,
        chunk_size_bytes=image.manifest.chunk_size_bytes,
        table=chunk_table_pb2.ChunkTable(
            digests=image.manifest.digests.tobytes(),
            stored_size_bytes=image.sizes.tolist(),
            encodings=[zstd if compressed else raw for compressed in image.zstd],
        ),
    )


@dataclass
class Site:
    """A running scheduler and sender, and a machine that knows them."""

    script: Script
    server: TrustedServer
    directory: Path

    async def all_fetched_is_written(self) -> None:
        """Wait until as many chunks as may be fetched were, and the machine has written them."""
        script, wanted = self.script, self.script.fetch_limit * 65536
        await until(lambda: len(script.fetched) >= script.fetch_limit and script.written_bytes >= wanted)

    def request(self, **changes: Any) -> ReceiveRequest:
        values: dict[str, Any] = {
            "server": self.server.address,
            "credentials": self.server.credentials(Role.MACHINE, "m1"),
            "output": self.directory / "disk",
            "image": self.script.image_name,
            "state_dir": self.directory / "state",
            "multicast_interface": "127.0.0.1",
        }
        return ReceiveRequest(**(values | changes))


@asynccontextmanager
async def running_site(script: Script, directory: Path) -> AsyncIterator[Site]:
    """Give a site that follows a script; it ends with the context."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    machine = frozenset({Role.MACHINE})
    scheduler, sender = Scheduler(script), Sender(script, port)
    services = [
        Service(
            participation_service_pb2_grpc.add_ParticipationServiceServicer_to_server,
            scheduler,
            "fleetcast.scheduler.v1.ParticipationService",
            {"Participate": machine},
        ),
        Service(
            transmission_service_pb2_grpc.add_TransmissionServiceServicer_to_server,
            sender,
            "fleetcast.sender.v1.TransmissionService",
            dict.fromkeys(("Receive", "GetChunkTable", "FetchChunks"), machine),
        ),
    ]
    try:
        async with serving(services) as server:
            scheduler.address = server.address
            yield Site(script, server, directory)
    finally:
        sender.close()
