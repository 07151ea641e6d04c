"""Machines and collections in the database. Each use is one transaction."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from datetime import datetime
from typing import Any

from fleetcast_kit.database import Database
from fleetcast_kit.errors import NotFoundError
from sqlmodel import col, delete, func, or_, select
from sqlmodel.ext.asyncio.session import AsyncSession

from fleetcast_scheduler.audit.tables import AuditRow
from fleetcast_scheduler.machines.domain.collection import Collection
from fleetcast_scheduler.machines.domain.machine import (
    Disk,
    Inventory,
    Machine,
    MachineState,
    RegistrationAction,
    RegistrationPolicy,
)
from fleetcast_scheduler.machines.domain.maintenance import MaintenanceWindow
from fleetcast_scheduler.machines.tables import (
    CollectionRow,
    MachineIdentifierRow,
    MachineRow,
    MembershipRow,
    RemovedMachineRow,
    SettingRow,
)

_POLICY = "registration_policy"
_FETCH_COUNT = 500
"""Machines read at once when a rule is evaluated over all of them."""


class MachineStore:
    """Opens transactions."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @asynccontextmanager
    async def transaction(self, *, reads_only: bool = False) -> AsyncIterator[MachineTables]:
        """Yields the tables in one transaction: committed at the end, rolled back by an exception."""
        async with self._database.session(reads_only=reads_only) as session:
            yield MachineTables(session)


