"""What a registration makes of a machine: known, a new record, or the place of an imported record that it matches."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from fleetcast_kit.values import hardware

from fleetcast_scheduler.machines.domain.machine import (
    Inventory,
    Machine,
    MachineState,
    RegistrationAction,
    RegistrationPolicy,
    resemblance,
)


@dataclass(frozen=True, slots=True)
class Registered:
    """What a registration comes to."""

    machine: Machine
    replaces: str = ""
    """Record whose place it takes; that one is removed and its memberships move."""
    collection: str = ""
    """Collection that it becomes a member of."""


def register(
    present: Machine, others: Iterable[Machine], policy: RegistrationPolicy, *, known: Machine | None, code: str = ""
) -> Registered | None:
    """Returns what becomes of a machine that registers; None if it is refused.

    `present` is the record with what it says of itself, `known` is that from before if it has registered already. A
    known machine stays what it is while its hardware is the same, whatever the policy. An imported record is taken over
    when two identifiers agree and the policy does not hold imported machines. A record of a machine that has registered
    is never taken over without an operator, or a machine could become another one by saying so.

    `code` is that of its key if it started from the network without a ticket.
    """
    if known is not None and known.state is MachineState.EXPECTED:
        # Only a ticket gives the identity of a record that has never registered.
        known = replace(known, state=MachineState.APPROVED)
        present = replace(present, state=MachineState.APPROVED)
    if known is not None:
        return Registered(_registered_again(present, others, known))
    if code:
        return _knocking(replace(present, code=code), _resembling(present.inventory, others))
    resembling = _resembling(present.inventory, others)
    for count, other, kinds in resembling:
        rivals = [rival for rival_count, rival, _ in resembling if rival_count == count]
        imported = other.state is MachineState.EXPECTED and count > 1 and len(rivals) == 1
        if imported and policy.imported is RegistrationAction.ACCEPT:
            return Registered(taken_over(present, other), replaces=other.name)
        reason = f"has the same {' and '.join(kinds)} as {other.name}"
        if imported:
            reason += f" ({other.display_name or 'no name'}), which was imported: approve it as that one"
        return Registered(replace(present, state=MachineState.HELD, held_reason=reason, resembles=other.name))
    if policy.action is RegistrationAction.REFUSE:
        return None
    if policy.action is RegistrationAction.HOLD:
        return Registered(replace(present, state=MachineState.HELD, held_reason="is not known"))
    return Registered(present, collection=policy.collection)


def is_other_hardware(before: Inventory, now: Inventory) -> bool:
    """Returns whether no identifier is what it was, of those that can be compared."""
    return hardware.is_other_hardware(before.identifiers(), now.identifiers())


def held_as_other(known: Machine, before: Inventory, now: Inventory, does: str) -> Machine:
    """Returns a machine that is held since its identity comes from other hardware; `does` says how: `registers`."""
    difference = hardware.difference(before.identifiers(), now.identifiers())
    reason = (
        f"{does} from other hardware ({difference}): the state directory of its agent was copied, or its hardware was "
        "replaced"
    )
    return replace(known, state=MachineState.HELD, held_reason=reason, resembles="", claimed=now)


def taken_over(machine: Machine, record: Machine) -> Machine:
    """Returns a machine with what an operator had set for `record`, approved."""
    return replace(
        machine,
        state=MachineState.APPROVED,
        held_reason="",
        resembles="",
        display_name=record.display_name or machine.display_name,
        variables=record.variables | machine.variables,
        protected=record.protected or machine.protected,
        edit_count=machine.edit_count + 1,
    )


def approved(machine: Machine) -> Machine:
    """Returns a machine that an operator approved: what it says of itself is what it is."""
    return replace(
        machine,
        state=MachineState.APPROVED,
        held_reason="",
        resembles="",
        inventory=machine.claimed or machine.inventory,
        claimed=None,
        edit_count=machine.edit_count + 1,
    )


def recognised(present: Machine, others: Iterable[Machine]) -> Machine | None:
    """Returns the imported record that a machine agrees with in two identifiers, if it is the only one."""
    expected = [other for count, other, _ in _resembling(present.inventory, others) if _is_imported(count, other)]
    return expected[0] if len(expected) == 1 else None


def _is_imported(count: int, other: Machine) -> bool:
    return other.state is MachineState.EXPECTED and count > 1


def _knocking(present: Machine, resembling: list[tuple[int, Machine, list[str]]]) -> Registered:
    """Returns what becomes of a machine that started from the network without a ticket: it is held.

    It has a new key at each start, so it takes the place of the record that it left when it knocked before.
    """
    reason = f"started from the network: approve it if its screen shows {present.code}"
    before = ""
    for count, other, kinds in resembling:
        if other.state is MachineState.HELD and other.code and count > 1:
            before = before or other.name
        elif not present.resembles:
            reason += f"; it has the same {' and '.join(kinds)} as {other.name} ({other.display_name or 'no name'})"
            present = replace(present, resembles=other.name)
    return Registered(replace(present, state=MachineState.HELD, held_reason=reason), replaces=before)


def _registered_again(present: Machine, others: Iterable[Machine], known: Machine) -> Machine:
    """Returns a machine that has registered before: held if it says that it is other hardware, or another machine.

    Then it keeps what was known of it, so that no rule of a collection takes it for what it claims to be.
    """
    before, now = known.inventory, present.inventory
    if is_other_hardware(before, now):
        if known.claimed is not None:
            return known  # a third copy: what the operator is to decide stays the same
        return held_as_other(known, before, now, "registers")
    for _, other, kinds in _resembling(now, others):
        fresh = [kind for kind in kinds if _shared(kind, now, other.inventory) - before.identifiers().get(kind, set())]
        if fresh:
            reason = f"says that it has the {' and '.join(fresh)} of {other.name} ({other.display_name or 'no name'})"
            return replace(known, state=MachineState.HELD, held_reason=reason, resembles=other.name, claimed=now)
    return replace(present, inventory=_completed(now, before))


def _resembling(inventory: Inventory, others: Iterable[Machine]) -> list[tuple[int, Machine, list[str]]]:
    """Returns the machines that may be this one, with the kinds of identifiers that say so and their number."""
    found = [(other, resemblance(inventory, other.inventory)) for other in others]
    counted = [(len(kinds), other, kinds) for other, kinds in found if kinds]
    return sorted(counted, key=lambda one: (-one[0], one[1].name))


def _shared(kind: str, one: Inventory, other: Inventory) -> frozenset[str]:
    return one.identifiers().get(kind, frozenset()) & other.identifiers().get(kind, frozenset())


def _completed(now: Inventory, before: Inventory) -> Inventory:
    """Returns an inventory with the identifiers from before where nothing is said now: a machine does not lose them."""
    return replace(
        now,
        smbios_uuid=now.smbios_uuid or before.smbios_uuid,
        serial_number=now.serial_number or before.serial_number,
        mac_addresses=now.mac_addresses or before.mac_addresses,
    )
