from __future__ import annotations

from typing import Any

import pytest
from fleetcast_kit.errors import FailedPreconditionError
from fleetcast_scheduler.deployments.domain.deployment import (
    Deployment,
    DeploymentState,
    Phase,
    Purpose,
    SessionTemplate,
)
from fleetcast_scheduler.deployments.domain.phases import awaited
from fleetcast_scheduler.deployments.domain.planning import check_begins, check_plan, plan
from fleetcast_scheduler.machines.domain.machine import MachineState
from fleetcast_scheduler.sessions.domain.start_rules import StartRules

from tests.unit.scheduler.deployments.deployment_world import LAB, DeploymentWorld, machine_name
from tests.unit.scheduler.deployments.test_deployments import local, nightly, utc


def draft(world: DeploymentWorld, purpose: Purpose = Purpose.REQUIRED, **fields: Any) -> Deployment:
    return Deployment(
        name="", collection=LAB, content="images/x@sha256:" + "a" * 64, create_time=world.now, purpose=purpose, **fields
    )


# Phases


def test_the_next_phase_begins_when_enough_of_the_present_one_succeeded() -> None:
    world = DeploymentWorld(10)
    world.attend(*range(1, 11))
    deployment = world.deploy(phases=(Phase(percent=15, success_percent=50), Phase(count=5)))
    assert [number for number in range(1, 11) if world.ordered(number)] == [1, 10]  # the order of names
    assert deployment.waiting_reason == ("phase 1 of 3: 0 of 2 machines succeeded, 1 must before phase 2 begins")
    assert world.run(5).reason == "waits for phase 3 of 3"
    world.fail(10)
    assert deployment.current_phase == 0
    world.finish(1)
    assert deployment.current_phase == 1
    assert sum(bool(world.ordered(number)) for number in range(1, 11)) == 5
    assert set(awaited(deployment)) == {machine_name(number) for number in (2, 3, 4)}


def test_a_delayed_phase_waits_and_a_manual_one_waits_for_an_operator() -> None:
    world = DeploymentWorld(3)
    world.attend(1, 2, 3)
    deployment = world.deploy(phases=(Phase(count=1, delay_seconds=3600.0), Phase(count=2, manual=True)))
    world.finish(1)
    assert "the next one begins at 2026-06-01 13:00:00 UTC" in deployment.waiting_reason
    world.crash()
    world.attend(2, 3)
    world.advance(3599)
    assert not world.ordered(2)
    world.advance(1)
    assert world.ordered(2)
    world.finish(2)
    deployment = world.deployment()
    assert "an operator must begin the next one" in deployment.waiting_reason
    world.advance(100_000)
    assert not world.ordered(3)
    world.operations.advance(deployment)
    world.settle()
    assert world.ordered(3)
    with pytest.raises(FailedPreconditionError, match="there is no next one"):
        world.operations.advance(deployment)
    world.finish(3)
    assert world.state() is DeploymentState.COMPLETED


def test_a_failed_machine_that_is_skipped_no_longer_holds_a_phase_up() -> None:
    world = DeploymentWorld(3)
    world.attend(1, 2, 3)
    deployment = world.deploy(phases=(Phase(count=2, success_percent=100),))
    world.finish(1)
    world.fail(2)
    assert not world.ordered(3)
    world.operations.skip(deployment, [machine_name(2)], world.now)
    world.settle()
    assert world.ordered(3)


# Plans


