"""Whatever happens to deployments, in whatever order, some things never do."""

from __future__ import annotations

from datetime import datetime

from fleetcast_kit.errors import FailedPreconditionError
from fleetcast_scheduler.calendar.local_time import ScheduleTime
from fleetcast_scheduler.deployments.domain.deployment import Deployment, DeploymentState, Phase, Rerun
from fleetcast_scheduler.deployments.domain.events import RunClosed, RunOrdered
from fleetcast_scheduler.deployments.domain.run import RunOutcome, RunState, StepOutcome
from fleetcast_scheduler.machines.domain.maintenance import MaintenanceWindow, fits
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.support.examples import examples
from tests.unit.scheduler.deployments.deployment_world import DeploymentWorld, machine_name

MACHINES = st.integers(1, 4)
WINDOWS = (
    MaintenanceWindow(datetime.fromisoformat("2026-06-01T20:00"), 3 * 3600.0, "FREQ=DAILY", "Europe/Berlin"),
    MaintenanceWindow(datetime.fromisoformat("2026-06-01T23:00"), 2 * 3600.0, "FREQ=WEEKLY;BYDAY=MO,WE"),
)
RUN_SECONDS = 3600.0


class Deploying(RuleBasedStateMachine):
    """Machines that come, go, obey or do not; operators who change their minds; a scheduler that is killed."""

    def __init__(self) -> None:
        super().__init__()
        self.world = DeploymentWorld(4, maintenance_windows=WINDOWS)
        self.executing: dict[int, str] = {}
        """What each machine executes."""
        self.seen_counts: dict[int, int] = {}
        self.known: set[str] = set()
        self.count = 0

    def settle(self) -> None:
        self.world.settle()
        self.look()

    def look(self) -> None:
        """Lets the machines take their orders, and checks each one."""
        world = self.world
        for number in range(1, 5):
            events = world.heard.get(machine_name(number), [])
            for event in events[self.seen_counts.get(number, 0) :]:
                if isinstance(event, RunClosed) and self.executing.get(number) == event.run:
                    del self.executing[number]
                if isinstance(event, RunOrdered) and self.executing.get(number) != event.run:
                    self.check_order(number, event.run)
                    if machine_name(number) in world.ledger.connected:
                        self.executing[number] = event.run
            self.seen_counts[number] = len(events)

    def check_order(self, number: int, name: str) -> None:
        world = self.world
        found = world.ledger.find_run(name)
        if found is None or name in self.known:
            return  # repeated to one that lost it
        self.known.add(name)
        facts = world.fleet.machine(machine_name(number))
        assert facts is not None
        assert not world.fleet.exclusion(facts), "a protected or held machine was ordered something"
        assert found[0].state is not DeploymentState.PAUSED
        if not found[0].ignore_maintenance_windows:
            assert fits(WINDOWS, world.now, facts.zone, RUN_SECONDS), "outside a maintenance window"
        assert self.executing.get(number) is None, "two runs at once"

    def choose(self, index: int) -> Deployment | None:
        deployments = list(self.world.ledger.deployments.values())
        return deployments[index % len(deployments)] if deployments else None

    @precondition(lambda self: self.count < 4)
    @rule(
        ignore=st.booleans(),
        phased=st.booleans(),
        rerun=st.sampled_from(Rerun),
        expiry=st.one_of(st.none(), st.floats(60, 100_000)),
    )
    def deploy(self, *, ignore: bool, phased: bool, rerun: Rerun, expiry: float | None) -> None:
        self.count += 1
        self.world.deploy(
            f"deployments/{self.count}",
            ignore_maintenance_windows=ignore,
            phases=(Phase(count=2, success_percent=50),) if phased else (),
            rerun=rerun,
            max_run_seconds=RUN_SECONDS,
            expiry_time=None if expiry is None else ScheduleTime(utc=self.world.now + expiry),
        )
        self.look()

    @rule(number=MACHINES, remembers=st.booleans())
    def attend(self, number: int, *, remembers: bool) -> None:
        if not remembers:
            self.executing.pop(number, None)
        if machine_name(number) in self.world.ledger.connected:
            self.world.presence.depart(machine_name(number), self.world.now)
        self.world.attend(number, run=self.executing.get(number, ""))
        self.look()

    @rule(number=MACHINES)
    def depart(self, number: int) -> None:
        if machine_name(number) in self.world.ledger.connected:
            self.world.depart(number)
            self.look()

    @rule(number=MACHINES)
    def register(self, number: int) -> None:
        self.world.register(number)
        self.look()

    @rule(number=MACHINES, outcome=st.sampled_from([StepOutcome.SUCCEEDED, StepOutcome.FAILED, StepOutcome.CANCELLED]))
    def finish(self, number: int, outcome: StepOutcome) -> None:
        name = self.executing.get(number)
        if name is not None and machine_name(number) in self.world.ledger.connected:
            del self.executing[number]
            self.world.presence.finish(machine_name(number), name, RunOutcome(outcome), self.world.now)
            self.settle()

    @rule(number=MACHINES)
    def restart(self, number: int) -> None:
        if number in self.executing and machine_name(number) in self.world.ledger.connected:
            self.world.presence.restart(machine_name(number), "boot", self.world.now)
            self.world.depart(number)
            self.look()

    @rule(number=MACHINES, protected=st.booleans())
    def protect(self, number: int, *, protected: bool) -> None:
        self.world.change_machine(number, protected=protected)
        self.settle()

    @rule(index=st.integers(0, 3), action=st.sampled_from(["pause", "resume", "cancel", "advance", "retry", "skip"]))
    def operate(self, index: int, action: str) -> None:
        deployment = self.choose(index)
        if deployment is None:
            return
        operations, now = self.world.operations, self.world.now
        machines = list(deployment.runs)[:1]
        try:
            match action:
                case "advance":
                    operations.advance(deployment)
                case "retry":
                    operations.retry(deployment, [], now)
                case "skip":
                    operations.skip(deployment, machines, now)
                case _:
                    getattr(operations, action)(deployment, now)
        except FailedPreconditionError:
            return
        self.settle()

    @rule(seconds=st.sampled_from([1.0, 70.0, 2000.0, 40_000.0]))
    def wait(self, seconds: float) -> None:
        end = self.world.now + seconds
        while (due_time := self.world.rollout.wake_time()) is not None and due_time <= end:
            assert due_time >= self.world.now
            self.world.now = due_time
            self.settle()
            later = self.world.rollout.wake_time()
            assert later is None or later > self.world.now, "the loop would spin"
        self.world.now = end
        self.settle()

    @rule()
    def crash(self) -> None:
        self.world.crash()
        self.look()

    @invariant()
    def counts_are_those_of_the_runs(self) -> None:
        for deployment in self.world.ledger.deployments.values():
            counted = [run for run in deployment.runs.values() if run.state is not RunState.SKIPPED]
            assert deployment.target_count == len(counted)

    @invariant()
    def only_one_run_of_a_machine_is_open(self) -> None:
        begun = [run.machine for one in self.world.ledger.deployments.values() for run in one.open_runs]
        assert len(begun) == len(set(begun))
        assert set(begun) == set(self.world.ledger.current)

    @invariant()
    def what_is_shown_as_running_is_connected(self) -> None:
        for run in self.world.ledger.current.values():
            if run.state in (RunState.RUNNING, RunState.PAUSED):
                assert run.machine in self.world.ledger.connected

    def teardown(self) -> None:
        """Whatever happened: if everybody leaves and nobody resumes anything but what is paused, all runs end."""
        for number in range(1, 5):
            if machine_name(number) in self.world.ledger.connected:
                self.world.depart(number)
        for deployment in list(self.world.ledger.deployments.values()):
            held = any(run.pause_time is not None for run in deployment.open_runs)  # also of an expired deployment
            if held or deployment.state is DeploymentState.PAUSED:
                self.world.operations.resume(deployment, self.world.now)
        self.world.settle()
        self.world.advance(3 * RUN_SECONDS)
        assert not self.world.ledger.current


Deploying.TestCase.settings = settings(max_examples=examples(60), stateful_step_count=40)
TestDeploying = Deploying.TestCase
