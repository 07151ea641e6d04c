"""One run on this machine: executed, its progress reported, and its outcome told until the scheduler knows it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import grpc
from fleetcast.scheduler.v1 import run_service_pb2
from fleetcast.scheduler.v1.run_service_pb2_grpc import RunServiceStub
from fleetcast_kit.errors import FailedPreconditionError, FleetcastError, from_rpc_error
from fleetcast_kit.identity.credentials import Credentials
from fleetcast_kit.process import telemetry
from fleetcast_kit.rpc.channel import open_channel
from fleetcast_sequence import Redactor, TaskSequence, Variables
from opentelemetry import context as tracing

from fleetcast_agent.deployments import convert
from fleetcast_agent.deployments.hardware import Hardware
from fleetcast_agent.deployments.kept_runs import KeptRun
from fleetcast_agent.deployments.orders import Environment, RunEnd, RunProgress
from fleetcast_agent.deployments.own_hardware import OwnHardware
from fleetcast_agent.deployments.reporting import ProgressView, StepHistory
from fleetcast_agent.deployments.restarting import Starter
from fleetcast_agent.deployments.scheduler_stream import SchedulerStream
from fleetcast_agent.receiving.receive import ReceiveRequest
from fleetcast_agent.retrying import TRANSIENT_CODES, backoff_seconds
from fleetcast_agent.sequence.content.server_content import ServerContent
from fleetcast_agent.sequence.control import Control
from fleetcast_agent.sequence.engine.records import Outcome, Record, Remark
from fleetcast_agent.sequence.engine.run_journal import RunJournal
from fleetcast_agent.sequence.execution import execute

_logger = logging.getLogger(__name__)

HELD_SECONDS = 5.0
_REPORT_SECONDS = 1.0
_UPLOAD_SECONDS = 300.0
_PIECE_BYTES = 256 << 10
_MAX_LOG_BYTES = 64 << 20


@dataclass(frozen=True)
class LocalMachine:
    """This machine, and what the agent knows of it before any run."""

    server: str
    """HOST:PORT of the scheduler."""
    state_dir: Path
    hardware: Hardware
    starter: Starter
    display_name: str = ""
    multicast_interface: str = ""
    memory_bytes: int = 0
    held_seconds: float = HELD_SECONDS
    """While an operator has not approved the machine, it asks again after this."""

    @property
    def own_hardware(self) -> OwnHardware:
        """Which hardware the state directory belongs to."""
        return OwnHardware(self.state_dir, rehearsed=self.hardware.stated)


class Execution:
    """One run. `task` ends when the run has ended, or when a restart must come first; then `kept.end` stays None."""

    def __init__(
        self,
        kept: KeptRun,
        local: LocalMachine,
        stream: SchedulerStream,
        *,
        noticed: Callable[[str], None],
        progressed: Callable[[RunProgress], None],
    ) -> None:
        self.kept = kept
        self.control = Control()
        self._local = local
        self._stream = stream
        self._progressed = progressed
        self._view = ProgressView(self._report, noticed)
        self._noticed = noticed
        self.control.watch(self._view.pause)
        self.task: asyncio.Task[Environment | None] = asyncio.create_task(self._run(), name="run")

    async def stop(self) -> None:
        """Stops as a power cut would; the run goes on when it is executed again."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def _run(self) -> Environment | None:
        """Returns what to restart to before the run goes on, or None when it has ended and that is told."""
        if self.kept.end is None:
            reports = asyncio.create_task(self._report_regularly())
            try:
                restart = await self._execute()
            finally:
                reports.cancel()
            if restart is not None:
                return restart
        else:
            with contextlib.suppress(FleetcastError):  # what is wrong with it is how the run ended
                self._step_teller(self.kept.order.sequence())
        await self._tell_end()
        return None

    async def _execute(self) -> Environment | None:
        order = self.kept.order
        if order.traceparent:
            tracing.attach(telemetry.context_from(order.traceparent))
        try:
            self._refuse_unsafe()
            sequence = order.sequence()
            outcome = await execute(
                sequence,
                self.kept.directory,
                values=order.values,
                machine=order.display_name,
                deployment=order.as_deployment,
                content=self._content(),
                disks=self._local.hardware.disks,
                control=self.control,
                environment=self._local.starter.environment,
                report=self._view.report,
                noted=self._step_teller(sequence),
                boot_id=self._local.starter.boot_id,
                gather=self._local.hardware.gather,
                identity=self._local.state_dir,
            )
        except (FleetcastError, OSError) as error:
            end = RunEnd(outcome=Outcome.FAILED, error=str(error))
        except Exception as error:
            _logger.exception("the run failed in a way nobody expected")
            end = RunEnd(outcome=Outcome.FAILED, error=f"a defect of the agent: {type(error).__name__}: {error}")
        else:
            if outcome.outcome is None and not outcome.final:
                return outcome.restart
            end = RunEnd(
                outcome=outcome.outcome or Outcome.SUCCEEDED,
                step=outcome.step if outcome.outcome is Outcome.FAILED else "",
                error=outcome.message,
                output_tail=outcome.output_tail,
                restart=outcome.restart,
                boot_id=self._local.starter.boot_id,
                remarks=outcome.remarks,
            )
        await asyncio.to_thread(self.kept.conclude, end)
        return None

    def _refuse_unsafe(self) -> None:
        """Does nothing if the order can be meant for this machine as it is now.

        Raises:
            FailedPreconditionError: the only disk that is not in use is not the one that an image of a disk is for.
        """
        installed = self._local.starter.environment == "installed"
        if self.kept.order.image and installed and not self._local.hardware.disks.named:
            raise FailedPreconditionError(
                "the machine has started its installed system, so the image would go onto some other disk: start the "
                "boot environment, or name the disk with --disk"
            )

    def _content(self) -> ServerContent:
        order, local = self.kept.order, self._local
        request = ReceiveRequest(
            server=local.server,
            credentials=Credentials.load(local.state_dir),
            output=Path(),
            run=order.run,
            display_name=local.display_name or order.display_name,
            state_dir=local.state_dir,
            multicast_interface=local.multicast_interface,
            memory_bytes=local.memory_bytes,
        )
        return ServerContent(
            request,
            order.image_descriptions(),
            control=self.control,
            observer=self._view,
            upload_grant=order.upload_grant,
            catalog_address=order.catalog_address,
        )

    def _step_teller(self, sequence: TaskSequence) -> Callable[[Record], None]:
        """Returns what tells the scheduler of each step; tells it of those of earlier lives of the agent."""
        order = self.kept.order
        context = {"deployment": order.as_deployment, "machine": {}, "environment": "", "last": {}}
        variables = Variables(sequence.variables, order.values, context=context)
        history = StepHistory(sequence, Redactor(variables.secrets()))

        def tell(record: Record) -> None:
            step = history.take(record)
            if step is not None:
                self._stream.tell(partial(convert.step_message, step))

        journal = RunJournal(self.kept.directory / "journal")
        journal.close()
        known = [step for step in map(history.take, journal.records) if step is not None]
        for step in {(step.node, step.attempt): step for step in known}.values():
            self._stream.tell(partial(convert.step_message, step))
        return tell

    def _report(self) -> None:
        self._stream.report(self._view.present)
        self._progressed(self._view.present)

    async def _report_regularly(self) -> None:
        while True:
            await asyncio.sleep(_REPORT_SECONDS)
            if self._view.present.step_count:
                self._report()

    async def _tell_end(self) -> None:
        problem = await self._upload_log() if self.kept.log.exists() else ""
        end = self.kept.end
        if end is not None and problem:
            end = end.model_copy(update={"remarks": (*end.remarks, Remark(step="", text=problem))})
            await asyncio.to_thread(self.kept.conclude, end)
        if end is not None:
            self._stream.tell(partial(convert.outcome_message, self.kept.order.run, end))

    async def _upload_log(self) -> str:
        """Uploads the log; while the server is away the outcome could not be told either, so this waits for it.

        Returns why the server did not take it, in one sentence; empty if it did.
        """
        attempt = 0
        while True:
            try:
                async with open_channel(self._local.server, Credentials.load(self._local.state_dir)) as channel:
                    await RunServiceStub(channel).UploadRunLog(
                        _pieces(self.kept.order.run, self.kept.log), timeout=_UPLOAD_SECONDS
                    )
                return ""
            except grpc.aio.AioRpcError as error:
                if error.code() not in TRANSIENT_CODES:
                    return f"the log was not taken: {from_rpc_error(error, address=self._local.server).message}"
            except (FleetcastError, OSError) as error:
                return f"the log cannot be uploaded: {error}"
            await asyncio.sleep(backoff_seconds(attempt))
            attempt += 1


async def _pieces(run: str, log: Path) -> AsyncIterator[Any]:
    """Yields the log, of one that is too long the end."""
    file = await asyncio.to_thread(log.open, "rb")
    with file:
        excess = (await asyncio.to_thread(os.fstat, file.fileno())).st_size - _MAX_LOG_BYTES
        notice = b""
        if excess > 0:
            notice = f"(the first part of this log, more than {excess} bytes, is left out)\n".encode()
            file.seek(excess + len(notice))
        yield run_service_pb2.UploadRunLogRequest(run=run, data=notice)
        while data := await asyncio.to_thread(file.read, _PIECE_BYTES):
            yield run_service_pb2.UploadRunLogRequest(data=data)
