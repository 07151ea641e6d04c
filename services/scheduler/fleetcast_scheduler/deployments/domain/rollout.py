"""How deployments move on: from their times, their phases, their machines and the time."""

from __future__ import annotations

from zoneinfo import ZoneInfo

from fleetcast_scheduler.deployments.domain.assignment import Judge, Verdict, expiry
from fleetcast_scheduler.deployments.domain.deployment import Deployment, DeploymentState, Purpose, Rerun
from fleetcast_scheduler.deployments.domain.events import DeploymentEnded, MachinesWoken, Offer, RunClosed, StandbyTold
from fleetcast_scheduler.deployments.domain.ledger import WAKE_COUNT, DeploymentLedger, UnexpectedRun
from fleetcast_scheduler.deployments.domain.machine_reports import MachineReports, offered
from fleetcast_scheduler.deployments.domain.phases import judge_phase, phases_of, targets
from fleetcast_scheduler.deployments.domain.run import Ending, Run, RunState
from fleetcast_scheduler.deployments.domain.targets import refresh_targets


class Rollout:
    """Decides what deployments do next, and writes it into the ledger."""

    def __init__(self, ledger: DeploymentLedger, presence: MachineReports) -> None:
        self._ledger = ledger
        self._presence = presence

    def settle(self, now: float) -> None:
        """Decides everything that is due at `now`."""
        ledger = self._ledger
        if ledger.fleet.changed:
            ledger.fleet.changed.clear()
            for deployment in ledger.open_deployments:
                deployment.stale = True
                ledger.unsettled.add(deployment.name)
            ledger.restless |= ledger.connected
        for machine, unexpected in list(ledger.unexpected_runs.items()):
            if now >= unexpected.give_up_time:
                ledger.events.append(RunClosed(machine, unexpected.run))
                self._presence.forget_stray(machine, now)
        for deployment in ledger.deployments.values():
            if deployment.wake_time is not None and deployment.wake_time <= now:
                ledger.unsettled.add(deployment.name)
        judge = Judge(ledger.fleet, now)
        while ledger.unsettled:
            name = min(ledger.unsettled, key=lambda name: (ledger.deployments[name].create_time, name))
            ledger.unsettled.discard(name)
            self._step(ledger.deployments[name], judge, now)
            ledger.unsettled.discard(name)  # what it wrote itself is no reason to look again
        self._tell_waiting(now)

    def wake_time(self) -> float | None:
        """Returns when `settle` has something to do, if nothing happens before."""
        times = [
            deployment.wake_time for deployment in self._ledger.deployments.values() if deployment.wake_time is not None
        ]
        times += [unexpected.give_up_time for unexpected in self._ledger.unexpected_runs.values()]
        return min(times, default=None)

    def forget_ended(self, now: float) -> None:
        """Drops the deployments that ended a while ago."""
        ledger = self._ledger
        for deployment in list(ledger.deployments.values()):
            if not deployment.settled or deployment.end_time is None or deployment.open_runs:
                continue
            if now > deployment.end_time + ledger.timing.forget:
                del ledger.deployments[deployment.name]

    def _step(self, deployment: Deployment, judge: Judge, now: float) -> None:
        deployment.wake_time = None
        if not deployment.state.final:
            if deployment.stale:
                refresh_targets(self._ledger, deployment, now)
                deployment.stale = False
            self._step_state(deployment, now)
        self._step_open_runs(deployment, now)
        if not deployment.state.final:
            self._step_phase(deployment, now)
            self._step_waiting(deployment, judge, now)
            self._complete(deployment, now)
        self._explain(deployment)
        if deployment.state.final and not deployment.open_runs and not deployment.settled:
            self._ledger.events.append(DeploymentEnded(deployment.name))

    def _step_state(self, deployment: Deployment, now: float) -> None:
        zones = self._zones(deployment)
        expiry_time = max(expiry(deployment, zone) for zone in zones)
        if now >= expiry_time:
            for run in targets(deployment):
                if run.state is RunState.WAITING:
                    self._expire(deployment, run, now)
            self.finish(deployment, DeploymentState.EXPIRED, now)
            return
        if expiry_time != float("inf"):
            wake(deployment, expiry_time)
        if deployment.state is DeploymentState.SCHEDULED:
            available_time = deployment.available_time
            start = min(available_time.instant(zone) for zone in zones) if available_time is not None else now
            if now >= start:
                deployment.state = DeploymentState.ACTIVE
                self._ledger.record(deployment)
            else:
                wake(deployment, start)

    def _step_open_runs(self, deployment: Deployment, now: float) -> None:
        """Ends runs that take too long, and marks as lost those whose machines do not come back."""
        ledger = self._ledger
        for run in deployment.open_runs:
            if run.ending is not None:
                if now >= run.ending.give_up_time:
                    self._give_up(deployment, run, run.ending, now)
                    continue
                wake(deployment, run.ending.give_up_time)
            elif run.limit_time is not None and run.pause_time is None:
                if now >= run.limit_time:
                    hours = f"{deployment.max_run_seconds:g} s"
                    lost = " and contact with it is lost" if run.state is RunState.LOST else ""
                    error = f"the run takes longer than {hours}, the most that the deployment allows{lost}"
                    ledger.order_end(deployment, run, RunState.FAILED, now, error)
                    if run.ending is not None:
                        wake(deployment, run.ending.give_up_time)
                    continue
                wake(deployment, run.limit_time)
            if run.state is RunState.RESTARTING and run.restart_time is not None:
                if now >= run.restart_time + ledger.timing.restart:
                    ledger.follow(deployment, run, RunState.LOST)
                else:
                    wake(deployment, run.restart_time + ledger.timing.restart)

    def _give_up(self, deployment: Deployment, run: Run, ending: Ending, now: float) -> None:
        """Ends a run that its machine has not confirmed. While the machine stays connected, it gets no other run."""
        if run.machine in self._ledger.connected:
            self._ledger.unexpected_runs[run.machine] = UnexpectedRun(run.name, float("inf"))
        self._ledger.end(deployment, run, ending.state, now, ending.error)

    def _step_phase(self, deployment: Deployment, now: float) -> None:
        verdict = judge_phase(deployment, now)
        while verdict.advance and deployment.state is DeploymentState.ACTIVE:
            self.advance(deployment)
            verdict = judge_phase(deployment, now)
        if verdict.succeeded != (deployment.phase_success_time is not None):
            deployment.phase_success_time = now if verdict.succeeded else None
            self._ledger.record(deployment)
        wake(deployment, verdict.due_time)

    def advance(self, deployment: Deployment) -> None:
        """Begins the next phase."""
        deployment.current_phase += 1
        deployment.phase_success_time = None
        self._ledger.record(deployment)

    def _step_waiting(self, deployment: Deployment, judge: Judge, now: float) -> None:
        ledger = self._ledger
        phases = phases_of(deployment)
        woken: list[str] = []
        for run in targets(deployment):
            facts = ledger.fleet.machine(run.machine)
            if run.state is not RunState.WAITING or facts is None:
                continue
            if now >= expiry(deployment, facts.zone):
                self._expire(deployment, run, now)
                continue
            wake(deployment, min(expiry(deployment, facts.zone), now + 86400.0))
            current, unexpected = ledger.current.get(run.machine), ledger.unexpected_runs.get(run.machine)
            verdict = judge.verdict(
                deployment,
                run,
                facts,
                phase=phases[run.machine],
                connected=run.machine in ledger.connected,
                busy_with=current.name if current else unexpected.run if unexpected else "",
            )
            if verdict.begin:
                ledger.begin(deployment, run, now)
                continue
            ledger.explain(deployment, run, verdict.reason)
            wake(deployment, verdict.due_time)
            if verdict.wake and self._wakes(deployment, run, verdict, now):
                woken += facts.mac_addresses
        if woken:
            ledger.events.append(MachinesWoken(tuple(dict.fromkeys(woken))))

    def _wakes(self, deployment: Deployment, run: Run, verdict: Verdict, now: float) -> bool:
        """Returns whether a machine that would begin is to be woken now."""
        if not deployment.wake or run.wake_count >= WAKE_COUNT:
            return False
        due_time = 0.0 if run.wake_time is None else run.wake_time + self._ledger.timing.wake
        if now < due_time:
            wake(deployment, due_time)
            return False
        run.wake_time, run.wake_count = now, run.wake_count + 1
        self._ledger.record(deployment, run)
        if run.wake_count < WAKE_COUNT:
            wake(deployment, now + self._ledger.timing.wake)
        return True

    def _expire(self, deployment: Deployment, run: Run, now: float) -> None:
        if deployment.purpose is Purpose.REQUIRED:
            self._ledger.end(deployment, run, RunState.FAILED, now, "the deployment expired before the machine began")
        else:
            self._ledger.end(deployment, run, RunState.SKIPPED, now)
            run.reason = "the deployment expired before anybody asked for it"

    def _complete(self, deployment: Deployment, now: float) -> None:
        runs = targets(deployment)
        once = deployment.purpose is Purpose.REQUIRED and deployment.rerun in (Rerun.NEVER, Rerun.IF_FAILED)
        if once and runs and all(run.state is RunState.SUCCEEDED for run in runs):
            self.finish(deployment, DeploymentState.COMPLETED, now)

    def finish(self, deployment: Deployment, state: DeploymentState, now: float) -> None:
        """Puts a deployment in a final state."""
        deployment.state, deployment.end_time = state, now
        self._ledger.record(deployment)
        self._ledger.restless.update(deployment.runs)

    def _explain(self, deployment: Deployment) -> None:
        reason = _held(deployment) if deployment.state.final else self._reason(deployment)
        if reason != deployment.waiting_reason:
            deployment.waiting_reason = reason
            self._ledger.record(deployment)

    def _reason(self, deployment: Deployment) -> str:
        if deployment.state is DeploymentState.PAUSED:
            return "an operator paused it"
        runs = targets(deployment)
        if not runs:
            return f"no machine in {deployment.collection} can be targeted"
        reasons = {run.reason for run in runs if run.state is RunState.WAITING}
        if len(reasons) == 1 and not any(run.state.begun for run in runs) and not deployment.phases:
            return reasons.pop()
        return judge_phase(deployment, 0.0).reason

    def _tell_waiting(self, now: float) -> None:
        """Tells machines that have nothing to run why."""
        ledger = self._ledger
        restless, ledger.restless = ledger.restless, set()
        for machine in restless & ledger.connected:
            if machine not in ledger.current and machine not in ledger.unexpected_runs:
                ledger.events.append(self._standby(machine))

    def _standby(self, machine: str) -> StandbyTold:
        facts = self._ledger.fleet.machine(machine)
        if facts is None:
            return StandbyTold(machine, "the machine has not registered")
        exclusion = self._ledger.fleet.exclusion(facts)
        if exclusion:
            return StandbyTold(machine, f"nothing is deployed to this machine: {exclusion}")
        reason, offers = "", []
        for deployment in self._ledger.open_deployments:
            run = deployment.runs.get(machine)
            if offered(deployment, machine):
                offers.append(Offer(deployment.name, deployment.description))
            elif run is not None and run.state is RunState.WAITING and not reason:
                reason = f"{deployment.name}: {run.reason}"
        return StandbyTold(machine, reason or "nothing is deployed to this machine", tuple(offers))

    def _zones(self, deployment: Deployment) -> set[ZoneInfo]:
        targets = [self._ledger.fleet.machine(run.machine) for run in deployment.runs.values()]
        return {facts.zone for facts in targets if facts is not None} or {self._ledger.fleet.default_zone}


def _held(deployment: Deployment) -> str:
    """Returns what an operator who paused a deployment still has to decide after its end; empty if nothing."""
    count = sum(run.pause_time is not None and run.ending is None for run in deployment.open_runs)
    machines = "1 machine that has begun is" if count == 1 else f"{count} machines that have begun are"
    return f"{machines} held by an operator's pause: resume or cancel it" if count else ""


def wake(deployment: Deployment, time: float | None) -> None:
    """Has a deployment looked at again at a time, if not before."""
    if time is not None:
        deployment.wake_time = time if deployment.wake_time is None else min(deployment.wake_time, time)
