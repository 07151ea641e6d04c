"""Phases: which machines begin first, and when the next may."""

from __future__ import annotations

from dataclasses import dataclass

from fleetcast_scheduler.deployments.domain.deployment import Deployment, Purpose
from fleetcast_scheduler.deployments.domain.run import Run, RunState
from fleetcast_scheduler.sessions.domain.start_rules import format_time


@dataclass(frozen=True, slots=True)
class PhaseVerdict:
    """Whether the next phase begins at one instant."""

    advance: bool = False
    succeeded: bool = False
    """The present phase reached its success."""
    reason: str = ""
    """Why the next phase does not begin yet, in one sentence; empty if there is no next phase."""
    due_time: float | None = None


def phase_count(deployment: Deployment) -> int:
    """Returns the number of phases, the one of those who are left included; 1 if there are no phases."""
    whole = any(phase.percent == 100 for phase in deployment.phases[-1:])
    return max(len(deployment.phases) + (not whole), 1)


def targets(deployment: Deployment) -> list[Run]:
    """Returns the runs of the machines that are not excepted, in the order in which phases take them."""
    runs = [run for run in deployment.runs.values() if run.state is not RunState.SKIPPED]
    return sorted(runs, key=lambda run: run.place)


def phases_of(deployment: Deployment) -> dict[str, int]:
    """Returns in which phase each target begins, from 0, by machine."""
    runs = targets(deployment)
    phases: dict[str, int] = {}
    start = 0
    for number, phase in enumerate(deployment.phases):
        end = max(phase.reach(len(runs)), start)
        phases.update((run.machine, number) for run in runs[start:end])
        start = end
    phases.update((run.machine, len(deployment.phases)) for run in runs[start:])
    return phases


def awaited(deployment: Deployment) -> dict[str, str]:
    """Returns the machines that sessions of a deployment wait for, with the names for display, by machine.

    They are those that may begin in the present phase and have not ended; of an available deployment, those for which
    somebody asked.
    """
    phases = phases_of(deployment)
    required = deployment.purpose is Purpose.REQUIRED and not deployment.state.final
    return {
        run.machine: run.display_name
        for run in targets(deployment)
        if run.state.begun
        or (
            (run.state is RunState.WAITING and (run.wanted or required))
            and phases[run.machine] <= deployment.current_phase
        )
    }


def judge_phase(deployment: Deployment, now: float) -> PhaseVerdict:
    """Returns whether the next phase of a deployment begins at `now`."""
    number, count = deployment.current_phase, phase_count(deployment)
    if number >= count - 1:
        return PhaseVerdict()
    phase = deployment.phases[number]
    runs = targets(deployment)
    reached = runs[: phase.reach(len(runs))]
    succeeded_count = sum(run.state is RunState.SUCCEEDED for run in reached)
    if not reached:
        return PhaseVerdict(reason=f"phase {number + 1} of {count} waits for machines")
    if succeeded_count * 100 < phase.success_percent * len(reached):
        needed_count = -(-phase.success_percent * len(reached) // 100)
        return PhaseVerdict(
            reason=f"phase {number + 1} of {count}: {succeeded_count} of {len(reached)} machines succeeded, "
            f"{needed_count} must before phase {number + 2} begins"
        )
    if phase.manual:
        return PhaseVerdict(
            succeeded=True, reason=f"phase {number + 1} of {count} succeeded: an operator must begin the next one"
        )
    due_time = (now if deployment.phase_success_time is None else deployment.phase_success_time) + phase.delay_seconds
    if now < due_time:
        return PhaseVerdict(
            succeeded=True,
            reason=f"phase {number + 1} of {count} succeeded: the next one begins at {format_time(due_time)}",
            due_time=due_time,
        )
    return PhaseVerdict(advance=True, succeeded=True)
