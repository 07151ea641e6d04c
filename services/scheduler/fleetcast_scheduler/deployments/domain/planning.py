"""What a deployment would do to which machine, and whether it may be made at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fleetcast_kit.errors import FailedPreconditionError

from fleetcast_scheduler.calendar.local_time import describe_instant
from fleetcast_scheduler.deployments.domain.assignment import Judge, expiry
from fleetcast_scheduler.deployments.domain.deployment import Deployment, Purpose
from fleetcast_scheduler.deployments.domain.phases import phase_count, phases_of
from fleetcast_scheduler.deployments.domain.targets import first_run
from fleetcast_scheduler.images import DiskSize, ImageKind, Medium, PinnedImage, unfit_disks, unfit_for
from fleetcast_scheduler.machines.domain.fleet import Fleet, MachineFacts
from fleetcast_scheduler.machines.domain.machine import MachineState
from fleetcast_scheduler.machines.domain.maintenance import HORIZON
from fleetcast_scheduler.sessions.domain.start_rules import Match

_NAMED_COUNT = 5
"""Machines named in an error at most."""


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """What a deployment means for one machine."""

    machine: str
    display_name: str
    targeted: bool
    reason: str = ""
    """Why not, or what it waits for before it begins."""
    phase: int = 0
    start_time: str = ""
    """RFC 3339 with the machine's offset; empty if nobody can say."""
    never: bool = False
    """It is targeted and can never begin; `reason` says why."""
    unfit: str = ""
    """Why its disks cannot take what is deployed; empty if they can, or if they are not known."""


def plan(fleet: Fleet, draft: Deployment, now: float) -> list[PlannedRun]:
    """Returns what a deployment does to each machine of its collection, in the order of names.

    `draft` has no runs yet and gets those of its targets, but nobody hears of them.
    """
    members = fleet.members(draft.collection)
    for place, facts in enumerate((one for one in members if not fleet.exclusion(one)), 1):
        draft.put(first_run(draft, facts, place, now))
    phases, judge = phases_of(draft), Judge(fleet, now)
    planned = []
    for facts in members:
        exclusion = fleet.exclusion(facts)
        if exclusion:
            planned.append(PlannedRun(facts.name, facts.display_name, targeted=False, reason=exclusion))
        else:
            planned.append(_planned(judge, draft, facts, phases[facts.name], now))
    draft.runs.clear()
    draft.counts.clear()
    return planned


def check_plan(
    fleet: Fleet, draft: Deployment, planned: Sequence[PlannedRun], required_variables: Sequence[str]
) -> None:
    """Makes sure that a deployment may be made.

    Raises:
        FailedPreconditionError: a variable has no value somewhere, or its sessions would wait for more machines than
            there are.
    """
    targets = [one for one in planned if one.targeted]
    for variable in required_variables:
        without = [one for one in targets if not _has_variable(fleet, draft, one.machine, variable)]
        if without or (not targets and variable not in draft.variables):
            names = ", ".join(one.display_name or one.machine for one in without[:_NAMED_COUNT]) or draft.collection
            raise FailedPreconditionError(
                f"the task sequence needs a value of the variable {variable}, and {names} has none"
                + (f" ({len(without)} machines in all)" if len(without) > 1 else "")
                + ": set it in the deployment, the collection or the machine",
                reason="VARIABLE_MISSING",
                metadata={"variable": variable},
            )
    rules = draft.session.rules
    others = any(value is not None for value in (rules.start_delay_seconds, rules.quiet_seconds, rules.start_time))
    if rules.min_clients > len(targets) and not (rules.match is Match.ANY and others):
        raise FailedPreconditionError(
            f"sessions are to start with {rules.min_clients} machines, and {len(targets)} are targeted: they would "
            "never start; take a smaller number, or combine it with a time",
            reason="NEVER_STARTS",
            metadata={"machine_count": str(len(targets))},
        )


