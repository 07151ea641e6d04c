"""What operators do to deployments."""

from __future__ import annotations

from collections.abc import Sequence

from fleetcast_kit.errors import FailedPreconditionError, NotFoundError

from fleetcast_scheduler.deployments.domain.deployment import Deployment, DeploymentState
from fleetcast_scheduler.deployments.domain.events import ControlAction, RunControlled
from fleetcast_scheduler.deployments.domain.ledger import DeploymentLedger
from fleetcast_scheduler.deployments.domain.machine_reports import ask
from fleetcast_scheduler.deployments.domain.phases import phase_count
from fleetcast_scheduler.deployments.domain.rollout import Rollout
from fleetcast_scheduler.deployments.domain.run import Run, RunState


class DeploymentOperations:
    """What operators do with deployments. Each operation counts as an edit if it changed anything."""

    def __init__(self, ledger: DeploymentLedger, rollout: Rollout) -> None:
        self._ledger = ledger
        self._rollout = rollout

    def pause(self, deployment: Deployment, now: float) -> None:
        """Holds what runs between steps; nothing begins.

        Raises:
            FailedPreconditionError: it is over.
        """
        self._require_open(deployment)
        if deployment.state is DeploymentState.PAUSED:
            return
        deployment.state = DeploymentState.PAUSED
        self._edit(deployment)
        for run in deployment.open_runs:
            run.pause_time = now
            self._control(deployment, run, ControlAction.PAUSE, "an operator paused the deployment")

    def resume(self, deployment: Deployment, now: float) -> None:
        """Goes on after a pause; what is held goes on also if the deployment expired meanwhile.

        Raises:
            FailedPreconditionError: it is over, and holds nothing.
        """
        held = [run for run in deployment.open_runs if run.pause_time is not None]
        if not held:
            self._require_open(deployment)
        if deployment.state is DeploymentState.PAUSED:
            deployment.state = DeploymentState.SCHEDULED  # settling finds out whether it is available
        elif not held:
            return
        self._edit(deployment)
        for run in held:
            if run.pause_time is not None and run.limit_time is not None:
                run.limit_time += now - run.pause_time
            run.pause_time = None
            self._control(deployment, run, ControlAction.RESUME, "an operator resumed the deployment")

    def cancel(self, deployment: Deployment, now: float) -> None:
        """Ends a deployment, and what runs of it. Ending one that is over changes nothing."""
        error = "an operator cancelled the deployment"
        open_runs = [run for run in deployment.open_runs if run.ending is None]
        if deployment.state.final and not open_runs:
            return
        if not deployment.state.final or deployment.state is DeploymentState.EXPIRED:
            self._rollout.finish(deployment, DeploymentState.CANCELLED, now)
        self._edit(deployment)
        for run in list(deployment.runs.values()):
            if run.state is RunState.WAITING:
                self._ledger.end(deployment, run, RunState.CANCELLED, now, error)
        for run in open_runs:
            self._ledger.order_end(deployment, run, RunState.CANCELLED, now, error)

    def advance(self, deployment: Deployment) -> None:
        """Begins the next phase now.

        Raises:
            FailedPreconditionError: it is over, or in its last phase.
        """
        self._require_open(deployment)
        count = phase_count(deployment)
        if deployment.current_phase >= count - 1:
            raise FailedPreconditionError(
                f"{deployment.name} is in phase {deployment.current_phase + 1} of {count}: there is no next one",
                reason="LAST_PHASE",
            )
        self._rollout.advance(deployment)
        self._edit(deployment)

    def retry(self, deployment: Deployment, machines: Sequence[str], now: float) -> list[Run]:
        """Returns the runs of the machines that run it again: the named ones, or all whose last run failed.

        What has begun and not ended is left alone.

        Raises:
            FailedPreconditionError: it is over.
            NotFoundError: a machine is no target.
        """
        self._require_open(deployment)
        failed = [run for run in deployment.runs.values() if run.state in (RunState.FAILED, RunState.CANCELLED)]
        chosen = [self._require_run(deployment, name) for name in machines] if machines else failed
        for run in chosen:
            run.excepted = False
        self._edit(deployment)
        return [ask(self._ledger, deployment, run, now) for run in chosen]

    def skip(self, deployment: Deployment, machines: Sequence[str], now: float) -> list[Run]:
        """Returns the runs of machines that are excepted from now on.

        Raises:
            FailedPreconditionError: it is over.
            NotFoundError: a machine is no target.
        """
        self._require_open(deployment)
        chosen = [self._require_run(deployment, name) for name in machines]
        error = "an operator excepted the machine"
        self._edit(deployment)
        for run in chosen:
            run.excepted = True
            if run.state.begun:
                self._ledger.order_end(deployment, run, RunState.SKIPPED, now, error)
            elif run.state is not RunState.SUCCEEDED:
                self._ledger.end(deployment, run, RunState.SKIPPED, now, error)
            else:
                self._ledger.record(deployment, run)
        return chosen

    def _edit(self, deployment: Deployment) -> None:
        deployment.edit_count += 1
        self._ledger.record(deployment)

    def _control(self, deployment: Deployment, run: Run, action: ControlAction, reason: str) -> None:
        if run.machine in self._ledger.connected and run.ending is None:
            self._ledger.events.append(RunControlled(run.machine, run.name, action, reason))
        self._ledger.record(deployment, run)

    def _require_open(self, deployment: Deployment) -> None:
        if deployment.state.final:
            raise FailedPreconditionError(
                f"{deployment.name} is {deployment.state.lower()}: make a new deployment", reason="DEPLOYMENT_ENDED"
            )

    def _require_run(self, deployment: Deployment, machine: str) -> Run:
        run = deployment.runs.get(machine)
        if run is None:
            raise NotFoundError(
                f"{machine} is no target of {deployment.name}: list its runs to see which are", reason="RUN_NOT_FOUND"
            )
        return run
