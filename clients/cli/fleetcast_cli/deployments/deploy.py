"""`fleetcast deploy`: a task sequence or an image for the machines of a collection."""

from __future__ import annotations

import sys
import uuid
from datetime import UTC
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer
from fleetcast.catalog.v1.catalog_service_pb2_grpc import CatalogServiceStub
from fleetcast.catalog.v1.task_sequence_service_pb2_grpc import TaskSequenceServiceStub
from fleetcast.scheduler.v1.deployment_pb2 import Deployment, ScheduleTime
from fleetcast.scheduler.v1.deployment_service_pb2 import CreateDeploymentRequest, CreateDeploymentResponse
from fleetcast.scheduler.v1.deployment_service_pb2_grpc import DeploymentServiceStub
from fleetcast_kit.errors import FailedPreconditionError, InvalidArgumentError, from_rpc_error
from fleetcast_kit.values.durations import parse_duration
from fleetcast_kit.values.times import parse_time
from grpc.aio import AioRpcError

from fleetcast_cli.deployments.phases import PHASE_HELP, parse_phases
from fleetcast_cli.deployments.view import deployment_fields, plan_table
from fleetcast_cli.images.lookup import find_image
from fleetcast_cli.sessions.flags import SESSION_HELP, SessionFlags
from fleetcast_cli.shell.command import Json, command
from fleetcast_cli.shell.connection import UNARY_SECONDS, connection
from fleetcast_cli.shell.instants import Clock
from fleetcast_cli.shell.plain import to_plain, write_json
from fleetcast_cli.shell.references import identifier, image_reference, resource
from fleetcast_cli.shell.text import fields, output, plural, progress
from fleetcast_cli.task_sequences.lookup import find_task_sequence, sequence_reference
from fleetcast_cli.task_sequences.variables import Variable, parse_variables

if TYPE_CHECKING:
    import grpc
    from fleetcast.scheduler.v1.deployment_service_pb2_grpc import DeploymentServiceAsyncStub

group = typer.Typer()


class Purpose(StrEnum):
    """What is expected of the machines."""

    AVAILABLE = "available"
    REQUIRED = "required"


class Rerun(StrEnum):
    """Whether a machine that ran it runs it again."""

    NEVER = "never"
    ALWAYS = "always"
    IF_FAILED = "if-failed"
    IF_SUCCEEDED = "if-succeeded"


def _time(name: str, text: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(name, metavar="TIME", help=text, show_default=False)
    return option


@command(group, "deploy", span="fleetcast deploy", epilog=f"{PHASE_HELP}\n\n{SESSION_HELP}")
async def deploy(
    context: typer.Context,
    *,
    collection: Annotated[str, typer.Option("--collection", metavar="NAME", help="To which machines.")],
    image: Annotated[
        str, typer.Option("--image", metavar="NAME[@DIGEST]", help="An image, written as it is.", show_default=False)
    ] = "",
    task_sequence: Annotated[
        str, typer.Option("--task-sequence", metavar="NAME[@DIGEST]", help="Or a task sequence.", show_default=False)
    ] = "",
    purpose: Annotated[
        Purpose,
        typer.Option("--purpose", help="Machines run it when somebody asks for it, or all of them at the deadline."),
    ] = Purpose.AVAILABLE,
    available: Annotated[str | None, _time("--available", "Nothing begins before; without it, at once.")] = None,
    deadline: Annotated[
        str | None, _time("--deadline", "When required machines begin; without it, as soon as it is available.")
    ] = None,
    expires: Annotated[str | None, _time("--expires", "Nothing begins after.")] = None,
    machine_time: Annotated[
        bool, typer.Option("--machine-time", help="These times are on each machine's own clock.")
    ] = False,
    rerun: Annotated[
        Rerun, typer.Option("--rerun", help="Whether a machine that ran it runs it again when it registers anew.")
    ] = Rerun.IF_FAILED,
    max_run_time: Annotated[
        str | None,
        typer.Option(
            "--max-run-time",
            metavar="DURATION",
            help="A run that takes longer is cancelled; it must also fit a maintenance window. 2h without.",
            show_default=False,
        ),
    ] = None,
    phase: Annotated[
        list[str] | None,
        typer.Option(
            "--phase",
            metavar="PHASE",
            help="Machines begin phase after phase; see below. Can be repeated.",
            show_default=False,
        ),
    ] = None,
    variable: Variable = None,
    wake: Annotated[
        bool, typer.Option("--wake", help="Wake machines by Wake-on-LAN that are off at the deadline.")
    ] = False,
    ignore_maintenance_windows: Annotated[
        bool, typer.Option("--ignore-maintenance-windows", help="Begin at the deadline, window or not.")
    ] = False,
    description: Annotated[str, typer.Option("--description", metavar="TEXT", help="What it is, for people.")] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would happen to which machine, and make nothing.")
    ] = False,
    confirm: Annotated[
        int,
        typer.Option(
            "--confirm",
            metavar="N",
            min=0,
            help="The number of machines that you mean; large deployments ask for it.",
            show_default=False,
        ),
    ] = 0,
    unpartitioned: Annotated[
        bool,
        typer.Option("--unpartitioned", help="Write an image to whole disks although it has no partition table."),
    ] = False,
    flags: SessionFlags,
    as_json: Json = False,
) -> None:
    """Deploy an image or a task sequence to the machines of a collection. Look first with --dry-run.

    The version is pinned now. The flags of sessions say how those are opened that carry the images.
    """
    if bool(image) == bool(task_sequence):
        raise InvalidArgumentError(
            "give either --image or --task-sequence" + (", not both" if image else ""), field="image"
        )
    clock = Clock()
    reference = image_reference(image) if image else sequence_reference(task_sequence)
    request = CreateDeploymentRequest(
        deployment=Deployment(
            collection=resource("collections", collection),
            purpose=Deployment.Purpose.Value(f"PURPOSE_{purpose.name}"),
            rerun=Deployment.Rerun.Value(f"RERUN_{rerun.name}"),
            phases=parse_phases(phase),
            variables=parse_variables(variable),
            wake=wake,
            ignore_maintenance_windows=ignore_maintenance_windows,
            description=description,
        ),
        confirmed_machine_count=confirm,
        validate_only=dry_run,
        unpartitioned=unpartitioned,
        request_id=str(uuid.uuid4()),
    )
    wanted = request.deployment
    for name, text, field in (
        ("--available", available, wanted.available_time),
        ("--deadline", deadline, wanted.deadline_time),
        ("--expires", expires, wanted.expiry_time),
    ):
        if text is not None:
            field.CopyFrom(_schedule_time(name, text, clock, machine_time=machine_time))
    if machine_time and not (available or deadline or expires):
        raise InvalidArgumentError(
            "--machine-time says how to read times, and there is none: give --deadline or another"
        )
    if max_run_time is not None:
        wanted.max_run_time.FromTimedelta(parse_duration(max_run_time, field="max_run_time"))
    if flags.apply(wanted.session, clock) == []:
        wanted.ClearField("session")
    opened = connection(context)
    async with opened.dial_catalog() as channel:
        await _name_content(channel, wanted, reference)
    async with opened.dial() as channel:
        answer = await _create(DeploymentServiceStub(channel), request, may_ask=not as_json)
    if as_json:
        write_json(to_plain(answer))
        return
    _print(answer, dry_run=dry_run)


