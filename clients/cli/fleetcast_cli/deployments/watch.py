"""`fleetcast deployment watch`: every machine of a deployment, until it ends; a server that restarts is waited for."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterator
from typing import TYPE_CHECKING

import typer
from fleetcast.scheduler.v1.deployment_pb2 import Deployment, Run
from fleetcast.scheduler.v1.deployment_service_pb2 import WatchDeploymentRequest, WatchDeploymentResponse
from fleetcast.scheduler.v1.deployment_service_pb2_grpc import DeploymentServiceStub
from rich.console import RenderableType

from fleetcast_cli.deployments.commands import Name, group
from fleetcast_cli.deployments.view import (
    FINAL_STATES,
    deployment_change,
    is_over,
    run_change,
    screen,
    state_line,
    summary,
)
from fleetcast_cli.shell.command import Json, command
from fleetcast_cli.shell.connection import connection
from fleetcast_cli.shell.plain import Plain, to_plain
from fleetcast_cli.shell.references import identifier, resource
from fleetcast_cli.shell.text import output, plural
from fleetcast_cli.shell.watching import UnsuccessfulError, Watch, show

if TYPE_CHECKING:
    from fleetcast.scheduler.v1.deployment_service_pb2_grpc import DeploymentServiceAsyncStub


class DeploymentWatch(Watch[WatchDeploymentResponse]):
    """A deployment and the last run of each machine."""

    def __init__(self, deployments: DeploymentServiceAsyncStub, name: str, address: str) -> None:
        super().__init__(address)
        self._deployments = deployments
        self.deployment = Deployment(name=name)
        self.runs: dict[str, Run] = {}

    def open(self) -> AsyncIterable[WatchDeploymentResponse]:
        """Returns a new stream, from the last revision on."""
        request = WatchDeploymentRequest(name=self.deployment.name, after_revision=self.deployment.revision)
        return self._deployments.WatchDeployment(request)

    def merge(self, change: WatchDeploymentResponse) -> None:
        """Takes a change in."""
        self.deployment = change.deployment
        self.runs |= {run.machine: run for run in change.runs}

    @property
    def ended(self) -> bool:
        """True when the deployment is in a final state, and nothing runs any more."""
        return self.deployment.state in FINAL_STATES and not self.deployment.summary.running_count

    @property
    def settled(self) -> bool:
        """True when every machine has an outcome: one that failed runs again only if somebody asks for it."""
        return self.deployment.state not in FINAL_STATES and is_over(self.deployment)

    def plain(self, change: WatchDeploymentResponse) -> Plain:
        """Returns a change as JSON has it."""
        runs: list[Plain] = [to_plain(run) for run in change.runs]
        return {"deployment": to_plain(change.deployment), "runs": runs, "lost": change.lost}

    def lines(self, change: WatchDeploymentResponse) -> Iterator[str | None]:
        """Yields what a change says for people."""
        yield deployment_change(self.deployment if self.deployment.revision else None, change.deployment)
        for run in change.runs:
            yield run_change(self.runs.get(run.machine), run)

    def screen(self, rows: int) -> RenderableType:
        """Returns what fits on a terminal so high."""
        return screen(self.deployment, self.runs, rows=rows, notice=self.notice)


@command(group, "watch", span="fleetcast deployment watch")
async def watch(context: typer.Context, deployment: Name, as_json: Json = False) -> None:
    """Show every machine until none waits or runs. Exits with 0 if none failed and it was not cancelled."""
    name = resource("deployments", deployment)
    opened = connection(context)
    async with opened.dial() as channel:
        watched = DeploymentWatch(DeploymentServiceStub(channel), name, opened.resolve()[0])
        await show(watched, as_json=as_json)
    ended = watched.deployment
    if not as_json:
        output().print(summary(ended, watched.runs))
    failed_count = ended.summary.failed_count
    if ended.state == Deployment.STATE_CANCELLED or failed_count:
        failed = f", {plural(failed_count, 'machine')} failed" if failed_count else ""
        again = (
            f"; look at them with 'deployment log', then: fleetcast deployment retry {identifier(ended.name)} --failed"
        )
        raise UnsuccessfulError(
            f"deployment {identifier(ended.name)} is {state_line(ended)}{failed}"
            + (again if ended.state not in FINAL_STATES else "")
        )
