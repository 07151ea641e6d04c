"""Which machines may take part. It is asked at every join and every stream, so it is kept in memory."""

from __future__ import annotations

from fleetcast_kit.errors import FailedPreconditionError

from fleetcast_scheduler.machines.domain.machine import Machine, MachineState, RegistrationAction, RegistrationPolicy
from fleetcast_scheduler.machines.store import MachineStore


class Admission:
    """The machines that may not take part, and the policy for those that have not registered."""

    def __init__(self) -> None:
        self._approved: set[str] = set()
        self._held: set[str] = set()
        self._removed: set[str] = set()
        self.policy = RegistrationPolicy()

    async def start(self, store: MachineStore) -> None:
        """Reads which machines are held or removed. To be awaited before the server opens its port."""
        async with store.transaction(reads_only=True) as tables:
            self._approved = await tables.in_state(MachineState.APPROVED)
            self._held = await tables.in_state(MachineState.HELD)
            self._removed = await tables.removed()
            self.policy = await tables.policy()

    def check(self, name: str) -> None:
        """Lets a machine take part, or raises. One that never registered may, if unknown machines are accepted.

        Raises:
            FailedPreconditionError: an operator must approve the machine first, or it must register.
        """
        if name in self._approved:
            return
        about = {"machine": name}
        if name in self._held:
            raise FailedPreconditionError(
                f"{name} is held until an operator approves it: fleetcast machine approve {name.partition('/')[2]}",
                reason="MACHINE_HELD",
                metadata=about,
            )
        if name in self._removed:
            raise FailedPreconditionError(
                f"{name} was removed and must register anew: run `fleetcast-agent run` on it",
                reason="MACHINE_REMOVED",
                metadata=about,
            )
        if self.policy.action is not RegistrationAction.ACCEPT:
            raise FailedPreconditionError(
                f"{name} has not registered, and unknown machines are not accepted here: run `fleetcast-agent run` on "
                "it, then an operator approves it",
                reason="MACHINE_NOT_REGISTERED",
                metadata=about,
            )

    def put(self, machine: Machine) -> None:
        """A machine registered, or an operator approved it."""
        self._forget(machine.name)
        if machine.state is MachineState.HELD:
            self._held.add(machine.name)
        elif machine.state is MachineState.APPROVED:
            self._approved.add(machine.name)

    def remove(self, name: str) -> None:
        """An operator removed a machine."""
        self._forget(name)
        self._removed.add(name)

    def _forget(self, name: str) -> None:
        for names in (self._approved, self._held, self._removed):
            names.discard(name)