async def _name_content(channel: grpc.aio.Channel, wanted: Deployment, reference: str) -> None:
    if reference.startswith("images/"):
        wanted.image = await find_image(CatalogServiceStub(channel), reference)
    else:
        wanted.task_sequence = await find_task_sequence(TaskSequenceServiceStub(channel), reference)


async def _create(
    deployments: DeploymentServiceAsyncStub, request: CreateDeploymentRequest, *, may_ask: bool
) -> CreateDeploymentResponse:
    """Returns what was made, after asking at the terminal for the number of machines if the server wants it.

    Raises:
        FailedPreconditionError: the number is wanted, and nobody can be asked or typed another.
    """
    try:
        return await deployments.CreateDeployment(request, timeout=UNARY_SECONDS)
    except AioRpcError as error:
        refusal = from_rpc_error(error)
        if refusal.reason != "CONFIRMATION_REQUIRED":
            raise
        count = refusal.metadata.get("machine_count", "")
        target = f"{plural(int(count or 0), 'machine')} of {identifier(request.deployment.collection)}"
        if request.confirmed_machine_count or not (may_ask and sys.stdin.isatty() and sys.stderr.isatty()):
            meant = f", not {request.confirmed_machine_count}" if request.confirmed_machine_count else ""
            raise FailedPreconditionError(
                f"this targets {target}{meant}, nothing was made: see which with --dry-run, then add --confirm {count}",
                reason=refusal.reason,
                metadata=refusal.metadata,
            ) from error
        progress().print(f"This targets {target}. Type their number to go on: ", end="")
        if sys.stdin.readline().strip() != count:
            raise FailedPreconditionError(
                f"that is not {count}: nothing was made", reason=refusal.reason, metadata=refusal.metadata
            ) from error
        request.confirmed_machine_count = int(count)
        return await deployments.CreateDeployment(request, timeout=UNARY_SECONDS)


def _schedule_time(flag: str, text: str, clock: Clock, *, machine_time: bool) -> ScheduleTime:
    if machine_time:
        wall = parse_time(text, now=clock.now, zone=clock.zone, field=flag, machine_clock=True)
        return ScheduleTime(local=wall.isoformat(timespec="minutes"))
    time = ScheduleTime()
    time.utc.FromDatetime(clock.future(flag, text).astimezone(UTC))
    return time


def _print(answer: CreateDeploymentResponse, *, dry_run: bool) -> None:
    count = sum(planned.targeted for planned in answer.planned_runs)
    left_out = len(answer.planned_runs) - count
    console = output()
    console.print(fields(deployment_fields(answer.deployment)))
    console.print()
    if answer.planned_runs:
        console.print(plan_table(answer.planned_runs))
        console.print()
    for warning in answer.warnings:
        console.print(f"warning: {warning}", soft_wrap=True, style="yellow")
    left = f", {left_out} left out" if left_out else ""
    if dry_run:
        console.print(f"{plural(count, 'machine')} would be targeted{left}; nothing was made")
    else:
        name = identifier(answer.deployment.name)
        console.print(f"made deployment {name}: {plural(count, 'machine')} targeted{left}", soft_wrap=True)
