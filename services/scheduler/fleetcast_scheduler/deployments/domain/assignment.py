"""Whether a machine that waits may begin a deployment now, and if not, what it waits for."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from zoneinfo import ZoneInfo

from fleetcast_kit.values.durations import format_duration

from fleetcast_scheduler.calendar.local_time import describe_instant
from fleetcast_scheduler.deployments.domain.deployment import Deployment, DeploymentState, Purpose
from fleetcast_scheduler.deployments.domain.phases import phase_count
from fleetcast_scheduler.deployments.domain.run import Run
from fleetcast_scheduler.machines.domain.fleet import Fleet, MachineFacts
from fleetcast_scheduler.machines.domain.maintenance import HORIZON, next_fit


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a machine may begin at one instant."""

    begin: bool = False
    reason: str = ""
    """Why not, in one sentence."""
    due_time: float | None = None
    """When to ask again, if nothing happens before."""
    wake: bool = False
    """It would begin if it were connected."""


class Judge:
    """Decides for each machine at one instant; what many machines share is computed once."""

    def __init__(self, fleet: Fleet, now: float) -> None:
        self._fleet = fleet
        self._now = now
        self._fits: dict[tuple[object, ...], float | None] = {}

    def verdict(
        self, deployment: Deployment, run: Run, facts: MachineFacts, *, phase: int, connected: bool, busy_with: str
    ) -> Verdict:
        """Returns whether a machine that waits may begin.

        `facts` is a target at this instant; `phase` is that in which it begins, from 0; `busy_with` is the run that
        it executes, if any.
        """
        if exclusion := self._fleet.exclusion(facts):
            return Verdict(reason=exclusion)
        if deployment.state is DeploymentState.PAUSED:
            return Verdict(reason="the deployment is paused")
        if (held_up := self._time_verdict(deployment, run, facts, phase)) is not None:
            return held_up
        if not connected:
            return Verdict(reason="its agent is not connected", wake=True)
        if busy_with:
            return Verdict(reason=f"the machine runs {busy_with}")
        return Verdict(begin=True)

    def due(self, deployment: Deployment, facts: MachineFacts) -> float:
        """Returns when a machine would begin if it had no maintenance windows; now at the earliest."""
        times = [self._now]
        if deployment.available_time is not None:
            times.append(deployment.available_time.instant(facts.zone))
        if deployment.purpose is Purpose.REQUIRED and deployment.deadline_time is not None:
            times.append(deployment.deadline_time.instant(facts.zone))
        return max(times)

    def earliest(self, deployment: Deployment, facts: MachineFacts) -> float | None:
        """Returns when a machine begins at the earliest if it asks for it or its phase has come; None if never."""
        earliest = self._next_fit(deployment, facts, self.due(deployment, facts))
        if earliest is not None and earliest >= expiry(deployment, facts.zone):
            return None
        return earliest

    def _time_verdict(self, deployment: Deployment, run: Run, facts: MachineFacts, phase: int) -> Verdict | None:
        """Returns what time and phase say against it, or None."""
        zone, now = facts.zone, self._now
        if deployment.available_time is not None:
            available_time = deployment.available_time.instant(zone)
            if now < available_time:
                return Verdict(
                    reason=f"waits until it is available at {describe_instant(available_time, zone)}",
                    due_time=available_time,
                )
        if not run.wanted:
            if deployment.purpose is Purpose.AVAILABLE:
                return Verdict(reason="waits until somebody asks for it")
            if phase > deployment.current_phase:
                return Verdict(reason=f"waits for phase {phase + 1} of {phase_count(deployment)}")
            if deployment.deadline_time is not None:
                deadline = deployment.deadline_time.instant(zone)
                if now < deadline:
                    return Verdict(
                        reason=f"waits for the deadline at {describe_instant(deadline, zone)}", due_time=deadline
                    )
        opening = self._next_fit(deployment, facts, now)
        if opening is None:
            return Verdict(
                reason=f"no maintenance window within {HORIZON.days} days has room for "
                f"{format_duration(timedelta(seconds=deployment.max_run_seconds))}",
                due_time=now + 86400,
            )
        if opening > now:
            return Verdict(
                reason=f"waits for the maintenance window at {describe_instant(opening, zone)}", due_time=opening
            )
        return None

    def _next_fit(self, deployment: Deployment, facts: MachineFacts, start: float) -> float | None:
        windows = self._fleet.windows(facts)
        if not windows or deployment.ignore_maintenance_windows or deployment.purpose is Purpose.AVAILABLE:
            return start
        key = (windows, facts.zone.key, deployment.max_run_seconds, start)
        if key not in self._fits:
            self._fits[key] = next_fit(windows, start, facts.zone, deployment.max_run_seconds)
        return self._fits[key]


def expiry(deployment: Deployment, zone: ZoneInfo) -> float:
    """Returns when nothing begins any more on machines of a time zone; infinity if never."""
    return float("inf") if deployment.expiry_time is None else deployment.expiry_time.instant(zone)
