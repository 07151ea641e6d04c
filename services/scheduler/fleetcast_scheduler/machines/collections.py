"""What operators do with collections."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from fleetcast_kit.errors import AlreadyExistsError, FailedPreconditionError

from fleetcast_scheduler.audit.audit import Audit
from fleetcast_scheduler.machines.domain.collection import Collection, Rule
from fleetcast_scheduler.machines.domain.machine import Machine
from fleetcast_scheduler.machines.edits import changes, edited
from fleetcast_scheduler.machines.fleet_keeper import FleetKeeper
from fleetcast_scheduler.machines.store import MachineStore


class Collections:
    """Collections and the machines in them."""

    def __init__(self, store: MachineStore, audit: Audit, fleet: FleetKeeper, clock: Callable[[], float]) -> None:
        self._store = store
        self._audit = audit
        self._fleet = fleet
        self._clock = clock

    async def create(self, collection: Collection, request_id: str) -> Collection:
        """Makes a collection.

        Raises:
            AlreadyExistsError: there is one of that name.
        """
        collection = replace(collection, create_time=self._clock())
        async with self._store.transaction() as tables:
            present = await tables.collection(collection.name)
            if present is not None and await tables.audited(request_id):
                return present
            if present is not None:
                raise AlreadyExistsError(
                    f"there is a collection {collection.name} already: choose another name",
                    reason="COLLECTION_EXISTS",
                )
            await tables.put_collection(collection)
            await self._audit.record_in(tables, "collection.create", collection.name, request_id, rule=collection.rule)
        await self._fleet.collection_changed(collection.name)
        return collection

    async def get(self, name: str) -> tuple[Collection, int]:
        """Returns a collection and how many members by name it has.

        Raises:
            NotFoundError: there is none of that name.
        """
        async with self._store.transaction(reads_only=True) as tables:
            return await tables.require_collection(name), await tables.member_count(name)

    async def list_collections(self, after: str, limit: int) -> Sequence[tuple[Collection, int]]:
        """Returns collections and their numbers of members by name, in the order of names, after one."""
        async with self._store.transaction(reads_only=True) as tables:
            found = await tables.collections(after, limit)
            return [(collection, await tables.member_count(collection.name)) for collection in found]

    async def update(
        self, name: str, edit: Callable[[Collection], Collection], etag: str, request_id: str
    ) -> tuple[Collection, int]:
        """Returns a collection after an operator's edit.

        Raises:
            NotFoundError: there is none of that name.
            AbortedError: somebody else changed it since `etag` was read.
        """
        async with self._store.transaction() as tables:
            collection = await tables.require_collection(name)
            if not await tables.audited(request_id):
                before, collection = collection, edited(collection, edit(collection), etag)
                await tables.put_collection(collection)
                detail = changes(before, collection)
                await self._audit.record_in(tables, "collection.update", name, request_id, **detail)
            count = await tables.member_count(name)
        await self._fleet.collection_changed(name)
        return collection, count

    async def delete(self, name: str, request_id: str) -> None:
        """Deletes a collection.

        Raises:
            FailedPreconditionError: unknown machines become members of it.
        """
        async with self._store.transaction() as tables:
            if (await tables.policy()).collection == name:
                raise FailedPreconditionError(
                    f"{name} is where unknown machines go: set another registration policy first",
                    reason="COLLECTION_IN_USE",
                )
            if await tables.remove_collection(name):
                await self._audit.record_in(tables, "collection.delete", name, request_id)
        await self._fleet.collection_changed(name)

    async def change_members(
        self, name: str, machines: Sequence[str], request_id: str, *, add: bool
    ) -> tuple[Collection, int]:
        """Returns a collection after machines became members by name, or no longer are.

        Raises:
            NotFoundError: the collection, or a machine to add, does not exist.
        """
        async with self._store.transaction() as tables:
            collection = await tables.require_collection(name)
            if add:
                for machine in machines:
                    await tables.require_machine(machine)
                await tables.add_members(name, machines)
            else:
                await tables.remove_members(name, machines)
            action = "collection.add" if add else "collection.remove"
            await self._audit.record_in(tables, action, name, request_id, machines=" ".join(machines)[:4000])
            count = await tables.member_count(name)
        await self._fleet.collection_changed(name)
        return collection, count

    async def list_members(self, name: str, after: str, limit: int) -> list[Machine]:
        """Returns the machines of a collection, members by name and by rule, in the order of names, after one.

        Raises:
            NotFoundError: there is none of that name.
        """
        async with self._store.transaction(reads_only=True) as tables:
            collection = await tables.require_collection(name)
            named = await tables.members(name)
            if not collection.rule:
                return await tables.machines(after, limit, named)
            rule = Rule(collection.rule, stored=True)
            return await tables.select(after, limit, lambda machine: machine.name in named or rule.holds(machine))
