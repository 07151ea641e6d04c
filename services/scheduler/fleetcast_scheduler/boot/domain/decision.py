"""What a machine that starts from the network is answered."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from fleetcast_scheduler.machines.domain.fleet import MachineFacts
from fleetcast_scheduler.machines.domain.machine import MachineState

SETTING = "boot"
"""The variable of a machine or a collection that says how it is answered."""

MAX_TICKETS_OF_A_RUN = 5
"""A machine that starts the boot image more often for one run does not get on by starting it again."""


class Answer(StrEnum):
    """What becomes of the machine."""

    INSTALL = "INSTALL"
    KNOCK = "KNOCK"
    LOCAL = "LOCAL"
    SILENT = "SILENT"


@dataclass(frozen=True, slots=True)
class Asker:
    """A machine as it shows itself before it has a system; all of it can be forged."""

    mac_address: str
    smbios_uuids: frozenset[str] = frozenset()
    """What its UUID may be; empty if it does not say."""
    firmware: str = ""
    way: str = ""


@dataclass(frozen=True, slots=True)
class Work:
    """What a machine has to do in the boot environment."""

    run: str
    """Name of the run, which may not have begun."""
    tickets: int = 0
    """How often it has been given a ticket for it."""


@dataclass(frozen=True, slots=True)
class Decision:
    """An answer, and why."""

    answer: Answer
    reason: str
    machine: str = ""
    """The record that it is taken for, `machines/{id}`; empty if for none."""
    display_name: str = ""


@dataclass(frozen=True, slots=True)
class RecordMatch:
    """A record that agrees with what a machine shows."""

    facts: MachineFacts
    uuid: bool
    mac: bool
    contradicted: bool
    """Whether another identifier is known of both and differs."""

    @property
    def sure(self) -> bool:
        """Whether two identifiers agree, and none differs."""
        return self.uuid and self.mac


def matches(asker: Asker, machines: Iterable[MachineFacts]) -> list[RecordMatch]:
    """Returns the records that agree in UUID or MAC address, those that agree in both first."""
    found = []
    for facts in machines:
        uuid = facts.inventory.smbios_uuid.lower() in asker.smbios_uuids and bool(facts.inventory.smbios_uuid)
        mac = asker.mac_address in facts.mac_addresses
        if uuid or mac:
            other_uuid = bool(asker.smbios_uuids and facts.inventory.smbios_uuid) and not uuid
            found.append(RecordMatch(facts, uuid, mac, contradicted=other_uuid))
    return sorted(found, key=lambda match: (not match.sure, match.contradicted, match.facts.name))


def decide(
    found: list[RecordMatch],
    *,
    work: Work | None,
    setting: str,
    is_open: bool,
    unknown_machines: Answer,
) -> Decision:
    """Returns what a machine is answered.

    `found` are the records that agree with it; `work` is what the first of them has to do, `setting` the value of its
    variable `boot`, `is_open` whether its collection is open for machines that knock. In doubt it starts its disk:
    nothing that a stranger can forge makes a machine start the boot image in place of its own system.
    """
    if not found:
        return Decision(unknown_machines, "the machine is not known")
    best = found[0]
    facts = best.facts

    def answered(answer: Answer, reason: str) -> Decision:
        return Decision(answer, reason, facts.name, facts.display_name)

    if setting == "silent":
        return answered(Answer.SILENT, f"its variable {SETTING} says: silent")
    if setting == "local" or facts.protected:
        return answered(Answer.LOCAL, "it is protected" if facts.protected else f"its variable {SETTING} says: local")
    if facts.state is MachineState.HELD:
        return answered(Answer.KNOCK, "it is held until an operator approves it")
    if facts.state is MachineState.EXPECTED and (is_open or (work is not None and not best.sure)):
        why = "its collection is open" if is_open else "it was imported, and must show its serial number"
        return answered(Answer.KNOCK, why)
    if work is None:
        return answered(Answer.LOCAL, "nothing is due for it")
    if not best.sure or (len(found) > 1 and found[1].sure):
        return answered(Answer.LOCAL, _doubt(best, found))
    if work.tickets >= MAX_TICKETS_OF_A_RUN:
        reason = f"it started the boot image {work.tickets} times for {work.run}, and did not get on: see its log"
        return answered(Answer.LOCAL, reason)
    return answered(Answer.INSTALL, f"{work.run} is due")


def _doubt(best: RecordMatch, found: list[RecordMatch]) -> str:
    if len(found) > 1 and best.sure:
        return f"two records agree with it: {best.facts.name} and {found[1].facts.name}; remove one"
    kind = "MAC address" if best.mac else "SMBIOS UUID"
    return f"only its {kind} agrees with {best.facts.name}: that is too little to install it"
