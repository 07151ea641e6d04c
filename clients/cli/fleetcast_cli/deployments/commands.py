"""`fleetcast deployment`: list, show, pause, resume, cancel, advance, retry, skip, log."""

from __future__ import annotations

import sys
import uuid
from typing import TYPE_CHECKING, Annotated

import typer
from fleetcast.scheduler.v1 import deployment_service_pb2
from fleetcast.scheduler.v1.deployment_pb2 import Deployment, Run
from fleetcast.scheduler.v1.deployment_service_pb2_grpc import DeploymentServiceStub
from fleetcast.scheduler.v1.machine_service_pb2_grpc import MachineServiceStub
from fleetcast_kit.errors import InvalidArgumentError, NotFoundError

from fleetcast_cli.deployments.view import (
    by_attention,
    content,
    deployment_fields,
    run_label,
    run_table,
    state_line,
    step_table,
    summary_line,
)
from fleetcast_cli.machines.commands import MachineName, MachineNames
from fleetcast_cli.machines.lookup import find_machine, find_machines
from fleetcast_cli.shell.command import Json, command
from fleetcast_cli.shell.connection import UNARY_SECONDS, connection, every_page
from fleetcast_cli.shell.plain import to_plain, write_json
from fleetcast_cli.shell.references import identifier, resource
from fleetcast_cli.shell.text import fields, output, table

if TYPE_CHECKING:
    import grpc

group = typer.Typer(no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="DEPLOYMENT", help="The deployment's name.", show_default=False)]


@command(group, "list", span="fleetcast deployment list")
async def list_deployments(context: typer.Context, as_json: Json = False) -> None:
    """List deployments, newest first."""
    deployments: list[Deployment] = []
    async with connection(context).dial() as channel:
        request = deployment_service_pb2.ListDeploymentsRequest()
        async for answer in every_page(DeploymentServiceStub(channel).ListDeployments, request):
            deployments += answer.deployments
    if as_json:
        write_json({"deployments": [to_plain(deployment) for deployment in deployments]})
        return
    if not deployments:
        output().print("no deployments; make one with: fleetcast deploy --collection C --image I")
        return
    rows = table("deployment", "deploys", "to", "state", "machines")
    for deployment in deployments:
        rows.add_row(
            identifier(deployment.name),
            content(deployment.image or deployment.task_sequence),
            identifier(deployment.collection),
            state_line(deployment),
            summary_line(deployment),
        )
    output().print(rows)