def check_image(image: PinnedImage | None, *, unpartitioned: bool) -> None:
    """Makes sure that an image, deployed without a task sequence, may be written to whole disks.

    Raises:
        FailedPreconditionError: it belongs onto a volume, or has no partition table and nobody said `unpartitioned`.
    """
    if image is None or not (problem := unfit_for(image, Medium.DISK)):
        return
    is_wim = image.is_wim or image.kind is ImageKind.WINDOWS_IMAGES
    if unpartitioned and not is_wim:
        return
    way_out = "deploy a task sequence that partitions the disk and applies it, such as bare-metal-windows"
    way_out += "" if is_wim else "; or say that it is to be written all the same (--unpartitioned)"
    raise FailedPreconditionError(f"{image.name} {problem}: {way_out}", reason="IMAGE_UNFIT")


def check_begins(draft: Deployment, planned: Sequence[PlannedRun]) -> None:
    """Makes sure that some machine can begin. A collection without machines passes: it may get some later.

    Raises:
        FailedPreconditionError: none of the machines that must run it could ever begin.
    """
    targets = [one for one in planned if one.targeted]
    if targets and all(one.unfit for one in targets):
        first = targets[0]
        raise FailedPreconditionError(
            f"no machine of the {len(targets)} targeted could take it: {first.display_name or first.machine} has a "
            f"{first.unfit}; --dry-run says it of each",
            reason="NO_MACHINE_FITS",
            metadata={"machine_count": str(len(targets))},
        )
    if draft.purpose is Purpose.REQUIRED and targets and all(one.never for one in targets):
        first = targets[0]
        raise FailedPreconditionError(
            f"no machine of the {len(targets)} targeted could begin: {first.display_name or first.machine} "
            f"{first.reason}; give a later expiry, a shorter run, or ignore the maintenance windows",
            reason="NEVER_BEGINS",
            metadata={"machine_count": str(len(targets))},
        )


def _planned(judge: Judge, draft: Deployment, facts: MachineFacts, phase: int, now: float) -> PlannedRun:
    earliest = judge.earliest(draft, facts)
    start_time = ""
    if earliest is None:
        reason = f"never begins: {_hindrance(judge, draft, facts)}"
    elif draft.purpose is Purpose.AVAILABLE:
        reason = "begins when somebody asks for it"
        if earliest > now:
            reason += f", from {describe_instant(earliest, facts.zone)} on"
    elif phase:
        reason = f"waits for phase {phase + 1} of {phase_count(draft)}"
    else:
        start_time = describe_instant(earliest, facts.zone)
        if earliest > judge.due(draft, facts):
            reason = "waits for its maintenance window"
        else:
            reason = "" if earliest > now else "begins at once"
    if facts.state is MachineState.EXPECTED:
        reason = f"{reason}; has not registered yet".removeprefix("; ")
    disks = (DiskSize(disk.size_bytes, disk.sector_size_bytes) for disk in facts.inventory.disks)
    unfit = unfit_disks(draft.pinned.disk_demands, disks)
    if unfit:
        reason = f"{unfit}; {reason}".removesuffix("; ")
    return PlannedRun(
        facts.name,
        facts.display_name,
        targeted=True,
        unfit=unfit,
        reason=reason,
        phase=phase,
        start_time=start_time,
        never=earliest is None,
    )


def _hindrance(judge: Judge, draft: Deployment, facts: MachineFacts) -> str:
    """Returns why a machine can never begin."""
    if judge.due(draft, facts) >= expiry(draft, facts.zone):
        return f"it is due only after it expires at {draft.expiry_time}"
    limit = f"within {HORIZON.days} days" if draft.expiry_time is None else f"before it expires at {draft.expiry_time}"
    return f"no maintenance window has room for it {limit}"


def _has_variable(fleet: Fleet, draft: Deployment, machine: str, variable: str) -> bool:
    facts = fleet.machine(machine)
    return variable in draft.variables or (
        facts is not None and (variable in facts.variables or variable in fleet.collection_variables(facts))
    )
