"""RunService: a machine's side of deployments."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

from fleetcast.scheduler.v1 import run_service_pb2
from fleetcast.scheduler.v1.run_service_pb2_grpc import RunServiceServicer, add_RunServiceServicer_to_server
from fleetcast_kit.errors import FleetcastError, InvalidArgumentError, NotFoundError, ResourceExhaustedError
from fleetcast_kit.identity.peer import Role, current_identity
from fleetcast_kit.rpc.context import Context
from fleetcast_kit.rpc.server import Service

from fleetcast_scheduler.deployments.mailbox import RunMailbox
from fleetcast_scheduler.deployments.pump import RunPump
from fleetcast_scheduler.deployments.runs import convert
from fleetcast_scheduler.deployments.runs.logs import RunLogs
from fleetcast_scheduler.names import deployment_name, run_name

_UNREAD_SECONDS = 10.0
"""How long the rest of a log that is too long is read and dropped."""


class RunServicer(RunServiceServicer):
    """Passes a machine's messages to the rules, and sends what waits in its mailbox."""

    def __init__(self, pump: RunPump, logs: RunLogs, check_admission: Callable[[str], None]) -> None:
        self._pump = pump
        self._logs = logs
        self._check_admission = check_admission

    async def Attend(
        self, request_iterator: AsyncIterator[run_service_pb2.AttendRequest], context: Context
    ) -> AsyncIterator[run_service_pb2.AttendResponse]:
        """Serves one machine for as long as its stream lives."""
        first = await anext(request_iterator, None)
        if first is None or first.WhichOneof("message") != "arrival":
            raise InvalidArgumentError("the first message of the stream must be an arrival", field="arrival")
        machine = current_identity().name
        if self._pump.ledger.fleet.machine(machine) is None:
            raise NotFoundError(f"{machine} has not registered: register, then attend", reason="MACHINE_NOT_FOUND")
        self._check_admission(machine)
        run = run_name(first.arrival.run, "arrival.run") if first.arrival.run else ""
        mailbox = self._pump.attend(machine, run)
        mailbox.received_sequence = first.sequence
        reader = asyncio.create_task(self._read(request_iterator, mailbox))
        try:
            while (outgoing := await mailbox.next()) is not None:
                yield convert.response_message(outgoing)
        finally:
            self._pump.leave(mailbox)
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)

    async def UploadRunLog(
        self, request_iterator: AsyncIterator[run_service_pb2.UploadRunLogRequest], context: Context
    ) -> run_service_pb2.UploadRunLogResponse:
        """Keeps the log of a run of the caller."""
        first = await anext(request_iterator, None)
        name = run_name(first.run if first is not None else "", "run")

        async def pieces() -> AsyncIterator[bytes]:
            if first is not None:
                yield first.data
            async for request in request_iterator:
                yield request.data

        try:
            await self._logs.put(name, current_identity().name, pieces())
        except ResourceExhaustedError:
            # A caller that is answered while it still sends is told of an internal error, and not of this one.
            with suppress(TimeoutError):
                async with asyncio.timeout(_UNREAD_SECONDS):
                    async for _ in request_iterator:
                        pass
            raise
        return run_service_pb2.UploadRunLogResponse()

    async def _read(self, requests: AsyncIterator[run_service_pb2.AttendRequest], mailbox: RunMailbox) -> None:
        """Reads the machine's messages; ends the stream with an error if one is not valid."""
        try:
            async for request in requests:
                if not self._pump.attached(mailbox):
                    return
                mailbox.receive(request.sequence)
                self._take(request, mailbox.machine)
            if self._pump.attached(mailbox):
                mailbox.close()
        except FleetcastError as error:
            mailbox.close(error)

    def _take(self, request: run_service_pb2.AttendRequest, machine: str) -> None:
        presence, now = self._pump.presence, self._pump.clock()
        match request.WhichOneof("message"):
            case "progress":
                presence.progress(machine, convert.progress_of(request.progress), now)
                return  # stored with the next batch
            case "step":
                presence.step(machine, convert.step_of(request.step), now)
            case "outcome":
                name = run_name(request.outcome.run, "outcome.run")
                presence.finish(machine, name, convert.outcome_of(request.outcome), now)
            case "wanted_deployment":
                presence.want(machine, deployment_name(request.wanted_deployment, "wanted_deployment"), now)
            case "restarting":
                presence.restart(machine, convert.restart_environment_of(request.restarting), now)
            case other:
                raise InvalidArgumentError(
                    f"a message of the stream is {other or 'empty'}: an arrival comes first, and once", field="message"
                )
        self._pump.wake()


def run_service(pump: RunPump, logs: RunLogs, check_admission: Callable[[str], None]) -> Service:
    """Returns the service, ready to be served."""
    return Service(
        add=add_RunServiceServicer_to_server,
        servicer=RunServicer(pump, logs, check_admission),
        full_name="fleetcast.scheduler.v1.RunService",
        roles=dict.fromkeys(("Attend", "UploadRunLog"), frozenset({Role.MACHINE})),
    )
