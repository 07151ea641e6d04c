"""Receives one image onto one target: from joining a session to the last byte on the medium."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import grpc
from fleetcast_kit.errors import FleetcastError, InternalError
from fleetcast_kit.identity.credentials import Credentials
from fleetcast_kit.process import semconv, telemetry
from fleetcast_kit.rpc.channel import open_channel
from fleetcast_kit.values.addresses import split_address
from opentelemetry import trace

from fleetcast_agent.receiving.errors import DismissedError, InterruptedReceptionError
from fleetcast_agent.receiving.following import AssignmentFollower, unless_failed
from fleetcast_agent.receiving.messages import Assignment, Dismissal, HardwareIdentifiers, JoinRequest, Totals, Waiting
from fleetcast_agent.receiving.multicast.memory import MemoryPlan, peak_memory_bytes
from fleetcast_agent.receiving.multicast.sockets.interfaces import INTERFACES
from fleetcast_agent.receiving.multicast.sockets.network import Network
from fleetcast_agent.receiving.participation import Participation
from fleetcast_agent.receiving.timing import Timing
from fleetcast_agent.receiving.writing.download import open_target
from fleetcast_agent.receiving.writing.journal import Journal
from fleetcast_agent.receiving.writing.medium import Medium
from fleetcast_agent.receiving.writing.target import Target

_logger = logging.getLogger(__name__)
_tracer = telemetry.tracer(__name__)
_PROGRESS_SECONDS = 1.0
_VERIFIED_SECONDS = 0.2


@dataclass(frozen=True)
class ReceiveRequest:
    """What to receive, onto what, and how."""

    server: str
    """HOST:PORT of the scheduler."""
    credentials: Credentials
    output: Path
    image: str = ""
    """`NAME` or `NAME@sha256:{hex}`; empty if a session is named."""
    session: str = ""
    """Its id; empty if an image is named."""
    run: str = ""
    """The run that the image is for, `deployments/{deployment}/runs/{id}`; empty outside of deployments."""
    as_is: bool = False
    """Whatever the image is belongs onto the output: also a WIM onto a device, or a volume onto a whole disk."""
    keep_size: bool = False
    """The output stands for a disk: a file that is larger than the image stays so."""
    examine: Callable[[bytes], Awaitable[bool]] | None = None
    """Receives `FIRST_LOOK_BYTES` of the image before the first byte is written, and `HEAD_BYTES` if it returns that
    it must see more; what it raises ends the reception."""
    display_name: str = ""
    """What people see for the machine."""
    hardware: HardwareIdentifiers = field(default_factory=HardwareIdentifiers)
    """Of this machine: the server holds an identity that comes from other hardware than before."""
    state_dir: Path = Path()
    multicast_interface: str = ""
    interfaces: Path = INTERFACES
    """The directory in which the system describes each network interface."""
    no_multicast_reason: str = ""
    """Why the machine shall take no multicast, whatever its network can; empty if it shall."""
    memory_bytes: int = 0
    """About what the process may use in all; 0 chooses."""
    timing: Timing = field(default_factory=Timing)
    medium: Medium | None = None
    """How the target's bytes are written; None as the system does."""


@dataclass(frozen=True)
class ReceiveSummary:
    """How an image was received."""

    image: str
    """`NAME@sha256:{hex}`."""
    session: str
    output: str
    totals: Totals
    seconds: float
    """From the assignment to the last byte on the medium."""
    cpu_seconds: float
    """Of this process, from the assignment on."""
    peak_memory_bytes: int

    @property
    def goodput_bytes_per_second(self) -> float:
        """Content that came per second."""
        return (self.totals.size_bytes - self.totals.held_bytes) / max(self.seconds, 1e-6)


class Observer(Protocol):
    """Hears how a reception goes, on the event loop."""

    def waiting(self, waiting: Waiting) -> None:
        """The session has not started."""

    def assigned(self, assignment: Assignment) -> None:
        """The image is known, and who sends it."""

    def progressed(self, totals: Totals) -> None:
        """About once a second while receiving."""

    def noticed(self, sentence: str) -> None:
        """Something that a person may want to know."""


