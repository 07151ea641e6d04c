"""What deployments need to know of machines and collections, at hand: who is where, and may be targeted."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, field, replace
from zoneinfo import ZoneInfo

from fleetcast_scheduler.machines.domain.collection import Collection, Rule
from fleetcast_scheduler.machines.domain.machine import Inventory, Machine, MachineState
from fleetcast_scheduler.machines.domain.maintenance import MaintenanceWindow


@dataclass(frozen=True, slots=True)
class Resident:
    """A machine, as far as deployments care."""

    name: str
    display_name: str
    state: MachineState
    protected: bool
    zone: ZoneInfo
    variables: dict[str, str]
    mac_addresses: tuple[str, ...]
    collections: tuple[str, ...]
    """Those it is in, in the order of names."""
    inventory: Inventory = field(default_factory=Inventory, compare=False)
    """Nothing is decided by it, so a change of it alone is none of the census."""


class Census:
    """Every machine and collection. Kept true by those who change them, after the change is stored."""

    def __init__(self, default_zone: ZoneInfo) -> None:
        self.default_zone = default_zone
        self._collections: dict[str, Collection] = {}
        self._rules: dict[str, Rule] = {}
        self._residents: dict[str, Resident] = {}
        self.changed: set[str] = set()
        """Collections whose members or properties changed since somebody looked."""

    # Asking

    def machine(self, name: str) -> Resident | None:
        """Returns a machine, or None."""
        return self._residents.get(name)

    def collection(self, name: str) -> Collection | None:
        """Returns a collection, or None."""
        return self._collections.get(name)

    def members(self, collection: str) -> list[Resident]:
        """Returns the machines in a collection, in the order of names."""
        found = [resident for resident in self._residents.values() if collection in resident.collections]
        return sorted(found, key=lambda resident: resident.name)

    def exclusion(self, resident: Resident) -> str:
        """Returns why a machine can never be targeted now, in one sentence; empty if it can."""
        if resident.protected:
            return "it is protected"
        protecting = next((name for name in resident.collections if self._collections[name].protected), "")
        if protecting:
            return f"it is in {protecting}, which is protected"
        if resident.state is MachineState.HELD:
            return "it is held until an operator approves it"
        return ""

    def windows(self, resident: Resident) -> tuple[MaintenanceWindow, ...]:
        """Returns the maintenance windows of a machine: those of all its collections."""
        return tuple(window for name in resident.collections for window in self._collections[name].maintenance_windows)

    def collection_variables(self, resident: Resident) -> dict[str, str]:
        """Returns the variables of a machine's collections; of two with the same name, that of the later collection."""
        variables: dict[str, str] = {}
        for name in resident.collections:
            variables |= self._collections[name].variables
        return variables

    def variables(self, machine: str) -> dict[str, dict[str, str]]:
        """Returns the variables of a machine and of its collections, as Run.variables."""
        resident = self.machine(machine)
        if resident is None:
            return {"collection": {}, "machine": {}}
        return {"collection": self.collection_variables(resident), "machine": dict(resident.variables)}

    # Telling

    def put_collection(self, collection: Collection) -> None:
        """A collection was made or changed. Where its rule or members changed, `place` must follow."""
        present = self._collections.get(collection.name)
        self._collections[collection.name] = collection
        self.changed.add(collection.name)
        if present is None or present.rule != collection.rule:
            self._rules.pop(collection.name, None)
            if collection.rule:
                self._rules[collection.name] = Rule(collection.rule)

    def remove_collection(self, name: str) -> None:
        """A collection was deleted."""
        if self._collections.pop(name, None) is not None:
            self._rules.pop(name, None)
            self.changed.add(name)
            for resident in self.members(name):
                self._residents[resident.name] = replace(
                    resident, collections=tuple(other for other in resident.collections if other != name)
                )

    def put_machine(self, machine: Machine, named: Set[str]) -> None:
        """A machine was made or changed; `named` are the collections that it is a member of by name."""
        found = tuple(name for name in sorted(self._collections) if name in named or self._matches(name, machine))
        present = self._residents.get(machine.name)
        resident = Resident(
            name=machine.name,
            display_name=machine.display_name,
            state=machine.state,
            protected=machine.protected,
            zone=ZoneInfo(machine.time_zone) if machine.time_zone else self.default_zone,
            variables=machine.variables,
            mac_addresses=machine.inventory.mac_addresses,
            collections=found,
            inventory=machine.inventory,
        )
        self._residents[machine.name] = resident
        if resident != present:
            self.changed.update(found, present.collections if present else ())

    def place(self, machine: Machine, collection: str, *, named: bool) -> None:
        """Looks up anew whether a machine is in a collection."""
        resident = self._residents.get(machine.name)
        if resident is None or collection not in self._collections:
            return
        others = {name for name in resident.collections if name != collection}
        if named or self._matches(collection, machine):
            others.add(collection)
        if len(others) != len(resident.collections) or others.symmetric_difference(resident.collections):
            self._residents[machine.name] = replace(resident, collections=tuple(sorted(others)))
            self.changed.add(collection)

    def remove_machine(self, name: str) -> None:
        """A machine was forgotten."""
        resident = self._residents.pop(name, None)
        if resident is not None:
            self.changed.update(resident.collections)

    def _matches(self, collection: str, machine: Machine) -> bool:
        rule = self._rules.get(collection)
        return rule is not None and rule.holds(machine)
