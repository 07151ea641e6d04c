"""`fleetcast machine history` and `watch`: what ran on a machine, and what runs now."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from fleetcast.scheduler.v1.deployment_pb2 import Run, StepRun
from fleetcast.scheduler.v1.deployment_service_pb2 import GetRunRequest, WatchMachineRequest, WatchMachineResponse
from fleetcast.scheduler.v1.deployment_service_pb2_grpc import DeploymentServiceStub
from fleetcast.scheduler.v1.machine_service_pb2 import Machine
from fleetcast.scheduler.v1.machine_service_pb2_grpc import MachineServiceStub
from rich.console import Group, RenderableType
from rich.text import Text

from fleetcast_cli.deployments.commands import list_runs, print_runs
from fleetcast_cli.deployments.view import content, run_change, run_table, step_sentences, step_table, why
from fleetcast_cli.machines.commands import MachineName, group
from fleetcast_cli.machines.lookup import find_machine
from fleetcast_cli.machines.view import contact, machine_label
from fleetcast_cli.shell.command import Json, command
from fleetcast_cli.shell.connection import UNARY_SECONDS, connection
from fleetcast_cli.shell.plain import Plain, short_name, to_plain
from fleetcast_cli.shell.text import output
from fleetcast_cli.shell.watching import Watch, show

if TYPE_CHECKING:
    from fleetcast.scheduler.v1.deployment_service_pb2_grpc import DeploymentServiceAsyncStub


@command(group, "history", span="fleetcast machine history")
async def history(
    context: typer.Context,
    *,
    machine: MachineName,
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, metavar="N", help="Most runs, the newest.")] = 10,
    as_json: Json = False,
) -> None:
    """Show what ran on a machine: every run, every step, how long it took, why it failed."""
    async with connection(context).dial() as channel:
        found = await find_machine(MachineServiceStub(channel), machine)
        runs = await list_runs(channel, found.name, limit=limit)
        deployments = DeploymentServiceStub(channel)
        gets = [GetRunRequest(name=run.name) for run in runs]
        details = [await deployments.GetRun(get, timeout=UNARY_SECONDS) for get in gets]
    if not details and not as_json:
        output().print(f"nothing ran on {machine_label(found)} yet")
        return
    print_runs(details, as_json=as_json)


class MachineWatch(Watch[WatchMachineResponse]):
    """A machine, its runs and their steps."""

    def __init__(self, deployments: DeploymentServiceAsyncStub, machine: Machine, address: str) -> None:
        super().__init__(address)
        self._deployments = deployments
        self.machine = machine
        self.runs: dict[str, Run] = {}
        self.steps: dict[tuple[str, str, int], StepRun] = {}
        """By run, node and attempt."""

    def open(self) -> AsyncIterable[WatchMachineResponse]:
        """Returns a new stream; it begins with everything."""
        return self._deployments.WatchMachine(WatchMachineRequest(name=self.machine.name))

    def merge(self, change: WatchMachineResponse) -> None:
        """Takes a change in."""
        self.machine = change.machine
        self.runs |= {run.name: run for run in change.runs}
        self.steps |= {(each.run, each.step.node, each.step.attempt): each.step for each in change.steps}

    @property
    def ended(self) -> bool:
        """Never: it is watched until somebody has seen enough."""
        return False

    def plain(self, change: WatchMachineResponse) -> Plain:
        """Returns a change as JSON has it."""
        return to_plain(change)

    def lines(self, change: WatchMachineResponse) -> Iterator[str | None]:
        """Yields what a change says for people."""
        before, after = self.machine, change.machine
        if not self.runs or (before.state, before.connected) != (after.state, after.connected):
            yield f"{machine_label(after)} is {_state(after)}"
        for run in change.runs:
            line = run_change(self.runs.get(run.name), run)
            yield line and f"{run.name.split('/')[1]}: {line}"
        for each in change.steps:
            known = self.steps.get((each.run, each.step.node, each.step.attempt))
            if known is None or (known.outcome, known.remarks) != (each.step.outcome, each.step.remarks):
                how = short_name(each.step, "outcome") or ("begins" if known is None else "runs")
                sentences = step_sentences(each.step)
                yield f"step {each.step.node} {each.step.step_name} {how}{f': {sentences}' if sentences else ''}"

    def screen(self, rows: int) -> RenderableType:
        """Returns what fits on a terminal so high: the machine, its runs, the steps of the newest."""
        parts: list[RenderableType] = [Text(f"{machine_label(self.machine)}  {_state(self.machine)}", style="bold")]
        if self.notice:
            parts.append(Text(self.notice, style="bold yellow"))
        newest = sorted(self.runs.values(), key=lambda run: run.start_time.ToNanoseconds(), reverse=True)
        if not newest:
            return Group(*parts, Text("nothing ran yet"))
        steps = [step for (run, _, _), step in self.steps.items() if run == newest[0].name]
        room = max(2, rows - len(parts) - 10)
        parts += [Text(""), run_table(newest[: max(1, room // 3)], of_machine=True, one_line=True)]
        if steps:
            reason = why(newest[0])
            parts += [
                Text(f"\n{content(newest[0].content)}", style="bold"),
                *([Text(reason, style="yellow", no_wrap=True, overflow="ellipsis")] if reason else []),
                step_table(steps[-(room - room // 3) :], one_line=True),
            ]
        return Group(*parts)


@command(group, "watch", span="fleetcast machine watch")
async def watch(context: typer.Context, machine: MachineName, as_json: Json = False) -> None:
    """Show what runs on a machine, step by step, until Ctrl-C."""
    opened = connection(context)
    async with opened.dial() as channel:
        found = await find_machine(MachineServiceStub(channel), machine)
        watched = MachineWatch(DeploymentServiceStub(channel), found, opened.resolve()[0])
        await show(watched, as_json=as_json)


def _state(machine: Machine) -> str:
    heard = "connected" if machine.connected else f"heard {contact(machine, datetime.now(UTC))}"
    return f"{short_name(machine, 'state')}, {heard}"
