"""What machines that start from the network have to do: asked before they have a system."""

from __future__ import annotations

from fleetcast_scheduler.deployments.domain.assignment import Judge, expiry
from fleetcast_scheduler.deployments.domain.phases import phases_of, targets
from fleetcast_scheduler.deployments.domain.run import RunState
from fleetcast_scheduler.deployments.pump import RunPump


class DueRuns:
    """Looks up what a machine has to execute in the boot environment."""

    def __init__(self, pump: RunPump) -> None:
        self._pump = pump

    def due_run(self, machine: str) -> str:
        """Returns the run that a machine has to execute in the boot environment now; empty if none.

        That is the run which it executes, unless its step wanted the installed system to start, and else the first that
        would begin if the machine were there.
        """
        ledger, now = self._pump.ledger, self._pump.clock()
        current = ledger.current.get(machine)
        if current is not None:
            goes_on = current.state is not RunState.RESTARTING or current.restart_environment == "boot"
            return current.name if goes_on else ""
        facts = ledger.fleet.machine(machine)
        if facts is None:
            return ""
        judge = Judge(ledger.fleet, now)
        for deployment in sorted(ledger.open_deployments, key=lambda deployment: deployment.create_time):
            run = deployment.runs.get(machine)
            if run is None or run.state is not RunState.WAITING or run not in targets(deployment):
                continue
            phase = phases_of(deployment)[machine]
            verdict = judge.verdict(deployment, run, facts, phase=phase, connected=True, busy_with="")
            if verdict.begin and now < expiry(deployment, facts.zone):
                return run.name
        return ""