class MachineTables:
    """Machines and collections within one transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    # Machines

    async def machine(self, name: str) -> Machine | None:
        """Returns a machine, or None."""
        row = await self._session.get(MachineRow, name)
        return None if row is None else _machine_of(row)

    async def require_machine(self, name: str) -> Machine:
        """Returns a machine.

        Raises:
            NotFoundError: there is none of that name.
        """
        machine = await self.machine(name)
        if machine is None:
            raise NotFoundError(
                f"there is no machine {name!r}: `fleetcast machine list` shows what there is",
                reason="MACHINE_NOT_FOUND",
            )
        return machine

    async def put_machine(self, machine: Machine) -> None:
        """Inserts a machine, or replaces the one of that name."""
        await self._session.merge(MachineRow(**asdict(machine)))
        await self._session.exec(delete(MachineIdentifierRow).where(col(MachineIdentifierRow.machine) == machine.name))
        self._session.add_all(
            MachineIdentifierRow(machine=machine.name, kind=kind, value=value)
            for kind, values in machine.inventory.identifiers().items()
            for value in sorted(values)
        )

    async def remove_machine(self, name: str) -> bool:
        """Forgets a machine and its memberships; returns whether it was there."""
        row = await self._session.get(MachineRow, name)
        if row is None:
            return False
        await self._session.delete(row)
        for table in (MachineIdentifierRow, MembershipRow):
            await self._session.exec(delete(table).where(col(table.machine) == name))
        return True

    async def in_state(self, state: MachineState) -> set[str]:
        """Returns the names of the machines in a state."""
        statement = select(MachineRow.name).where(col(MachineRow.state) == state.value)
        return set(await self._session.exec(statement))

    async def put_removed(self, name: str, now: float) -> None:
        """Notes that an operator removed a machine."""
        await self._session.merge(RemovedMachineRow(name=name, remove_time=now))

    async def forget_removed(self, name: str) -> None:
        """A machine that was removed has registered again."""
        await self._session.exec(delete(RemovedMachineRow).where(col(RemovedMachineRow.name) == name))

    async def removed(self) -> set[str]:
        """Returns the machines that were removed and have not registered anew."""
        return set(await self._session.exec(select(RemovedMachineRow.name)))

    async def resembling(self, machine: Machine) -> list[Machine]:
        """Returns the other machines that share an identifier with this one."""
        shared = [
            (col(MachineIdentifierRow.kind) == kind) & col(MachineIdentifierRow.value).in_(values)
            for kind, values in machine.inventory.identifiers().items()
        ]
        if not shared:
            return []
        names = select(MachineIdentifierRow.machine).where(or_(*shared))
        statement = (
            select(MachineRow)
            .where(col(MachineRow.name).in_(names), col(MachineRow.name) != machine.name)
            .order_by(col(MachineRow.name))
        )
        return [_machine_of(row) for row in await self._session.exec(statement)]

    async def machines(self, after: str, limit: int, names: Iterable[str] | None = None) -> list[Machine]:
        """Returns machines in the order of names, after one; only those in `names` if given."""
        statement = select(MachineRow).where(col(MachineRow.name) > after)
        if names is not None:
            statement = statement.where(col(MachineRow.name).in_(names))
        rows = await self._session.exec(statement.order_by(col(MachineRow.name)).limit(limit))
        return [_machine_of(row) for row in rows]

    async def select(self, after: str, limit: int, chosen: Callable[[Machine], bool]) -> list[Machine]:
        """Returns the machines that are chosen, in the order of names, after one."""
        found: list[Machine] = []
        while True:
            machines = await self.machines(after, _FETCH_COUNT)
            found += filter(chosen, machines)
            if len(found) >= limit or len(machines) < _FETCH_COUNT:
                return found[:limit]
            after = machines[-1].name

    # Collections

    async def collection(self, name: str) -> Collection | None:
        """Returns a collection, or None."""
        row = await self._session.get(CollectionRow, name)
        return None if row is None else _collection_of(row)

    async def require_collection(self, name: str) -> Collection:
        """Returns a collection.

        Raises:
            NotFoundError: there is none of that name.
        """
        collection = await self.collection(name)
        if collection is None:
            raise NotFoundError(
                f"there is no collection {name.rpartition('/')[2]}: `fleetcast collection list` shows what there is",
                reason="COLLECTION_NOT_FOUND",
            )
        return collection

    async def collections(self, after: str, limit: int) -> list[Collection]:
        """Returns collections in the order of names, after one."""
        statement = select(CollectionRow).where(col(CollectionRow.name) > after).order_by(col(CollectionRow.name))
        return [_collection_of(row) for row in await self._session.exec(statement.limit(limit))]

    async def put_collection(self, collection: Collection) -> None:
        """Inserts a collection, or replaces the one of that name."""
        await self._session.merge(CollectionRow(**_collection_values(collection)))

    async def remove_collection(self, name: str) -> bool:
        """Deletes a collection; returns whether it was there."""
        row = await self._session.get(CollectionRow, name)
        if row is None:
            return False
        await self._session.delete(row)
        await self._session.exec(delete(MembershipRow).where(col(MembershipRow.collection) == name))
        return True

    async def add_members(self, collection: str, machines: Iterable[str]) -> None:
        """Makes machines members by name."""
        for machine in machines:
            await self._session.merge(MembershipRow(collection=collection, machine=machine))

    async def remove_members(self, collection: str, machines: Sequence[str]) -> None:
        """Ends memberships by name."""
        await self._session.exec(
            delete(MembershipRow).where(
                col(MembershipRow.collection) == collection, col(MembershipRow.machine).in_(machines)
            )
        )

    async def move_memberships(self, machine: str, successor: str) -> None:
        """Makes `successor` a member of what `machine` is a member of."""
        statement = select(MembershipRow.collection).where(col(MembershipRow.machine) == machine)
        for collection in list(await self._session.exec(statement)):
            await self.add_members(collection, [successor])

    async def members(self, collection: str) -> set[str]:
        """Returns the members by name."""
        statement = select(MembershipRow.machine).where(col(MembershipRow.collection) == collection)
        return set(await self._session.exec(statement))

    async def memberships(self) -> dict[str, set[str]]:
        """Returns the collections of which each machine is a member by name."""
        found: dict[str, set[str]] = {}
        for row in await self._session.exec(select(MembershipRow)):
            found.setdefault(row.machine, set()).add(row.collection)
        return found

    async def memberships_of(self, machine: str) -> set[str]:
        """Returns the collections of which a machine is a member by name."""
        statement = select(MembershipRow.collection).where(col(MembershipRow.machine) == machine)
        return set(await self._session.exec(statement))

    async def member_count(self, collection: str) -> int:
        """Returns how many members by name there are."""
        statement = select(func.count()).select_from(MembershipRow).where(col(MembershipRow.collection) == collection)
        return (await self._session.exec(statement)).one()

    # The installation

    async def policy(self) -> RegistrationPolicy:
        """Returns what becomes of unknown machines."""
        row = await self._session.get(SettingRow, _POLICY)
        if row is None:
            return RegistrationPolicy()
        imported = RegistrationAction(row.value.get("imported", RegistrationAction.ACCEPT))
        return RegistrationPolicy(RegistrationAction(row.value["action"]), row.value["collection"], imported)

    async def put_policy(self, policy: RegistrationPolicy) -> None:
        """Sets what becomes of unknown machines."""
        await self._session.merge(SettingRow(name=_POLICY, value=asdict(policy)))

    async def put_audit(self, row: dict[str, Any]) -> None:
        """Adds an entry to the record."""
        self._session.add(AuditRow(**row))

    async def audited(self, request_id: str) -> bool:
        """Returns whether a request was carried out already."""
        statement = select(AuditRow.name).where(col(AuditRow.request_id) == request_id).limit(1)
        return bool(request_id) and (await self._session.exec(statement)).first() is not None


def _machine_of(row: MachineRow) -> Machine:
    values = {column: getattr(row, column) for column in MachineRow.model_fields}
    return Machine(
        **values
        | {
            "state": MachineState(row.state),
            "inventory": _inventory_of(row.inventory),
            "claimed": None if row.claimed is None else _inventory_of(row.claimed),
        }
    )


def _inventory_of(value: dict[str, Any]) -> Inventory:
    disks = tuple(Disk(**disk) for disk in value["disks"])
    return Inventory(**value | {"mac_addresses": tuple(value["mac_addresses"]), "disks": disks})


def _collection_of(row: CollectionRow) -> Collection:
    values = {column: getattr(row, column) for column in CollectionRow.model_fields}
    windows = tuple(
        MaintenanceWindow(**window | {"start": datetime.fromisoformat(window["start"])})
        for window in row.maintenance_windows
    )
    return Collection(**values | {"maintenance_windows": windows})


def _collection_values(collection: Collection) -> dict[str, Any]:
    windows = [asdict(window) | {"start": window.start.isoformat()} for window in collection.maintenance_windows]
    return asdict(collection) | {"maintenance_windows": windows}
