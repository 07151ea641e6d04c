"""Deployments with a clock, machines and a store that the test turns, kills and looks at."""

from __future__ import annotations

import copy
from dataclasses import replace
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from fleetcast_scheduler.deployments.domain.deployment import Deployment, DeploymentState, Purpose
from fleetcast_scheduler.deployments.domain.events import RunClosed, RunControlled, RunEvent, RunOrdered, StandbyTold
from fleetcast_scheduler.deployments.domain.ledger import DeploymentLedger, RunTiming
from fleetcast_scheduler.deployments.domain.machine_reports import MachineReports
from fleetcast_scheduler.deployments.domain.operations import DeploymentOperations
from fleetcast_scheduler.deployments.domain.rollout import Rollout
from fleetcast_scheduler.deployments.domain.run import Run, RunOutcome, RunProgress, RunState, StepOutcome
from fleetcast_scheduler.machines.domain.collection import Collection
from fleetcast_scheduler.machines.domain.fleet import Fleet
from fleetcast_scheduler.machines.domain.machine import Inventory, Machine, MachineState

LAB = "collections/lab"
DEPLOYMENT = "deployments/one"
START = datetime.fromisoformat("2026-06-01T12:00:00+00:00").timestamp()


def machine_name(number: int) -> str:
    return f"machines/{number}"


def at(text: str) -> float:
    """Returns the instant of `2026-06-01T12:00:00+02:00`."""
    return datetime.fromisoformat(text).timestamp()


class DeploymentWorld:
    """One collection, some machines, and the scheduler's rules about them."""

    def __init__(self, machine_count: int = 3, *, time_zone: str = "UTC", **collection: Any) -> None:
        self.now = START
        self.fleet = Fleet(ZoneInfo("UTC"))
        self.collection = Collection(name=LAB, create_time=0.0, **collection)
        self.fleet.put_collection(self.collection)
        self.machines: dict[str, Machine] = {}
        self.timing = RunTiming()
        self._build([])
        self.heard: dict[str, list[RunEvent]] = {}
        self.woken: list[tuple[str, ...]] = []
        for number in range(1, machine_count + 1):
            self.add_machine(number, time_zone=time_zone)

    def _build(self, deployments: list[Deployment]) -> None:
        self.ledger = DeploymentLedger(self.fleet, deployments, self.timing)
        self.presence = MachineReports(self.ledger)
        self.rollout = Rollout(self.ledger, self.presence)
        self.operations = DeploymentOperations(self.ledger, self.rollout)

    # Acting

    def add_machine(self, number: int, **fields: Any) -> str:
        name = machine_name(number)
        values: dict[str, Any] = {"display_name": f"pc-{number}", "state": MachineState.APPROVED}
        inventory = Inventory(mac_addresses=(f"aa:bb:cc:00:00:{number:02x}",))
        self.put_machine(Machine(name=name, create_time=0.0, inventory=inventory, **values | fields))
        return name

    def put_machine(self, machine: Machine) -> None:
        self.machines[machine.name] = machine
        self.fleet.put_machine(machine, {LAB})

    def change_machine(self, number: int, **fields: Any) -> None:
        self.put_machine(replace(self.machines[machine_name(number)], **fields))

    def change_collection(self, **fields: Any) -> None:
        self.collection = replace(self.collection, **fields)
        self.fleet.put_collection(self.collection)

    def deploy(self, name: str = DEPLOYMENT, **fields: Any) -> Deployment:
        values: dict[str, Any] = {"purpose": Purpose.REQUIRED, "content": "images/x@sha256:" + "a" * 64}
        deployment = Deployment(name=name, collection=LAB, create_time=self.now, **values | fields)
        self.ledger.add(deployment)
        self.settle()
        return deployment

    def attend(self, *numbers: int, run: str = "") -> None:
        for number in numbers:
            self.presence.arrive(machine_name(number), run, self.now)
        self.settle()

    def depart(self, *numbers: int) -> None:
        for number in numbers:
            self.presence.depart(machine_name(number), self.now)
        self.settle()

    def register(self, number: int) -> None:
        self.presence.register(machine_name(number), self.now)
        self.settle()

    def progress(self, number: int, *, paused: bool = False) -> None:
        self.presence.progress(machine_name(number), RunProgress(1, 2, "step", 0.5, paused=paused), self.now)
        self.settle()

    def finish(self, *numbers: int, outcome: StepOutcome = StepOutcome.SUCCEEDED, error: str = "") -> None:
        for number in numbers:
            run = self.ledger.current[machine_name(number)]
            self.presence.finish(run.machine, run.name, RunOutcome(outcome, error=error), self.now)
        self.settle()

    def fail(self, *numbers: int, error: str = "broken") -> None:
        self.finish(*numbers, outcome=StepOutcome.FAILED, error=error)

    def advance(self, seconds: float) -> None:
        """Lets time pass, and the rules look whenever they wanted to."""
        end = self.now + seconds
        while (due_time := self.rollout.wake_time()) is not None and due_time <= end:
            assert due_time >= self.now - 1e-6, "a rule wants to look at the past: the loop would spin"
            self.now = max(due_time, self.now)
            self.settle()
            assert (later := self.rollout.wake_time()) is None or later > self.now, "the loop would spin"
        self.now = end
        self.settle()

    def advance_to(self, text: str) -> None:
        self.advance(at(text) - self.now)

    def settle(self) -> None:
        self.rollout.settle(self.now)
        events, self.ledger.events = self.ledger.events, []
        for event in events:
            if isinstance(event, RunOrdered | RunControlled | RunClosed | StandbyTold):
                self.heard.setdefault(event.machine, []).append(event)
            elif hasattr(event, "mac_addresses"):
                self.woken.append(event.mac_addresses)

    def crash(self) -> None:
        """Kills the scheduler and starts it again with what was stored: what settled is stored."""
        stored = copy.deepcopy(list(self.ledger.deployments.values()))
        for deployment in stored:
            deployment.stale, deployment.wake_time = True, None
        self._build(stored)
        self.presence.recover(self.now)
        for deployment in stored:
            self.ledger.record(deployment)
        self.settle()

    # Looking

    def deployment(self, name: str = DEPLOYMENT) -> Deployment:
        return self.ledger.deployments[name]

    def state(self, name: str = DEPLOYMENT) -> DeploymentState:
        return self.deployment(name).state

    def run(self, number: int, name: str = DEPLOYMENT) -> Run:
        return self.deployment(name).runs[machine_name(number)]

    def states(self, name: str = DEPLOYMENT) -> list[RunState]:
        return [run.state for run in self.deployment(name).runs.values()]

    def ordered(self, number: int) -> list[str]:
        return [event.run for event in self.heard.get(machine_name(number), ()) if isinstance(event, RunOrdered)]

    def told(self, number: int) -> list[str]:
        """Returns what a machine was told to do with its runs, in order."""
        return [event.action for event in self.heard.get(machine_name(number), ()) if isinstance(event, RunControlled)]

    def standby(self, number: int) -> StandbyTold:
        return [event for event in self.heard[machine_name(number)] if isinstance(event, StandbyTold)][-1]
