"""Keeps the fleet in memory equal to the database: after each stored change it reads what changed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from fleetcast_scheduler.machines.domain.fleet import Fleet
from fleetcast_scheduler.machines.store import MachineStore

_PAGE_SIZE = 500
"""Machines read at once; between two pages others have their turn."""


class FleetKeeper:
    """Whoever changes a machine or a collection calls it; the result is in `fleet`."""

    def __init__(self, fleet: Fleet, store: MachineStore) -> None:
        self.fleet = fleet
        self.changed: Callable[[], None] = lambda: None
        """Called after the fleet changed."""
        self._store = store
        self._turn = asyncio.Lock()

    async def start(self) -> None:
        """Reads everything."""
        async with self._turn:
            async with self._store.transaction(reads_only=True) as tables:
                for collection in await tables.collections("", limit=1_000_000):
                    self.fleet.put_collection(collection)
                named = await tables.memberships()
            after = ""
            while True:
                async with self._store.transaction(reads_only=True) as tables:
                    machines = await tables.machines(after, _PAGE_SIZE)
                for machine in machines:
                    self.fleet.put_machine(machine, named.get(machine.name, set()))
                if len(machines) < _PAGE_SIZE:
                    break
                after = machines[-1].name
        self.changed()

    async def machines_changed(self, *names: str) -> None:
        """Machines were made, changed or removed."""
        async with self._turn:
            for name in filter(None, names):
                async with self._store.transaction(reads_only=True) as tables:
                    machine = await tables.machine(name)
                    named = await tables.memberships_of(name)
                if machine is None:
                    self.fleet.remove_machine(name)
                else:
                    self.fleet.put_machine(machine, named)
        self.changed()

    async def collection_changed(self, name: str) -> None:
        """A collection was made, changed or deleted, or its members were."""
        async with self._turn:
            async with self._store.transaction(reads_only=True) as tables:
                collection = await tables.collection(name)
                named = await tables.members(name)
            if collection is None:
                self.fleet.remove_collection(name)
            else:
                self.fleet.put_collection(collection)
                after = ""
                while True:
                    async with self._store.transaction(reads_only=True) as tables:
                        machines = await tables.machines(after, _PAGE_SIZE)
                    for machine in machines:
                        self.fleet.place(machine, name, named=machine.name in named)
                    if len(machines) < _PAGE_SIZE:
                        break
                    after = machines[-1].name
        self.changed()
