"""The live view of one machine: whether it is connected, and what it runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field

from fleetcast_scheduler.deployments.deployments import Deployments
from fleetcast_scheduler.deployments.domain.run import Run, StepRun
from fleetcast_scheduler.deployments.pump import RunPump
from fleetcast_scheduler.loop.watching import Watch
from fleetcast_scheduler.machines.domain.machine import Machine
from fleetcast_scheduler.machines.domain.presence import MachinePresence
from fleetcast_scheduler.machines.machines import Machines

HISTORY_COUNT = 100
"""Runs of the past that are shown; ListRuns has all."""


@dataclass(frozen=True, slots=True)
class MachineView:
    """A machine as it is now, and what a reader has not seen of its runs."""

    machine: Machine
    presence: MachinePresence
    runs: list[Run] = field(default_factory=list)
    steps: list[StepRun] = field(default_factory=list)
    lost: bool = False


class MachineWatch:
    """Live views of machines."""

    def __init__(self, machines: Machines, deployments: Deployments, pump: RunPump) -> None:
        self._machines = machines
        self._deployments = deployments
        self._pump = pump

    async def watch(self, name: str) -> AsyncIterator[MachineView]:
        """Yields a machine and its runs, then each change, until the reader ends it.

        Raises:
            NotFoundError: there is none of that name.
        """
        seen_runs: dict[str, int] = {}
        seen_steps: dict[tuple[str, int], StepRun] = {}
        watch = Watch(self._pump, name)

        async def look() -> MachineView:
            machine = await self._machines.get(name)
            runs = await self._deployments.list_runs(name, None, HISTORY_COUNT)
            fresh = [run for run in runs if seen_runs.get(run.name) != run.revision]
            seen_runs.update({run.name: run.revision for run in fresh})
            steps = [step for run in fresh for step in await self._steps(run)]
            news = [step for step in steps if seen_steps.get((step.run, step.number)) != step]
            seen_steps.update({(step.run, step.number): step for step in news})
            return MachineView(machine, self._pump.presence.of(name), fresh, news, watch.lost)

        async with aclosing(watch.views(look)) as views:
            async for view in views:
                yield view

    async def _steps(self, run: Run) -> list[StepRun]:
        return list(run.steps.values()) if run.steps else (await self._deployments.get_run(run.name))[1]