async def receive_image(
    request: ReceiveRequest, observer: Observer, stop: asyncio.Event, *, verified: Callable[[int], None] | None = None
) -> ReceiveSummary:
    """Returns once the whole image is proven and on the medium, and the scheduler knows.

    Setting `stop` ends the reception early; the same call then continues it. `verified` is told, a few times a second,
    how many bytes from the beginning, without a gap, are proven and can be read from the output.

    Raises:
        FleetcastError: it could not be received; the sentence says why.
    """
    network = Network(request.multicast_interface, request.interfaces)
    network.look_towards(*split_address(request.server, field="server"))
    if request.no_multicast_reason:
        network.take_none(request.no_multicast_reason)
    target, journal = open_target(
        request.output, request.state_dir / "journals", keep_size=request.keep_size, medium=request.medium
    )
    try:
        async with open_channel(request.server, request.credentials) as channel:
            receiving = _Receiving(request, observer, network=network, target=target, journal=journal, channel=channel)
            return await receiving.run(stop, verified)
    finally:
        await asyncio.to_thread(target.close)


class _Receiving:
    """One part in a session: hears the scheduler, has the image received, and says how it ended.

    Three things may end it, whichever comes first: everything is held, the scheduler ends it, or `stop` is set. Only
    the first is success; the outcome is said before the streams are closed, since the scheduler would take a stream
    that breaks without one for a machine that was lost.
    """

    def __init__(
        self,
        request: ReceiveRequest,
        observer: Observer,
        *,
        network: Network,
        target: Target,
        journal: Journal,
        channel: grpc.aio.Channel,
    ) -> None:
        self._request = request
        self._observer = observer
        self._network = network
        self._target = target
        self._journal = journal
        self._participation = Participation(
            channel,
            self._join(),
            address=request.server,
            # A machine that was interrupted goes on when its server is back; a mistyped address should be said soon.
            patience_seconds=math.inf if journal.unfinished else request.timing.first_contact,
            notice=observer.noticed,
        )
        self._follower = AssignmentFollower(
            self._participation,
            rejoin=lambda: self._participation.rejoin(self._join()),
            server=request.server,
            credentials=request.credentials,
            channel=channel,
            network=network,
            memory=MemoryPlan.of(request.memory_bytes),
            target=target,
            journal=journal,
            timing=request.timing,
            notice=observer.noticed,
            examine=request.examine,
        )
        self._current: Assignment | None = None
        self._finished = False

    def _join(self) -> JoinRequest:
        return JoinRequest(
            session=f"sessions/{self._request.session}" if self._request.session else "",
            image=f"images/{self._request.image}" if self._request.image else "",
            display_name=self._request.display_name,
            no_multicast_reason=self._network.no_multicast_reason,
            target_size_bytes=self._target.size_bytes,
            held_image=self._journal.image,
            run=self._request.run,
            medium="" if self._request.as_is else self._target.medium,
            medium_sector_size_bytes=self._target.sector_size_bytes,
            hardware=self._request.hardware,
        )

    async def run(self, stop: asyncio.Event, verified: Callable[[int], None] | None) -> ReceiveSummary:
        if self._network.no_multicast_reason:
            self._observer.noticed(f"receiving by unicast: {self._network.no_multicast_reason}")
        succeeded = False
        try:
            others = [self._listen(), self._interrupted(stop)]
            if verified is not None:
                others.append(self._say_verified(verified))
            summary = await self._race(self._receive(), *others)
            succeeded = True
            return summary
        except (DismissedError, InterruptedReceptionError):
            raise
        except FleetcastError as error:
            if self._current is not None and not self._finished:
                await self._participation.finish(self._follower.totals(), error.message)
            raise
        finally:
            await self._participation.close()
            if self._follower.download is not None:
                await self._follower.download.close(keep=succeeded)

    async def _race(self, receive: Awaitable[ReceiveSummary], *others: Awaitable[None]) -> ReceiveSummary:
        """Returns what `receive` returns; whatever fails first ends all."""
        main = asyncio.ensure_future(receive)
        tasks = [main, *map(asyncio.ensure_future, others)]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    task.result()
            return main.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _interrupted(self, stop: asyncio.Event) -> None:
        await stop.wait()
        if self._follower.download is not None:
            self._follower.download.abandon()
        raise InterruptedReceptionError("stopped; the same command continues where this one ended")

    async def _listen(self) -> None:
        """Hear the scheduler until it ends our part; after our outcome that is a good end."""
        while True:
            match await self._participation.next():
                case Waiting() as waiting:
                    self._observer.waiting(waiting)
                case Assignment() as assignment:
                    self._take_assignment(assignment)
                case Dismissal(reason, detail):
                    if self._finished:
                        await asyncio.get_running_loop().create_future()  # the outcome is on its way to being returned
                    raise DismissedError(
                        f"the session ended this machine's part ({reason.value}): {detail or 'no reason was given'}"
                    )

    def _take_assignment(self, assignment: Assignment) -> None:
        wanted = self._request.image
        name, _, digest = assignment.image.removeprefix("images/").partition("@")
        if (
            not digest
            or (wanted and wanted.partition("@")[0] != name)
            or ("@" in wanted and wanted != f"{name}@{digest}")
        ):
            raise InternalError(
                f"the scheduler assigned {assignment.image}, and {wanted or 'a pinned image'} was asked for"
            )
        if self._current is not None and self._current.image != assignment.image:
            raise InternalError(f"the scheduler assigned {assignment.image} in the middle of {self._current.image}")
        self._current = assignment
        self._follower.assign(assignment)

    async def _receive(self) -> ReceiveSummary:
        with _tracer.start_as_current_span("join"):
            assignment = await self._follower.first_assignment()
        began_at, began_cpu = time.monotonic(), time.process_time()
        self._observer.assigned(assignment)
        command = trace.get_current_span().get_span_context()
        links = [trace.Link(command)] if command.is_valid else []
        attributes = {semconv.IMAGE: assignment.image, semconv.SESSION: assignment.session}
        context = telemetry.context_from(assignment.traceparent) if assignment.traceparent else None
        with _tracer.start_as_current_span("receive", context=context, links=links, attributes=attributes) as span:
            progress = asyncio.create_task(self._report_progress())
            try:
                download = await self._follower.receive(assignment)
                with _tracer.start_as_current_span("flush"):
                    await unless_failed(download, download.finish())
            finally:
                progress.cancel()
            seconds = time.monotonic() - began_at
            totals = replace(self._follower.totals(), elapsed_seconds=seconds)
            span.set_attribute(semconv.MULTICAST_BYTES, totals.multicast_bytes)
            span.set_attribute(semconv.UNICAST_BYTES, totals.unicast_bytes)
        self._finished = True
        if not await self._participation.finish(totals):
            self._observer.noticed("the image is complete, but the scheduler could not be told")
        self._observer.progressed(totals)
        return self._summary(assignment, totals, seconds, time.process_time() - began_cpu)

    async def _report_progress(self) -> None:
        while True:
            await asyncio.sleep(_PROGRESS_SECONDS)
            totals = self._follower.totals()
            self._participation.report(totals)
            self._observer.progressed(totals)

    async def _say_verified(self, verified: Callable[[int], None]) -> None:
        while True:
            await asyncio.sleep(_VERIFIED_SECONDS)
            if self._follower.download is not None:
                verified(self._follower.download.leading_bytes)

    def _summary(self, assignment: Assignment, totals: Totals, seconds: float, cpu_seconds: float) -> ReceiveSummary:
        return ReceiveSummary(
            image=assignment.image.removeprefix("images/"),
            session=assignment.session.removeprefix("sessions/"),
            output=str(self._request.output),
            totals=totals,
            seconds=seconds,
            cpu_seconds=cpu_seconds,
            peak_memory_bytes=peak_memory_bytes(),
        )
