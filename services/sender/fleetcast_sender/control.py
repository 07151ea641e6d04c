"""The sender's stream to the scheduler: it registers, carries out commands, and reports."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import suppress

import grpc
from fleetcast.scheduler.v1 import sender_registry_service_pb2, session_pb2
from fleetcast.scheduler.v1.sender_registry_service_pb2_grpc import SenderRegistryServiceStub
from fleetcast_kit.errors import FleetcastError, ResourceExhaustedError, from_rpc_error
from fleetcast_kit.network import wake_on_lan
from fleetcast_kit.values.jitter import jittered

from fleetcast_sender import convert
from fleetcast_sender.sending.transmission import Transmission
from fleetcast_sender.servicer import Transmissions

_logger = logging.getLogger(__name__)

_REPORT_SECONDS = 1.0
_LOOK_SECONDS = 0.1
_FIRST_WAIT_SECONDS, _MAX_WAIT_SECONDS = 0.25, 10.0
_WELL_SECONDS = 30.0

_Outgoing = asyncio.Queue[sender_registry_service_pb2.ServeSenderRequest | None]
"""What is said on one stream; None ends it."""
"""A stream that lasted so long was well: the next wait is short again."""

Start = Callable[[sender_registry_service_pb2.StartTransmission], Coroutine[None, None, Transmission]]
"""Makes a transmission ready to be joined."""


class Control:
    """Keeps one stream to the scheduler, for as long as it runs; transmissions go on while it is broken.

    Args:
        channel: to the scheduler.
        registration: what this sender offers; `transmissions` is filled in here.
        transmissions: those that run.
        start: makes a transmission.
        release: called with each that was stopped.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        registration: sender_registry_service_pb2.SenderRegistration,
        transmissions: Transmissions,
        *,
        start: Start,
        release: Callable[[Transmission], None],
    ) -> None:
        self.use(channel)
        self._registration = registration
        self._wake_addresses = wake_on_lan.broadcast_addresses(registration.subnets) or [wake_on_lan.EVERYWHERE]
        self._transmissions = transmissions
        self._start = start
        self._release = release
        self._starting: dict[str, asyncio.Task[Transmission]] = {}
        self._outgoing = _Outgoing()
        self._answers: set[asyncio.Task[None]] = set()
        self._said: dict[str, tuple[int, str]] = {}
        self.registered = asyncio.Event()
        """Set when the scheduler has answered the first registration."""
        self.catalog_named: Callable[[str], None] = lambda _: None
        """Called at each registration with the HOST:PORT of the catalog; empty means where the scheduler is."""

    def use(self, channel: grpc.aio.Channel) -> None:
        """Opens the next stream on this channel to the scheduler."""
        self._stub = SenderRegistryServiceStub(channel)

    async def run(self) -> None:
        """Register, serve, and start again whenever the stream breaks, until cancelled."""
        loop, wait = asyncio.get_running_loop(), _FIRST_WAIT_SECONDS
        try:
            while True:
                began = loop.time()
                try:
                    await self._serve()
                    _logger.info("the scheduler ended the stream; registering again")
                except grpc.aio.AioRpcError as error:
                    _logger.warning("no stream to the scheduler: %s", from_rpc_error(error))
                if loop.time() - began > _WELL_SECONDS:
                    wait = _FIRST_WAIT_SECONDS
                # Full jitter, so that many senders do not come back at once.
                await asyncio.sleep(jittered(wait))
                wait = min(wait * 2, _MAX_WAIT_SECONDS)
        finally:
            for task in (*self._starting.values(), *self._answers):
                task.cancel()

    async def _serve(self) -> None:
        outgoing = self._outgoing = _Outgoing()
        self._said.clear()
        registration = sender_registry_service_pb2.SenderRegistration()
        registration.CopyFrom(self._registration)
        registration.transmissions.extend({*self._transmissions.running, *self._starting})
        self._outgoing.put_nowait(sender_registry_service_pb2.ServeSenderRequest(registration=registration))
        reporter = asyncio.create_task(self._report())
        call = self._stub.ServeSender(self._requests(outgoing))
        try:
            async for command in call:
                self._carry_out(command)
        finally:
            reporter.cancel()
            call.cancel()
            outgoing.put_nowait(None)  # gRPC leaves the requests of a broken stream waiting
            with suppress(asyncio.CancelledError):
                await reporter

    async def _requests(self, outgoing: _Outgoing) -> AsyncIterator[sender_registry_service_pb2.ServeSenderRequest]:
        while (request := await outgoing.get()) is not None:
            yield request

    def _carry_out(self, command: sender_registry_service_pb2.ServeSenderResponse) -> None:
        """Begin what the scheduler says; commands begin in order, and their answers come when they are done."""
        match command.WhichOneof("message"):
            case "registered":
                _logger.info("registered as %s", command.registered.name)
                self.catalog_named(command.registered.catalog_address)
                self.registered.set()
                return
            case "start":
                work = self._begin(command.start)
            case "stop":
                work = self._stop(command.stop.transmission)
            case "admit":
                work = self._admit(command.admit)
            case "dismiss":
                work = self._dismiss(command.dismiss)
            case "move_to_unicast":
                work = self._move_to_unicast(command.move_to_unicast)
            case "set_rate":
                work = self._set_rate(command.set_rate)
            case "wake":
                work = wake_on_lan.wake(list(command.wake.mac_addresses), self._wake_addresses)
            case _:
                work = _refuse()
        task = asyncio.create_task(self._answer(command.command_id, work))
        self._answers.add(task)
        task.add_done_callback(self._answers.discard)

    async def _answer(self, command_id: int, work: Awaitable[None]) -> None:
        outgoing, error = self._outgoing, ""
        try:
            await work
        except FleetcastError as failure:
            error = failure.message
            _logger.warning("a command of the scheduler failed: %s", error)
        except Exception:  # the task's outermost frame
            error = "the sender failed; its log says why"
            _logger.exception("a command of the scheduler failed")
        outgoing.put_nowait(
            sender_registry_service_pb2.ServeSenderRequest(
                result=sender_registry_service_pb2.CommandResult(command_id=command_id, error=error)
            )
        )

    async def _begin(self, command: sender_registry_service_pb2.StartTransmission) -> None:
        name = command.transmission
        if name in self._transmissions.running:
            self._transmissions.running[name].admit(list(command.machines))
            return
        if name not in self._starting:
            if len(self._starting) + len(self._transmissions.running) >= self._registration.max_concurrent > 0:
                raise ResourceExhaustedError(
                    f"this sender runs {self._registration.max_concurrent} transmissions already, the most it may"
                )
            self._starting[name] = asyncio.create_task(self._start(command))
        task = self._starting[name]
        try:
            transmission = await asyncio.shield(task)
        except asyncio.CancelledError:
            raise ResourceExhaustedError(f"{name} was stopped while it was being started") from None
        finally:
            if self._starting.get(name) is task:
                del self._starting[name]
        if name not in self._transmissions.running:
            self._transmissions.add(transmission)

    async def _found(self, name: str) -> Transmission:
        """Returns a transmission that runs, once it is started.

        Raises:
            FleetcastError: it does not run here.
        """
        if task := self._starting.get(name):
            await asyncio.wait((task,))
            await asyncio.sleep(0)
        return await self._transmissions.find(name)

    async def _admit(self, command: sender_registry_service_pb2.AdmitParticipants) -> None:
        (await self._found(command.transmission)).admit(list(command.machines))

    async def _dismiss(self, command: sender_registry_service_pb2.DismissParticipants) -> None:
        transmission = await self._found(command.transmission)
        transmission.dismiss(list(command.machines), "this machine was taken out of the session")

    async def _move_to_unicast(self, command: sender_registry_service_pb2.MoveToUnicast) -> None:
        (await self._found(command.transmission)).move_to_unicast(list(command.machines))

    async def _set_rate(self, command: sender_registry_service_pb2.SetTransmissionRate) -> None:
        rate = convert.rate_policy_of(command.rate)
        (await self._found(command.transmission)).set_rate(rate)

    async def _stop(self, name: str) -> None:
        if task := self._starting.pop(name, None):
            task.cancel()
        if transmission := self._transmissions.remove(name):
            await transmission.stop("the session has ended")
            self._release(transmission)
            self._put_report(transmission, sender_registry_service_pb2.TransmissionReport.STATE_STOPPED)

    # Reports

    async def _report(self) -> None:
        """Report every transmission once a second, and at once when its state changes."""
        due = 0.0
        loop = asyncio.get_running_loop()
        while True:
            everything = loop.time() >= due
            if everything:
                due = loop.time() + _REPORT_SECONDS
            for transmission in self._transmissions.running.values():
                state = _state_of(transmission)
                changed = self._said.get(transmission.name) != (state, str(transmission.error or ""))
                if everything or changed:
                    self._put_report(transmission, state)
            await asyncio.sleep(_LOOK_SECONDS)

    def _put_report(
        self, transmission: Transmission, state: sender_registry_service_pb2.TransmissionReport.State.ValueType
    ) -> None:
        snapshot = transmission.snapshot
        error = str(transmission.error or "")
        self._said[transmission.name] = (state, error)
        totals = session_pb2.Transmission(
            name=transmission.name,
            group=str(transmission.group),
            port=transmission.port,
            sent_source_bytes=snapshot.source_bytes,
            sent_repair_bytes=snapshot.repair_bytes,
            sent_unicast_bytes=transmission.unicast_bytes,
            rate_bits_per_second=snapshot.rate_bits_per_second,
            sent_chunk_count=snapshot.chunk_count,
            receiver_count=snapshot.member_count,
            **{"pass": snapshot.pass_number},
        )
        report = sender_registry_service_pb2.TransmissionReport(
            transmission=totals, state=state, error=error, unicast=convert.unicast_messages(snapshot.unicast_machines)
        )
        self._outgoing.put_nowait(sender_registry_service_pb2.ServeSenderRequest(report=report))


def _state_of(transmission: Transmission) -> sender_registry_service_pb2.TransmissionReport.State.ValueType:
    if transmission.error:
        return sender_registry_service_pb2.TransmissionReport.STATE_FAILED
    return (
        sender_registry_service_pb2.TransmissionReport.STATE_SENDING
        if transmission.snapshot.sending
        else sender_registry_service_pb2.TransmissionReport.STATE_IDLE
    )


async def _refuse() -> None:
    raise FleetcastError("this sender does not know that command: it is older than the scheduler", reason="UNKNOWN")
