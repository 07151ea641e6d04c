"""What is known of every open deployment, and what of it must be stored and done."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from fleetcast_scheduler.deployments.domain.deployment import Deployment
from fleetcast_scheduler.deployments.domain.events import ControlAction, RunControlled, RunEvent, RunFailed, RunOrdered
from fleetcast_scheduler.deployments.domain.run import Ending, Run, RunState, StepRun
from fleetcast_scheduler.machines.domain.fleet import Fleet


@dataclass(frozen=True, slots=True)
class RunTiming:
    """Time limits of deployments, in seconds."""

    ending: float = 60.0
    """A machine that is told to end its run has so long to say that it did."""
    restart: float = 1800.0
    """A machine that restarts comes back within this, or contact with it is lost."""
    wake: float = 120.0
    """A machine that was sent a wake-up and does not come is sent another after this."""
    forget: float = 300.0
    """An ended deployment stays in memory for this long."""


@dataclass(frozen=True, slots=True)
class UnexpectedRun:
    """A run that a machine still executes although the scheduler has ended it."""

    run: str
    give_up_time: float


WAKE_COUNT = 3
"""Wake-ups for one run at most."""


class DeploymentLedger:
    """Deployments, by name, and what changed."""

    def __init__(self, fleet: Fleet, deployments: Iterable[Deployment] = (), timing: RunTiming | None = None) -> None:
        self.fleet = fleet
        self.timing = timing or RunTiming()
        self.deployments = {deployment.name: deployment for deployment in deployments}
        self.contact_times: dict[str, float] = {}
        """When each machine was last heard."""
        self.connected: set[str] = set()
        """Machines that are connected."""
        self.current: dict[str, Run] = {}
        """The run that each machine executes, as far as the scheduler knows."""
        self.unexpected_runs: dict[str, UnexpectedRun] = {}
        """Runs that machines still execute although the scheduler has ended them. They end before others begin."""
        self.unsettled: set[str] = set()
        """Deployments to look at."""
        self.restless: set[str] = set()
        """Machines without a run whose reason to wait may have changed."""
        self.events: list[RunEvent] = []
        self.new_content: set[str] = set()
        self.changed: set[str] = set()
        self.changed_runs: dict[str, Run] = {}
        """By name."""
        self.changed_steps: list[StepRun] = []
        self.heard: set[str] = set()
        """Machines whose contact times are to be stored."""
        self.reported: dict[str, Run] = {}
        """Runs of which only the progress changed: they are stored with the next batch."""
        for deployment in self.deployments.values():
            for run in deployment.open_runs:
                self.current[run.machine] = run
                if run.variables is None:  # it began before they were kept
                    run.variables = fleet.variables(run.machine)

    def record(self, deployment: Deployment, run: Run | None = None) -> None:
        """Counts a change of a deployment, and of one run, and has both stored; both are looked at again."""
        deployment.touch(run)
        self.changed.add(deployment.name)
        self.unsettled.add(deployment.name)
        if run is not None:
            self.changed_runs[run.name] = run
            self.reported.pop(run.name, None)

    def add(self, deployment: Deployment) -> None:
        """A deployment was made."""
        self.deployments[deployment.name] = deployment
        self.new_content.add(deployment.name)
        self.record(deployment)

    def put(self, deployment: Deployment, run: Run) -> None:
        """A machine has a new run, which waits; whether it still is a target is looked up before it begins."""
        deployment.put(run)
        deployment.stale = True
        self.record(deployment, run)

    def explain(self, deployment: Deployment, run: Run, reason: str) -> None:
        """Says what a run waits for."""
        if run.reason != reason:
            run.reason = reason
            self.record(deployment, run)
        self.restless.add(run.machine)

    def begin(self, deployment: Deployment, run: Run, now: float) -> None:
        """Tells a machine to begin."""
        run.attempt, run.reason, run.start_time = run.number, "", now
        run.limit_time = now + deployment.max_run_seconds
        run.contact_time = self.contact_times.get(run.machine)
        run.variables = self.fleet.variables(run.machine)
        deployment.move(run, RunState.RUNNING)
        self.current[run.machine] = run
        self.events.append(RunOrdered(run.machine, run.name))
        self.record(deployment, run)

    def end(self, deployment: Deployment, run: Run, state: RunState, now: float, error: str = "") -> None:
        """A run is over; one that never began, too."""
        if self.current.get(run.machine) is run:
            del self.current[run.machine]
            self.touch_machine(run.machine)
        if state is RunState.SUCCEEDED:
            run.error = ""
        else:
            run.error = error or run.error
        run.reason, run.end_time, run.ending = "", now, None
        run.restart_time = run.pause_time = run.variables = None
        deployment.move(run, state)
        if state is RunState.FAILED:
            self.events.append(RunFailed(run.name, run.machine, run.display_name, run.error))
        self.record(deployment, run)

    def follow(self, deployment: Deployment, run: Run, state: RunState, reason: str = "") -> None:
        """A run that has begun is in another state."""
        run.reason = reason
        deployment.move(run, state)
        self.record(deployment, run)

    def order_end(self, deployment: Deployment, run: Run, state: RunState, now: float, error: str) -> None:
        """Ends a run that has begun: once the machine confirms it if it is connected, else at once."""
        if run.machine not in self.connected:
            self.end(deployment, run, state, now, error)
            return
        run.ending = Ending(state, error, now + self.timing.ending)
        run.reason = "is being ended"
        self.events.append(RunControlled(run.machine, run.name, ControlAction.CANCEL, error))
        self.record(deployment, run)

    def touch_machine(self, machine: str) -> None:
        """Has the rules look again at all deployments that wait for a machine."""
        self.restless.add(machine)
        for deployment in self.deployments.values():
            run = deployment.runs.get(machine)
            if run is not None and run.state is RunState.WAITING:
                self.unsettled.add(deployment.name)

    def find_run(self, name: str) -> tuple[Deployment, Run] | None:
        """Returns a last run by name, with its deployment; None if there is none in memory."""
        deployment = self.deployments.get(name.partition("/runs/")[0])
        if deployment is not None:
            for run in deployment.runs.values():
                if run.name == name:
                    return deployment, run
        return None

    def deployment_of(self, run: Run) -> Deployment:
        """Returns the deployment of a run that is in memory."""
        return self.deployments[run.deployment]

    @property
    def open_deployments(self) -> list[Deployment]:
        """Deployments whose machines may begin, the oldest first."""
        found = [deployment for deployment in self.deployments.values() if not deployment.state.final]
        return sorted(found, key=lambda deployment: (deployment.create_time, deployment.name))
