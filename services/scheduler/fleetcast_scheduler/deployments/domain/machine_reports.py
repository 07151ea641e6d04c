"""What machines report about deployments: they connect, run, report progress and outcomes, and disconnect."""

from __future__ import annotations

from dataclasses import replace

from fleetcast_scheduler.deployments.domain.deployment import Deployment, DeploymentState, Purpose
from fleetcast_scheduler.deployments.domain.events import ControlAction, RunClosed, RunControlled, RunOrdered
from fleetcast_scheduler.deployments.domain.ledger import DeploymentLedger, UnexpectedRun
from fleetcast_scheduler.deployments.domain.run import (
    Remark,
    Run,
    RunOutcome,
    RunProgress,
    RunState,
    StepOutcome,
    StepRun,
)
from fleetcast_scheduler.deployments.domain.targets import new_run
from fleetcast_scheduler.machines.domain.presence import MachinePresence


class MachineReports:
    """Takes what machines report, and writes what follows from it into the ledger."""

    def __init__(self, ledger: DeploymentLedger) -> None:
        self._ledger = ledger

    def recover(self, now: float) -> None:
        """Call once after a restart: no machine is there, nothing else is different."""
        for run in list(self._ledger.current.values()):
            self._lose(run)

    def of(self, machine: str) -> MachinePresence:
        """Returns whether a machine is there, and what it runs."""
        run = self._ledger.current.get(machine)
        return MachinePresence(
            connected=machine in self._ledger.connected,
            contact_time=self._ledger.contact_times.get(machine),
            current_run=run.name if run is not None else "",
        )

    def arrive(self, machine: str, run_name: str, now: float) -> None:
        """A machine opened its stream; it has begun `run_name` and not reported its end, unless that is empty."""
        ledger = self._ledger
        ledger.connected.add(machine)
        self._hear(machine, now)
        ledger.touch_machine(machine)
        run = ledger.current.get(machine)
        if run_name and (run is None or run.name != run_name):
            ledger.unexpected_runs[machine] = UnexpectedRun(run_name, now + ledger.timing.ending)
            ledger.events.append(RunControlled(machine, run_name, ControlAction.CANCEL, "it is over for the scheduler"))
        elif run is not None:
            self._go_on(run, now)

    def depart(self, machine: str, now: float) -> None:
        """A machine's stream ended."""
        ledger = self._ledger
        ledger.connected.discard(machine)
        ledger.unexpected_runs.pop(machine, None)
        ledger.touch_machine(machine)
        self._hear(machine, now)
        run = ledger.current.get(machine)
        if run is not None:
            run.contact_time = now
            self._lose(run)

    def hear_connected(self, now: float) -> None:
        """Notes that the connected machines were heard until now."""
        for machine in self._ledger.connected:
            self._hear(machine, now)

    def register(self, machine: str, now: float) -> None:
        """A machine registered again: a deployment that it has run may run again."""
        for deployment in self._ledger.open_deployments:
            run = deployment.runs.get(machine)
            if run is None or not run.state.final or run.excepted or deployment.purpose is not Purpose.REQUIRED:
                continue
            if deployment.rerun.after(run.state):
                self._ledger.put(deployment, new_run(run, now))

    def progress(self, machine: str, progress: RunProgress, now: float) -> None:
        """A machine said how far its run is."""
        self._hear(machine, now)
        run = self._ledger.current.get(machine)
        if run is None or machine in self._ledger.unexpected_runs:
            return
        deployment = self._ledger.deployment_of(run)
        run.progress, run.contact_time = progress, now
        state = RunState.PAUSED if progress.paused else RunState.RUNNING
        if run.state is not state:
            self._ledger.follow(deployment, run, state, run.reason if run.ending else "")
        else:
            deployment.touch(run)
            self._ledger.reported[run.name] = run

    def step(self, machine: str, step: StepRun, now: float) -> None:
        """A step of a machine's run began or ended; `run` and `number` of `step` are not looked at."""
        self._hear(machine, now)
        run = self._ledger.current.get(machine)
        if run is None or machine in self._ledger.unexpected_runs:
            return
        key = (step.node, step.attempt, step.start_time)
        known = run.steps.get(key)
        run.steps[key] = replace(step, run=run.name, number=known.number if known else len(run.steps) + 1)
        run.contact_time = now
        run.note(Remark(step.step_name, text) for text in step.remarks)
        if step.outcome is StepOutcome.FAILED:
            run.error = f"{step.step_name}: {step.message}"
        self._ledger.changed_steps.append(run.steps[key])
        self._ledger.record(self._ledger.deployment_of(run), run)

    def finish(self, machine: str, run_name: str, outcome: RunOutcome, now: float) -> None:
        """A machine said how a run ended. It is told that this is known, whatever run it was."""
        ledger = self._ledger
        self._hear(machine, now)
        run = ledger.current.get(machine)
        ledger.events.append(RunClosed(machine, run_name))
        if run is not None and run.name == run_name:
            run.contact_time, run.output_tail = now, outcome.output_tail
            run.note(outcome.remarks)
            self._end(run, outcome, now)
        unexpected = ledger.unexpected_runs.get(machine)
        if unexpected is not None and unexpected.run == run_name:
            self.forget_stray(machine, now)

    def forget_stray(self, machine: str, now: float) -> None:
        """A machine has stopped a run that the scheduler had ended: it may begin its own run, or go on with it."""
        self._ledger.unexpected_runs.pop(machine, None)
        self._ledger.touch_machine(machine)
        run = self._ledger.current.get(machine)
        if run is not None and machine in self._ledger.connected:
            self._go_on(run, now)

    def restart(self, machine: str, environment: str, now: float) -> None:
        """A machine restarts as a step of its run wants, to start `boot` or `installed`."""
        self._hear(machine, now)
        run = self._ledger.current.get(machine)
        if run is not None:
            run.restart_time = run.contact_time = now
            run.restart_environment = environment
            self._ledger.follow(self._ledger.deployment_of(run), run, RunState.RESTARTING)

    def want(self, machine: str, name: str, now: float) -> None:
        """Somebody at a machine asks for an available deployment; nothing happens if it is not offered there."""
        self._hear(machine, now)
        self._ledger.restless.add(machine)
        deployment = self._ledger.deployments.get(name)
        if deployment is not None and offered(deployment, machine):
            ask(self._ledger, deployment, deployment.runs[machine], now)

    def _go_on(self, run: Run, now: float) -> None:
        """A machine is there that executes a run, or has lost it: it is told all about it."""
        deployment = self._ledger.deployment_of(run)
        run.contact_time, run.restart_time = now, None
        self._ledger.follow(deployment, run, RunState.RUNNING)
        self._ledger.events.append(RunOrdered(run.machine, run.name))
        if run.ending is not None:
            self._ledger.events.append(RunControlled(run.machine, run.name, ControlAction.CANCEL, run.ending.error))
        elif run.pause_time is not None:
            self._ledger.events.append(
                RunControlled(run.machine, run.name, ControlAction.PAUSE, "an operator paused the deployment")
            )

    def _end(self, run: Run, outcome: RunOutcome, now: float) -> None:
        deployment = self._ledger.deployment_of(run)
        error = f"{outcome.step_name}: {outcome.error}" if outcome.step_name and outcome.error else outcome.error
        if outcome.outcome is StepOutcome.SUCCEEDED:
            self._ledger.end(deployment, run, RunState.SUCCEEDED, now)
        elif run.ending is not None:
            self._ledger.end(deployment, run, run.ending.state, now, run.ending.error)
        elif outcome.outcome is StepOutcome.CANCELLED:
            self._ledger.end(deployment, run, RunState.CANCELLED, now, error or "it was cancelled at the machine")
        else:
            self._ledger.end(deployment, run, RunState.FAILED, now, error or "the machine did not say why")

    def _lose(self, run: Run) -> None:
        if run.state in (RunState.RUNNING, RunState.PAUSED):
            self._ledger.follow(self._ledger.deployment_of(run), run, RunState.LOST, run.reason if run.ending else "")

    def _hear(self, machine: str, now: float) -> None:
        self._ledger.contact_times[machine] = now
        self._ledger.heard.add(machine)


def offered(deployment: Deployment, machine: str) -> bool:
    """Returns whether somebody at a machine may ask for a deployment."""
    run = deployment.runs.get(machine)
    return (
        run is not None
        and deployment.purpose is Purpose.AVAILABLE
        and deployment.state is DeploymentState.ACTIVE
        and run.state is not RunState.SKIPPED
        and not run.state.begun
        and (run.state.final or not run.wanted)
    )


def ask(ledger: DeploymentLedger, deployment: Deployment, run: Run, now: float) -> Run:
    """Returns the run that a machine begins as soon as it may, because somebody asks for it."""
    if run.state.final:
        run = new_run(run, now)
        run.wanted = deployment.purpose is Purpose.AVAILABLE
        ledger.put(deployment, run)
    elif run.state is RunState.WAITING and deployment.purpose is Purpose.AVAILABLE:
        run.wanted = True
        ledger.record(deployment, run)
    return run