def test_a_plan_says_what_happens_where_and_who_is_left_out_and_why() -> None:
    world = DeploymentWorld(4, time_zone="Europe/Berlin", maintenance_windows=(nightly(),))
    world.change_machine(1, protected=True)
    world.change_machine(2, state=MachineState.HELD)
    world.change_machine(3, state=MachineState.EXPECTED)
    planned = plan(world.fleet, draft(world, phases=(Phase(count=1),)), world.now)
    assert [(one.machine[-1], one.targeted, one.phase) for one in planned] == [
        ("1", False, 0),
        ("2", False, 0),
        ("3", True, 0),
        ("4", True, 1),
    ]
    assert planned[0].reason == "it is protected"
    assert planned[1].reason == "it is held until an operator approves it"
    assert planned[2].start_time == "2026-06-01T22:00:00+02:00"
    assert planned[2].reason == "waits for its maintenance window; has not registered yet"
    assert planned[3].reason == "waits for phase 2 of 2"


def test_a_plan_says_when_a_machine_can_never_begin() -> None:
    world = DeploymentWorld(1, maintenance_windows=(nightly(),))
    (one,) = plan(world.fleet, draft(world, expiry_time=utc("2026-06-01T20:00")), world.now)
    assert one.reason == (
        "never begins: no maintenance window has room for it before it expires at 2026-06-01 20:00:00 UTC"
    )


def test_a_required_deployment_of_which_no_machine_can_ever_begin_is_refused() -> None:
    world = DeploymentWorld(2, maintenance_windows=(nightly(),))
    made = draft(world, expiry_time=utc("2026-06-01T20:00"))
    planned = plan(world.fleet, made, world.now)
    with pytest.raises(FailedPreconditionError, match=r"no machine of the 2 .*pc-1 never begins: no .*20:00:00"):
        check_begins(made, planned)
    late = draft(world, deadline_time=local("2026-06-02T02:00"), expiry_time=utc("2026-06-01T23:00"))
    with pytest.raises(FailedPreconditionError, match="it is due only after it expires at 2026-06-01 23:00:00 UTC"):
        check_begins(late, plan(world.fleet, late, world.now))


def test_a_required_deployment_is_made_if_one_machine_can_begin_or_none_is_there_yet() -> None:
    world = DeploymentWorld(1, time_zone="America/New_York")
    world.add_machine(2, time_zone="Europe/Berlin")
    made = draft(world, deadline_time=local("2026-06-02T02:00"), expiry_time=utc("2026-06-02T02:00"))
    planned = plan(world.fleet, made, world.now)
    assert [one.never for one in planned] == [True, False]
    check_begins(made, planned)
    empty = DeploymentWorld(0)
    check_begins(made, plan(empty.fleet, made, empty.now))


def test_a_plan_shows_a_local_deadline_with_the_machines_offset() -> None:
    world = DeploymentWorld(1, time_zone="America/New_York")
    (one,) = plan(world.fleet, draft(world, deadline_time=local("2026-06-02T02:00")), world.now)
    assert one.start_time == "2026-06-02T02:00:00-04:00"


def test_a_plan_leaves_nothing_behind() -> None:
    world = DeploymentWorld(2)
    made = draft(world)
    plan(world.fleet, made, world.now)
    assert not made.runs
    assert not made.target_count


def test_a_session_that_would_wait_for_more_machines_than_there_are_is_refused() -> None:
    world = DeploymentWorld(2)
    made = draft(world, session=SessionTemplate(rules=StartRules(min_clients=3)))
    planned = plan(world.fleet, made, world.now)
    with pytest.raises(FailedPreconditionError, match="with 3 machines, and 2 are targeted"):
        check_plan(world.fleet, made, planned, ())
    made.session = SessionTemplate(rules=StartRules(min_clients=3, start_delay_seconds=60))
    check_plan(world.fleet, made, planned, ())


def test_a_required_variable_without_a_value_somewhere_is_refused() -> None:
    world = DeploymentWorld(2, variables={"room": "5"})
    world.change_machine(1, variables={"owner": "me"})
    made = draft(world, variables={"language": "de"})
    planned = plan(world.fleet, made, world.now)
    check_plan(world.fleet, made, planned, ("room", "language"))
    with pytest.raises(FailedPreconditionError, match="owner, and pc-2 has none"):
        check_plan(world.fleet, made, planned, ("owner",))
