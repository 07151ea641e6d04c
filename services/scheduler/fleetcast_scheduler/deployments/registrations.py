"""What it means for deployments that a machine registers."""

from __future__ import annotations

from fleetcast_scheduler.deployments.domain.targets import replace_target
from fleetcast_scheduler.deployments.pump import RunPump


class Registrations:
    """Is called for each machine that has registered, once the fleet shows the machine as it is now."""

    def __init__(self, pump: RunPump) -> None:
        self._pump = pump

    def registered(self, machine: str, replaced: str) -> None:
        """A machine registered; `replaced` is the imported record whose place it took, empty if there was none.

        The machine takes the places of that record in open deployments. What it ran before may run again, where a
        deployment says so: a machine registers after it was installed anew.
        """
        ledger, now = self._pump.ledger, self._pump.clock()
        facts = ledger.fleet.machine(machine)
        if replaced and facts is not None:
            replace_target(ledger, replaced, facts, now)
        self._pump.presence.register(machine, now)
        self._pump.wake()
