"""What machines and operators do with machines."""

from __future__ import annotations

import hashlib
import logging
import secrets
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace

from fleetcast_kit.errors import AlreadyExistsError, FailedPreconditionError

from fleetcast_scheduler.audit.audit import Audit
from fleetcast_scheduler.machines.admission import Admission
from fleetcast_scheduler.machines.domain.collection import Rule
from fleetcast_scheduler.machines.domain.machine import (
    ImportRow,
    Inventory,
    Machine,
    MachineState,
    RegistrationPolicy,
    resemblance,
)
from fleetcast_scheduler.machines.domain.registration import (
    Registered,
    approved,
    held_as_other,
    is_other_hardware,
    recognised,
    register,
    taken_over,
)
from fleetcast_scheduler.machines.edits import changes, edited
from fleetcast_scheduler.machines.fleet_keeper import FleetKeeper
from fleetcast_scheduler.machines.store import MachineStore, MachineTables

_logger = logging.getLogger(__name__)

_NAMED_CONFLICTS = 8
"""Rows named in an error at most: it goes with the headers, which have 8 KiB."""


class Machines:
    """What is done with machines: each change is decided by the rules, stored, recorded, and told to the fleet."""

    def __init__(self, store: MachineStore, audit: Audit, fleet: FleetKeeper, clock: Callable[[], float]) -> None:
        self._store = store
        self._audit = audit
        self._fleet = fleet
        self._clock = clock
        self.registered: Callable[[str, str], None] = lambda _machine, _replaced: None
        """Called with a machine that has registered, and the imported record whose place it took, if any."""
        self.removed: list[Callable[[str, str], None]] = []
        """Called with a machine that was removed or is held, and why: whatever it takes part in ends at once."""
        self.code_of: Callable[[str], Awaitable[str]] = _no_code
        """Returns the code of a machine that started from the network without a ticket; empty for others."""
        self.admits: Callable[[str], bool] = lambda _record: False
        """Returns whether a machine that knocks takes over an imported record, with which it agrees."""
        self.admitted: Callable[[str], Awaitable[None]] = _nobody_counts
        """Called with the imported record that a machine that knocked has taken over."""
        self.admission = Admission()

    async def start(self) -> None:
        """Reads which machines may take part. To be awaited before the server opens its port."""
        await self.admission.start(self._store)

    def admit(self, name: str) -> str:
        """Returns the name that operators know a machine by that joins; empty if they gave it none.

        Raises:
            FailedPreconditionError: it is held, was removed, or must register first.
        """
        self.admission.check(name)
        known = self._fleet.fleet.machine(name)
        return known.display_name if known else ""

    # Machines

    async def register(self, name: str, display_name: str, inventory: Inventory, time_zone: str) -> Machine:
        """Returns the record of a machine that registers.

        Raises:
            FailedPreconditionError: the policy refuses unknown machines.
        """
        now = self._clock()
        code = await self.code_of(name)
        async with self._store.transaction() as tables:
            known = await tables.machine(name)
            present = replace(
                known or Machine(name=name, create_time=now, display_name=display_name),
                inventory=inventory,
                time_zone=time_zone,
                register_time=now,
            )
            others = await tables.resembling(present)
            registered = register(present, others, await tables.policy(), known=known, code=code)
            record = recognised(present, others) if code and known is None else None
            admitted = record is not None and self.admits(record.name)
            if record is not None and admitted:
                registered = Registered(taken_over(replace(present, code=code), record), replaces=record.name)
            if registered is None:
                raise FailedPreconditionError(
                    f"{display_name or name} is not known, and unknown machines are refused here: import it first, "
                    "with its SMBIOS UUID, serial number or MAC address",
                    reason="MACHINE_REFUSED",
                    metadata={"machine": name},
                )
            newly_held = registered.machine.state is MachineState.HELD and (known is None or known.state != "HELD")
            await tables.put_machine(registered.machine)
            await tables.forget_removed(name)
            if registered.replaces:
                await tables.move_memberships(registered.replaces, name)
                await tables.remove_machine(registered.replaces)
            if registered.collection and await tables.collection(registered.collection):
                await tables.add_members(registered.collection, [name])
            if known is None:
                await self._audit.record_in(
                    tables, "machine.register", name, state=registered.machine.state, replaces=registered.replaces
                )
            if newly_held:
                await self._audit.record_in(tables, "machine.hold", name, reason=registered.machine.held_reason)
        if newly_held:
            _logger.warning("%s (%s) is held: it %s", name, display_name, registered.machine.held_reason)
        if admitted:
            await self.admitted(registered.replaces)
        self.admission.put(registered.machine)
        await self._fleet.machines_changed(name)
        self.registered(name, registered.replaces)
        await self._fleet.machines_changed(registered.replaces)
        return registered.machine

    async def hold(self, name: str, reason: str) -> None:
        """Holds a machine until an operator approves it, and ends whatever it takes part in."""
        async with self._store.transaction() as tables:
            machine = replace(await tables.require_machine(name), state=MachineState.HELD, held_reason=reason)
            await tables.put_machine(machine)
            await self._audit.record_in(tables, "machine.hold", name, reason=reason)
        await self._held(machine)

    async def require_same_hardware(
        self, name: str, display_name: str, now: Inventory, live: Iterable[Inventory]
    ) -> None:
        """Lets a machine take part from the hardware that it is known by and takes part from, or holds it and raises.

        `now` is what it says of itself, `live` the hardware from which the same identity takes part already.

        Raises:
            FailedPreconditionError: it is other hardware.
        """
        facts = self._fleet.fleet.machine(name)
        known_by = [*([] if facts is None else [facts.inventory]), *live]
        before = next((one for one in known_by if is_other_hardware(one, now)), None)
        if before is None:
            return
        async with self._store.transaction() as tables:
            known = await tables.machine(name)
            known = known or Machine(name=name, create_time=self._clock(), display_name=display_name, inventory=before)
            machine = held_as_other(known, before, _with_identifiers(known.inventory, now), "takes part")
            await tables.put_machine(machine)
            await self._audit.record_in(tables, "machine.hold", name, reason=machine.held_reason)
        await self._held(machine)
        self.admission.check(name)

    async def _held(self, machine: Machine) -> None:
        """Ends whatever a machine takes part in that is held now."""
        reason = f"it {machine.held_reason}"
        _logger.warning("%s (%s) is held: %s", machine.name, machine.display_name, reason)
        self.admission.put(machine)
        await self._fleet.machines_changed(machine.name)
        self._end(machine.name, f"the machine is held: {reason}")

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
                others = await tables.resembling(machine)
                found = [(other, resemblance(row.inventory, other.inventory)) for other in others]
                conflicts += [
                    f"{row.display_name or 'a machine without a name'!r} has the {kinds[0]} of {other.name} "
                    f"({other.display_name})"
                    for other, kinds in [one for one in found if one[1]][:1]
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
                await self._forget(tables, as_machine)
            machine = approved(machine)
            await tables.put_machine(machine)
            await self._audit.record_in(tables, "machine.approve", name, request_id, as_machine=as_machine)
        self.admission.put(machine)
        await self._fleet.machines_changed(name, as_machine)
        if as_machine:
            self._end_removed(as_machine)
        return machine

    async def remove(self, name: str, request_id: str) -> tuple[Machine | None, set[str]]:
        """Forgets a machine. Returns what is lost: its record, if there was one, and its collections by name."""
        async with self._store.transaction() as tables:
            machine = await tables.machine(name)
            collections = await tables.memberships_of(name)
            if machine is not None:
                await self._forget(tables, name)
                await self._audit.record_in(tables, "machine.remove", name, request_id)
        await self._fleet.machines_changed(name)
        if machine is not None:
            self._end_removed(name)
        return machine, collections

    async def _forget(self, tables: MachineTables, name: str) -> None:
        await tables.remove_machine(name)
        await tables.put_removed(name, self._clock())

    def _end_removed(self, name: str) -> None:
        """Ends whatever a machine that was removed takes part in."""
        self.admission.remove(name)
        self._end(name, "an operator removed the machine")

    def _end(self, name: str, error: str) -> None:
        for removed in self.removed:
            removed(name, error)

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
                imported=policy.imported,
            )
        self.admission.policy = policy
        return policy


def _names(request_id: str, count: int) -> list[str]:
    """Returns names for imported machines; the same ones for the same request."""
    seed = request_id or secrets.token_hex(16)
    return [
        f"machines/expected-{hashlib.sha256(f'{seed} {number}'.encode()).hexdigest()[:12]}" for number in range(count)
    ]


def _with_identifiers(inventory: Inventory, now: Inventory) -> Inventory:
    """Returns an inventory with what tells the machine from others as it is now."""
    return replace(
        inventory,
        smbios_uuid=now.smbios_uuid,
        serial_number=now.serial_number,
        mac_addresses=now.mac_addresses,
    )


async def _no_code(_machine: str) -> str:
    return ""


async def _nobody_counts(_record: str) -> None:
    pass
