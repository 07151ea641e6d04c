"""The fleet in memory: every machine with its collections, and whether a deployment may have it as a target."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, field, replace
from zoneinfo import ZoneInfo

from fleetcast_scheduler.machines.domain.collection import Collection, Rule
from fleetcast_scheduler.machines.domain.machine import Inventory, Machine, MachineState
from fleetcast_scheduler.machines.domain.maintenance import MaintenanceWindow


@dataclass(frozen=True, slots=True)
class MachineFacts:
    """What deployments need to know of one machine."""

    name: str
    display_name: str
    state: MachineState
    protected: bool
    zone: ZoneInfo
    variables: dict[str, str]
    mac_addresses: tuple[str, ...]
    collections: tuple[str, ...]
    """The collections it is in, in the order of names."""
    inventory: Inventory = field(default_factory=Inventory, compare=False)
    """No rule reads it, so a change of the inventory alone does not count as a change of the fleet."""


class Fleet:
    """Every machine and collection. Who changes one of them in the database tells the fleet afterwards."""

    def __init__(self, default_zone: ZoneInfo) -> None:
        self.default_zone = default_zone
        self._collections: dict[str, Collection] = {}
        self._rules: dict[str, Rule] = {}
        self._machines: dict[str, MachineFacts] = {}
        self.changed: set[str] = set()
        """Collections whose members or properties changed since the deployments last looked."""

    # Questions

    def machine(self, name: str) -> MachineFacts | None:
        """Returns a machine, or None."""
        return self._machines.get(name)

    def machines(self) -> list[MachineFacts]:
        """Returns every machine."""
        return list(self._machines.values())

    def collection(self, name: str) -> Collection | None:
        """Returns a collection, or None."""
        return self._collections.get(name)

    def members(self, collection: str) -> list[MachineFacts]:
        """Returns the machines in a collection, in the order of names."""
        found = [facts for facts in self._machines.values() if collection in facts.collections]
        return sorted(found, key=lambda facts: facts.name)

    def exclusion(self, facts: MachineFacts) -> str:
        """Returns why no deployment may target a machine now, in one sentence; empty if they may."""
        if facts.protected:
            return "it is protected"
        protecting = next((name for name in facts.collections if self._collections[name].protected), "")
        if protecting:
            return f"it is in {protecting}, which is protected"
        if facts.state is MachineState.HELD:
            return "it is held until an operator approves it"
        return ""

    def windows(self, facts: MachineFacts) -> tuple[MaintenanceWindow, ...]:
        """Returns the maintenance windows of a machine: those of all its collections."""
        return tuple(window for name in facts.collections for window in self._collections[name].maintenance_windows)

    def collection_variables(self, facts: MachineFacts) -> dict[str, str]:
        """Returns the variables of a machine's collections; of two with the same name, that of the later collection."""
        variables: dict[str, str] = {}
        for name in facts.collections:
            variables |= self._collections[name].variables
        return variables

    def variables(self, machine: str) -> dict[str, dict[str, str]]:
        """Returns the variables of a machine and of its collections, as Run.variables."""
        facts = self.machine(machine)
        if facts is None:
            return {"collection": {}, "machine": {}}
        return {"collection": self.collection_variables(facts), "machine": dict(facts.variables)}

    # Changes

    def put_collection(self, collection: Collection) -> None:
        """A collection was made or changed. If its rule or members changed, call `place` for every machine."""
        present = self._collections.get(collection.name)
        self._collections[collection.name] = collection
        self.changed.add(collection.name)
        if present is None or present.rule != collection.rule:
            self._rules.pop(collection.name, None)
            if collection.rule:
                self._rules[collection.name] = Rule(collection.rule, stored=True)

    def remove_collection(self, name: str) -> None:
        """A collection was deleted."""
        if self._collections.pop(name, None) is not None:
            self._rules.pop(name, None)
            self.changed.add(name)
            for facts in self.members(name):
                self._machines[facts.name] = replace(
                    facts, collections=tuple(other for other in facts.collections if other != name)
                )

    def put_machine(self, machine: Machine, named: Set[str]) -> None:
        """A machine was made or changed; `named` are the collections that it is a member of by name."""
        found = tuple(name for name in sorted(self._collections) if name in named or self._matches(name, machine))
        present = self._machines.get(machine.name)
        facts = MachineFacts(
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
        self._machines[machine.name] = facts
        if facts != present:
            self.changed.update(found, present.collections if present else ())

    def place(self, machine: Machine, collection: str, *, named: bool) -> None:
        """Evaluates again whether a machine is in a collection."""
        facts = self._machines.get(machine.name)
        if facts is None or collection not in self._collections:
            return
        others = {name for name in facts.collections if name != collection}
        if named or self._matches(collection, machine):
            others.add(collection)
        if len(others) != len(facts.collections) or others.symmetric_difference(facts.collections):
            self._machines[machine.name] = replace(facts, collections=tuple(sorted(others)))
            self.changed.add(collection)

    def remove_machine(self, name: str) -> None:
        """A machine was forgotten."""
        facts = self._machines.pop(name, None)
        if facts is not None:
            self.changed.update(facts.collections)

    def _matches(self, collection: str, machine: Machine) -> bool:
        rule = self._rules.get(collection)
        return rule is not None and rule.holds(machine)
