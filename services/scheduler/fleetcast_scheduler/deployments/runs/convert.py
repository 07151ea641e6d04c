"""What machines say and hear about their runs as domain objects, and back; fields are checked here."""

from __future__ import annotations

from fleetcast.scheduler.v1 import deployment_pb2, run_service_pb2
from fleetcast_kit.errors import InvalidArgumentError
from fleetcast_kit.rpc.fields import enum_name, seconds_of

from fleetcast_scheduler.deployments.domain.events import RunClosed, RunControlled, StandbyTold
from fleetcast_scheduler.deployments.domain.run import (
    MAX_REMARKS,
    Remark,
    RunOutcome,
    RunProgress,
    StepOutcome,
    StepRun,
)
from fleetcast_scheduler.deployments.mailbox import RunNews
from fleetcast_scheduler.loop.mailbox import Outgoing

MAX_NAME_LENGTH = 255
MAX_ERROR_LENGTH = 4096
MAX_TAIL_LENGTH = 65536
MAX_STEP_COUNT = 10_000
MAX_REMARK_LENGTH = 1000


def progress_of(message: run_service_pb2.RunProgress) -> RunProgress:
    """Returns how far a run is.

    Raises:
        InvalidArgumentError: a number is impossible.
    """
    if not 0 <= message.step <= MAX_STEP_COUNT or not 0 <= message.step_count <= MAX_STEP_COUNT:
        raise InvalidArgumentError(
            f"step {message.step} of {message.step_count} is impossible: there are {MAX_STEP_COUNT} at most",
            field="progress.step",
        )
    return RunProgress(
        step=message.step,
        step_count=message.step_count,
        step_name=message.step_name[:MAX_NAME_LENGTH],
        step_fraction=min(max(message.step_fraction, 0.0), 1.0)
        if message.step_fraction == message.step_fraction
        else 0,
        session=message.session[:MAX_NAME_LENGTH],
        paused=message.paused,
    )


def step_of(message: deployment_pb2.StepRun) -> StepRun:
    """Returns a step that began or ended; its run is not known here.

    Raises:
        InvalidArgumentError: its outcome or one of its times is not valid.
    """
    return StepRun(
        run="",
        number=0,
        node=message.node[:MAX_NAME_LENGTH],
        step_name=message.step_name[:MAX_NAME_LENGTH],
        attempt=message.attempt,
        outcome=_outcome_of(message.outcome),
        message=message.message[:MAX_ERROR_LENGTH],
        remarks=tuple(text[:MAX_REMARK_LENGTH] for text in message.remarks[:MAX_REMARKS]),
        start_time=seconds_of(message.start_time, "step.start_time") if message.HasField("start_time") else None,
        end_time=seconds_of(message.end_time, "step.end_time") if message.HasField("end_time") else None,
    )


def outcome_of(message: run_service_pb2.RunOutcome) -> RunOutcome:
    """Returns how a run ended.

    Raises:
        InvalidArgumentError: it does not say.
    """
    outcome = _outcome_of(message.outcome)
    if outcome not in (StepOutcome.SUCCEEDED, StepOutcome.FAILED, StepOutcome.CANCELLED):
        raise InvalidArgumentError(
            f"the outcome of a run is {outcome}: it must be succeeded, failed or cancelled", field="outcome.outcome"
        )
    return RunOutcome(
        outcome=outcome,
        step_name=message.step_name[:MAX_NAME_LENGTH],
        error=message.error[:MAX_ERROR_LENGTH],
        output_tail=message.output_tail[-MAX_TAIL_LENGTH:],
        remarks=tuple(
            Remark(remark.step_name[:MAX_NAME_LENGTH], remark.text[:MAX_REMARK_LENGTH])
            for remark in message.remarks[:MAX_REMARKS]
        ),
    )


def response_message(outgoing: Outgoing[RunNews]) -> run_service_pb2.AttendResponse:
    """Returns what a machine hears."""
    response = run_service_pb2.AttendResponse(acknowledged_sequence=outgoing.acknowledged_sequence)
    match outgoing.message:
        case StandbyTold() as standby:
            response.standby.reason = standby.reason
            for offer in standby.offers:
                response.standby.offered_deployments.add(name=offer.deployment, description=offer.description)
        case run_service_pb2.RunOrder() as order:
            response.order.CopyFrom(order)
        case RunControlled() as control:
            response.control.run = control.run
            response.control.action = run_service_pb2.RunControl.Action.Value(f"ACTION_{control.action}")
            response.control.reason = control.reason
        case RunClosed() as closed:
            response.closed.run = closed.run
    return response


def _outcome_of(value: deployment_pb2.StepRun.Outcome.ValueType) -> StepOutcome:
    return StepOutcome(enum_name(deployment_pb2.StepRun.Outcome, value, "OUTCOME_", "outcome"))


def restart_environment_of(restarting: run_service_pb2.Restarting) -> str:
    """Returns what a machine means to start when it restarts.

    Raises:
        InvalidArgumentError: it is neither the boot environment nor the installed system.
    """
    if restarting.environment not in ("boot", "installed"):
        raise InvalidArgumentError(
            f"environment is {restarting.environment!r}: it is boot or installed", field="restarting.environment"
        )
    return restarting.environment
