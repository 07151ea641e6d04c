"""The targets of a deployment: the machines of its collection, without protected and held ones."""

from __future__ import annotations

from fleetcast_scheduler.deployments.domain.deployment import Deployment
from fleetcast_scheduler.deployments.domain.ledger import DeploymentLedger
from fleetcast_scheduler.deployments.domain.run import Run, RunState
from fleetcast_scheduler.machines.domain.fleet import Fleet, MachineFacts


def find_targets(fleet: Fleet, collection: str) -> dict[str, MachineFacts]:
    """Returns the machines of a collection that may be targeted now, by name."""
    return {facts.name: facts for facts in fleet.members(collection) if not fleet.exclusion(facts)}


def refresh_targets(ledger: DeploymentLedger, deployment: Deployment, now: float) -> None:
    """Gives each machine that has become a target a run that waits, and takes that of others away.

    What a machine has begun goes on, target or not.
    """
    found = find_targets(ledger.fleet, deployment.collection)
    for run in list(deployment.runs.values()):
        if run.state is RunState.WAITING and run.machine not in found:
            run.reason = _why_not(ledger.fleet, deployment, run)
            ledger.end(deployment, run, RunState.SKIPPED, now)
        elif run.state is RunState.SKIPPED and not run.excepted and run.machine in found:
            run.end_time = None
            deployment.move(run, RunState.WAITING)
            ledger.record(deployment, run)
    place = max((run.place for run in deployment.runs.values()), default=0)
    for facts in found.values():
        if facts.name not in deployment.runs:
            place += 1
            ledger.put(deployment, first_run(deployment, facts, place, now))


def replace_target(ledger: DeploymentLedger, former: str, machine: MachineFacts, now: float) -> None:
    """A machine took the place of a record that was imported for it: it takes its places in deployments, too."""
    for deployment in ledger.open_deployments:
        run = deployment.runs.get(former)
        if run is not None and run.state is RunState.WAITING and machine.name not in deployment.runs:
            ledger.put(deployment, first_run(deployment, machine, run.place, now))


def new_run(last: Run, now: float) -> Run:
    """Returns a machine's next run of a deployment."""
    return Run(
        name=_run_name(last.deployment, last.machine, last.number + 1),
        deployment=last.deployment,
        machine=last.machine,
        display_name=last.display_name,
        number=last.number + 1,
        place=last.place,
        create_time=now,
    )


def first_run(deployment: Deployment, facts: MachineFacts, place: int, now: float) -> Run:
    """Returns a machine's first run of a deployment."""
    return Run(
        name=_run_name(deployment.name, facts.name, 1),
        deployment=deployment.name,
        machine=facts.name,
        display_name=facts.display_name,
        number=1,
        place=place,
        create_time=now,
    )


def _run_name(deployment: str, machine: str, number: int) -> str:
    return f"{deployment}/runs/{machine.removeprefix('machines/')}-{number}"


def _why_not(fleet: Fleet, deployment: Deployment, run: Run) -> str:
    facts = fleet.machine(run.machine)
    if facts is None:
        return "the machine is not known any more"
    return fleet.exclusion(facts) or f"the machine is not in {deployment.collection} any more"
