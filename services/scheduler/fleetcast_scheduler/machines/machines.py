"""What machines and operators do with machines."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace

from fleetcast_kit.errors import AlreadyExistsError, FailedPreconditionError

from fleetcast_scheduler.audit.audit import Audit
from fleetcast_scheduler.machines.domain.collection import Rule
from fleetcast_scheduler.machines.domain.machine import (
    ImportRow,
    Inventory,
    Machine,
    MachineState,
    RegistrationPolicy,
    agreement,
    register,
    taken_over,
)
from fleetcast_scheduler.machines.edits import changes, edited
from fleetcast_scheduler.machines.fleet_keeper import FleetKeeper
from fleetcast_scheduler.machines.store import MachineStore

_NAMED_CONFLICTS = 8
"""Rows named in an error at most: it goes with the headers, which have 8 KiB."""


class Machines:
    """Machines, around their rules."""

    def __init__(self, store: MachineStore, audit: Audit, fleet: FleetKeeper, clock: Callable[[], float]) -> None:
        self._store = store
        self._audit = audit
        self._fleet = fleet
        self._clock = clock
        self.registered: Callable[[str, str], None] = lambda _machine, _replaced: None
        """Called with a machine that has registered, and the imported record whose place it took, if any."""
        self._held: set[str] = set()

    async def start(self) -> None:
        """Learns which machines are held. To be awaited before the server opens its port."""
        async with self._store.transaction(reads_only=True) as tables:
            self._held = await tables.held()

    def check_admission(self, name: str) -> None:
        """Returns if a machine may join sessions; one that never registered may.

        Raises:
            FailedPreconditionError: an operator must approve it first.
        """
        if name in self._held:
            raise FailedPreconditionError(
                f"{name} is held until an operator approves it", reason="MACHINE_HELD", metadata={"machine": name}
            )

    def admit(self, name: str) -> str:
        """Returns the name that operators know a machine by that joins; empty if they gave it none.

        Raises:
            FailedPreconditionError: an operator must approve it first.
        """
        self.check_admission(name)
        known = self._fleet.fleet.machine(name)
        return known.display_name if known else ""

    # Machines

    async def register(self, name: str, display_name: str, inventory: Inventory, time_zone: str) -> Machine:
        """Returns the record of a machine that registers.

        Raises:
            FailedPreconditionError: the policy refuses unknown machines.
        """
        now = self._clock()
        async with self._store.transaction() as tables:
            known = await tables.machine(name)
            present = replace(
                known or Machine(name=name, create_time=now, display_name=display_name),
                inventory=inventory,
                time_zone=time_zone,
                register_time=now,
            )
            others = [] if known else await tables.resembling(present)
            registered = register(present, others, await tables.policy(), known=known is not None)
            if registered is None:
                raise FailedPreconditionError(
                    f"{display_name or name} is not known, and unknown machines are refused here: import it first, "
                    "with its SMBIOS UUID, serial number or MAC address",
                    reason="MACHINE_REFUSED",
                    metadata={"machine": name},
                )
            await tables.put_machine(registered.machine)
            if registered.replaces:
                await tables.move_memberships(registered.replaces, name)
                await tables.remove_machine(registered.replaces)
            if registered.collection and await tables.collection(registered.collection):
                await tables.add_members(registered.collection, [name])
            if known is None:
                await self._audit.record_in(
                    tables, "machine.register", name, state=registered.machine.state, replaces=registered.replaces
                )
        if registered.machine.state is MachineState.HELD:
            self._held.add(name)
        await self._fleet.machines_changed(name)
        self.registered(name, registered.replaces)
        await self._fleet.machines_changed(registered.replaces)
        return registered.machine

    async def get(self, name: str) -> Machine:
        """Returns a machine.

        Raises:
            NotFoundError: there is none of that name.
        """
        async with self._store.transaction(reads_only=True) as tables:
            return await tables.require_machine(name)

    async def list_machines(self, after: str, limit: int, filter_text: str) -> list[Machine]:
        """Returns machines in the order of names, after one; only those for which an expression holds.

        Raises:
            InvalidArgumentError: the expression cannot be read.
        """
        async with self._store.transaction(reads_only=True) as tables:
            if not filter_text:
                return await tables.machines(after, limit)
            return await tables.select(after, limit, Rule(filter_text).holds)

    async def update(self, name: str, edit: Callable[[Machine], Machine], etag: str, request_id: str) -> Machine:
        """Returns a machine after an operator's edit.

        Raises:
            NotFoundError: there is none of that name.
            AbortedError: somebody else changed it since `etag` was read.
        """
        async with self._store.transaction() as tables:
            machine = await tables.require_machine(name)
            if await tables.audited(request_id):
                return machine
            before, machine = machine, edited(machine, edit(machine), etag)
            await tables.put_machine(machine)
            await self._audit.record_in(tables, "machine.update", name, request_id, **changes(before, machine))
        await self._fleet.machines_changed(name)
        return machine

    async def import_rows(self, rows: Sequence[ImportRow], request_id: str) -> list[Machine]:
        """Returns the machines of an import, in the order of its rows; all of them or, by an error, none.

        Raises:
            AlreadyExistsError: one is known already.
            NotFoundError: a collection does not exist.
        """
        made: list[Machine] = []
        conflicts: list[str] = []
        async with self._store.transaction() as tables:
            names = _names(request_id, len(rows))
            if await tables.audited(request_id):
                return [machine for name in names if (machine := await tables.machine(name)) is not None]
            for name, row in zip(names, rows, strict=True):
                machine = Machine(
                    name=name,
                    create_time=self._clock(),
                    display_name=row.display_name,
                    state=MachineState.EXPECTED,
                    inventory=row.inventory,
                    variables=row.variables,
                )
                conflicts += [
                    f"{row.display_name or 'a machine without a name'!r} has the "
                    f"{agreement(machine.inventory, other.inventory)[0]} of {other.name} ({other.display_name})"
                    for other in (await tables.resembling(machine))[:1]
                ]
                await tables.put_machine(machine)
                if row.collection:
                    await tables.require_collection(row.collection)
                    await tables.add_members(row.collection, [machine.name])
                made.append(machine)
            if conflicts:
                more = len(conflicts) - _NAMED_CONFLICTS
                raise AlreadyExistsError(
                    "; ".join(conflicts[:_NAMED_CONFLICTS])
                    + (f"; and {more} more" if more > 0 else "")
                    + ": remove one of each pair first; nothing was imported",
                    reason="MACHINE_EXISTS",
                )
            await self._audit.record_in(tables, "machine.import", "machines", request_id, count=len(made))
        await self._fleet.machines_changed(*names)
        return made

    async def approve(self, name: str, as_machine: str, request_id: str) -> Machine:
        """Returns a machine that an operator approved, with what `as_machine` had, if given.

        Raises:
            NotFoundError: one of them does not exist.
            FailedPreconditionError: it has not registered.
        """
        async with self._store.transaction() as tables:
            machine = await tables.require_machine(name)
            if await tables.audited(request_id):
                return machine
            if machine.state is MachineState.EXPECTED:
                raise FailedPreconditionError(
                    f"{name} was imported and has not registered: there is nothing to approve", reason="NOT_REGISTERED"
                )
            if as_machine:
                machine = taken_over(machine, await tables.require_machine(as_machine))
                await tables.move_memberships(as_machine, name)
                await tables.remove_machine(as_machine)
            machine = replace(
                machine,
                state=MachineState.APPROVED,
                held_reason="",
                resembles="",
                edit_count=machine.edit_count + 1,
            )
            await tables.put_machine(machine)
            await self._audit.record_in(tables, "machine.approve", name, request_id, as_machine=as_machine)
        self._held.discard(name)
        await self._fleet.machines_changed(name, as_machine)
        return machine

    async def remove(self, name: str, request_id: str) -> None:
        """Forgets a machine."""
        async with self._store.transaction() as tables:
            if await tables.remove_machine(name):
                await self._audit.record_in(tables, "machine.remove", name, request_id)
        self._held.discard(name)
        await self._fleet.machines_changed(name)

    async def policy(self) -> RegistrationPolicy:
        """Returns what becomes of unknown machines."""
        async with self._store.transaction(reads_only=True) as tables:
            return await tables.policy()

    async def set_policy(self, policy: RegistrationPolicy, request_id: str) -> RegistrationPolicy:
        """Sets what becomes of unknown machines.

        Raises:
            NotFoundError: the collection does not exist.
        """
        async with self._store.transaction() as tables:
            if policy.collection:
                await tables.require_collection(policy.collection)
            await tables.put_policy(policy)
            await self._audit.record_in(
                tables,
                "registration-policy.set",
                "machines",
                request_id,
                policy=policy.action,
                collection=policy.collection,
            )
            return policy


def _names(request_id: str, count: int) -> list[str]:
    """Returns names for imported machines; the same ones for the same request."""
    seed = request_id or secrets.token_hex(16)
    return [
        f"machines/expected-{hashlib.sha256(f'{seed} {number}'.encode()).hexdigest()[:12]}" for number in range(count)
    ]