@command(group, "show", span="fleetcast deployment show")
async def show(
    context: typer.Context,
    *,
    deployment: Name,
    machine: Annotated[
        str | None, typer.Argument(metavar="[MACHINE]", help="Only its runs, with every step.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Show a deployment and where each machine is, or one machine's runs of it with every step."""
    name = resource("deployments", deployment)
    async with connection(context).dial() as channel:
        deployments = DeploymentServiceStub(channel)
        if machine is None:
            get = deployment_service_pb2.GetDeploymentRequest(name=name)
            found = (await deployments.GetDeployment(get, timeout=UNARY_SECONDS)).deployment
            runs = await list_runs(channel, name)
            details = []
        else:
            runs = await _runs_of_machine(channel, name, machine)
            gets = [deployment_service_pb2.GetRunRequest(name=run.name) for run in runs]
            details = [await deployments.GetRun(get, timeout=UNARY_SECONDS) for get in gets]
    if machine is not None:
        print_runs(details, as_json=as_json)
        return
    if as_json:
        write_json(to_plain(found) | {"runs": [to_plain(run) for run in runs]})
        return
    output().print(fields(deployment_fields(found)))
    if runs:
        output().print()
        output().print(run_table(sorted(runs, key=by_attention)))


@command(group, "pause", span="fleetcast deployment pause")
async def pause(context: typer.Context, deployment: Name, as_json: Json = False) -> None:
    """Hold what runs between steps. Nothing begins until `resume`."""
    request = deployment_service_pb2.PauseDeploymentRequest(
        name=resource("deployments", deployment), request_id=str(uuid.uuid4())
    )
    async with connection(context).dial() as channel:
        answer = await DeploymentServiceStub(channel).PauseDeployment(request, timeout=UNARY_SECONDS)
    _print_change(answer.deployment, as_json=as_json)


@command(group, "resume", span="fleetcast deployment resume")
async def resume(context: typer.Context, deployment: Name, as_json: Json = False) -> None:
    """Go on after a pause."""
    request = deployment_service_pb2.ResumeDeploymentRequest(
        name=resource("deployments", deployment), request_id=str(uuid.uuid4())
    )
    async with connection(context).dial() as channel:
        answer = await DeploymentServiceStub(channel).ResumeDeployment(request, timeout=UNARY_SECONDS)
    _print_change(answer.deployment, as_json=as_json)


@command(group, "cancel", span="fleetcast deployment cancel")
async def cancel(context: typer.Context, deployment: Name, as_json: Json = False) -> None:
    """End a deployment. What runs is cancelled."""
    request = deployment_service_pb2.CancelDeploymentRequest(
        name=resource("deployments", deployment), request_id=str(uuid.uuid4())
    )
    async with connection(context).dial() as channel:
        answer = await DeploymentServiceStub(channel).CancelDeployment(request, timeout=UNARY_SECONDS)
    _print_change(answer.deployment, as_json=as_json)


@command(group, "advance", span="fleetcast deployment advance")
async def advance(context: typer.Context, deployment: Name, as_json: Json = False) -> None:
    """Begin the next phase now."""
    request = deployment_service_pb2.AdvanceDeploymentRequest(
        name=resource("deployments", deployment), request_id=str(uuid.uuid4())
    )
    async with connection(context).dial() as channel:
        answer = await DeploymentServiceStub(channel).AdvanceDeployment(request, timeout=UNARY_SECONDS)
    _print_change(answer.deployment, as_json=as_json)


@command(group, "retry", span="fleetcast deployment retry")
async def retry(
    context: typer.Context,
    *,
    deployment: Name,
    machine: Annotated[
        list[str] | None,
        typer.Argument(metavar="[MACHINE...]", help="Names, ids or MAC addresses.", show_default=False),
    ] = None,
    failed: Annotated[bool, typer.Option("--failed", help="All machines whose last run failed.")] = False,
    as_json: Json = False,
) -> None:
    """Have machines run it again: those that are named, or all that failed."""
    if bool(machine) == failed:
        raise InvalidArgumentError(
            "give either machines or --failed" + (", not both" if failed else ""), field="machine"
        )
    async with connection(context).dial() as channel:
        found = await find_machines(MachineServiceStub(channel), machine) if machine else []
        request = deployment_service_pb2.RetryRunsRequest(
            name=resource("deployments", deployment),
            machines=[one.name for one in found],
            request_id=str(uuid.uuid4()),
        )
        answer = await DeploymentServiceStub(channel).RetryRuns(request, timeout=UNARY_SECONDS)
    if not answer.runs and not as_json:
        output().print("no machine's last run failed")
        return
    _print_labels(list(answer.runs), as_json=as_json)


@command(group, "skip", span="fleetcast deployment skip")
async def skip(context: typer.Context, deployment: Name, machine: MachineNames, as_json: Json = False) -> None:
    """Except machines: what runs on them is cancelled, and they run it no more."""
    async with connection(context).dial() as channel:
        found = await find_machines(MachineServiceStub(channel), machine)
        request = deployment_service_pb2.SkipRunsRequest(
            name=resource("deployments", deployment),
            machines=[one.name for one in found],
            request_id=str(uuid.uuid4()),
        )
        answer = await DeploymentServiceStub(channel).SkipRuns(request, timeout=UNARY_SECONDS)
    _print_labels(list(answer.runs), as_json=as_json)


@command(group, "log", span="fleetcast deployment log")
async def log(context: typer.Context, deployment: Name, machine: MachineName) -> None:
    """Print the log that a machine uploaded of its last run."""
    name = resource("deployments", deployment)
    async with connection(context).dial() as channel:
        run = (await _runs_of_machine(channel, name, machine))[0]
        async for piece in DeploymentServiceStub(channel).ReadRunLog(
            deployment_service_pb2.ReadRunLogRequest(name=run.name)
        ):
            sys.stdout.buffer.write(piece.data)
    sys.stdout.buffer.flush()


async def list_runs(channel: grpc.aio.Channel, parent: str, *, limit: int | None = None) -> list[Run]:
    """Returns the runs of a deployment, or of a machine, newest first; `limit` of them at most."""
    runs: list[Run] = []
    request = deployment_service_pb2.ListRunsRequest(parent=parent, page_size=min(limit or 1000, 1000))
    async for answer in every_page(DeploymentServiceStub(channel).ListRuns, request):
        runs += answer.runs
        if limit is not None and len(runs) >= limit:
            break
    return runs[:limit]


def print_runs(details: list[deployment_service_pb2.GetRunResponse], *, as_json: bool) -> None:
    """Prints runs, each with every step."""
    if as_json:
        runs = [to_plain(each.run) | {"steps": [to_plain(step) for step in each.steps]} for each in details]
        write_json({"runs": list(runs)})
        return
    console = output()
    for index, each in enumerate(details):
        console.print("" if index else run_table([one.run for one in details], of_machine=True))
        if each.steps:
            console.print(f"\n{each.run.name}" if index == 0 else each.run.name, style="bold", soft_wrap=True)
            console.print(step_table(each.steps))
        if each.run.output_tail:
            console.print("end of what the failed step printed:", style="bold")
            console.print(each.run.output_tail, soft_wrap=True)


async def _runs_of_machine(channel: grpc.aio.Channel, deployment: str, text: str) -> list[Run]:
    """Returns the runs of a deployment on one machine, newest first.

    Raises:
        NotFoundError: there are none.
    """
    machine = await find_machine(MachineServiceStub(channel), text)
    runs = [run for run in await list_runs(channel, deployment) if run.machine == machine.name]
    if not runs:
        raise NotFoundError(
            f"{text!r} is no target of deployment {identifier(deployment)}; see: fleetcast deployment show "
            f"{identifier(deployment)}",
            reason="RUN_NOT_FOUND",
        )
    return runs


def _print_change(deployment: Deployment, *, as_json: bool) -> None:
    if as_json:
        write_json(to_plain(deployment))
        return
    output().print(
        f"deployment {identifier(deployment.name)} is {state_line(deployment)}; machines {summary_line(deployment)}",
        soft_wrap=True,
    )


def _print_labels(runs: list[Run], *, as_json: bool) -> None:
    if as_json:
        write_json({"runs": [to_plain(run) for run in runs]})
        return
    for run in runs:
        output().print(run_label(run), soft_wrap=True)
