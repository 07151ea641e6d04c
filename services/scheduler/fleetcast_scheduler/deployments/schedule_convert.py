"""Times and phases of deployments of the API as domain objects, and back; fields are checked here."""

from __future__ import annotations

from fleetcast.scheduler.v1 import deployment_pb2
from fleetcast_kit.errors import InvalidArgumentError
from fleetcast_kit.rpc.fields import duration, seconds_of, timestamp

from fleetcast_scheduler.calendar.local_time import ScheduleTime
from fleetcast_scheduler.deployments.domain.deployment import DEFAULT_MAX_RUN_SECONDS, DEFAULT_SUCCESS_PERCENT, Phase
from fleetcast_scheduler.machines.convert import local_time_of

MAX_RUN_SECONDS = 7 * 86400.0
MAX_PHASE_COUNT = 20
MAX_DELAY_SECONDS = 90 * 86400.0


def time_of(message: deployment_pb2.Deployment, field: str) -> ScheduleTime | None:
    """Returns a time of a deployment, or None if it is not given.

    Raises:
        InvalidArgumentError: it is no time on a clock.
    """
    if not message.HasField(field):  # type: ignore[arg-type]
        return None
    time: deployment_pb2.ScheduleTime = getattr(message, field)
    match time.WhichOneof("time"):
        case "utc":
            return ScheduleTime(utc=seconds_of(time.utc, f"deployment.{field}"))
        case "local":
            return ScheduleTime(local=local_time_of(time.local, f"deployment.{field}"))
        case _:
            return None


def time_message(time: ScheduleTime | None) -> deployment_pb2.ScheduleTime | None:
    """Returns a time as the API shows it."""
    if time is None:
        return None
    if time.local is not None:
        return deployment_pb2.ScheduleTime(local=time.local.isoformat())
    return deployment_pb2.ScheduleTime(utc=timestamp(time.utc))


def max_run_seconds_of(message: deployment_pb2.Deployment) -> float:
    """Returns how long a run may take.

    Raises:
        InvalidArgumentError: it is out of its range.
    """
    if not message.HasField("max_run_time"):
        return DEFAULT_MAX_RUN_SECONDS
    seconds = seconds_of(message.max_run_time, "deployment.max_run_time")
    if not 0 < seconds <= MAX_RUN_SECONDS:
        raise InvalidArgumentError(
            f"max_run_time is {seconds:g} s: it must be positive, and a week at most", field="deployment.max_run_time"
        )
    return seconds


def phases_of(message: deployment_pb2.Deployment) -> tuple[Phase, ...]:
    """Returns the phases of a deployment.

    Raises:
        InvalidArgumentError: a size, a percentage or a delay is out of its range.
    """
    field = "deployment.phases"
    if len(message.phases) > MAX_PHASE_COUNT:
        raise InvalidArgumentError(
            f"there are {len(message.phases)} phases: {MAX_PHASE_COUNT} are the most", field=field
        )
    phases = []
    for number, phase in enumerate(message.phases, 1):
        delay_seconds = seconds_of(phase.delay, field)
        size = phase.percent if phase.WhichOneof("size") == "percent" else phase.count
        if size < 1 or phase.percent > 100:
            raise InvalidArgumentError(
                f"phase {number} has the size {size}: write 1 to 100 per cent, or a number of machines", field=field
            )
        if not 0 <= phase.success_percent <= 100 or not 0 <= delay_seconds <= MAX_DELAY_SECONDS:
            raise InvalidArgumentError(
                f"phase {number} needs {phase.success_percent} % and waits {delay_seconds:g} s: write 0 to 100 % "
                "and 90 days at most",
                field=field,
            )
        phases.append(
            Phase(
                percent=phase.percent,
                count=phase.count,
                success_percent=phase.success_percent or DEFAULT_SUCCESS_PERCENT,
                manual=phase.manual,
                delay_seconds=delay_seconds,
            )
        )
    return tuple(phases)


def phase_message(phase: Phase) -> deployment_pb2.Phase:
    """Returns a phase as the API shows it."""
    message = deployment_pb2.Phase(
        success_percent=phase.success_percent,
        manual=phase.manual,
        delay=duration(phase.delay_seconds),
    )
    if phase.percent:
        message.percent = phase.percent
    else:
        message.count = phase.count
    return message
