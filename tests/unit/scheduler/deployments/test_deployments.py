from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from fleetcast_kit.errors import FailedPreconditionError, InvalidArgumentError, NotFoundError
from fleetcast_scheduler.calendar.local_time import ScheduleTime, instant_of
from fleetcast_scheduler.deployments.domain.deployment import DeploymentState, Phase, Purpose, Rerun
from fleetcast_scheduler.deployments.domain.run import Remark, RunOutcome, RunState, StepOutcome, StepRun
from fleetcast_scheduler.machines.domain.machine import MachineState
from fleetcast_scheduler.machines.domain.maintenance import MaintenanceWindow
from fleetcast_scheduler.machines.domain.presence import MachinePresence

from tests.unit.scheduler.deployments.deployment_world import DEPLOYMENT, DeploymentWorld, at, machine_name

BERLIN = ZoneInfo("Europe/Berlin")


def local(text: str) -> ScheduleTime:
    return ScheduleTime(local=datetime.fromisoformat(text))


def utc(text: str) -> ScheduleTime:
    return ScheduleTime(utc=at(text + "+00:00"))


# Remarks


def test_a_run_with_remarks_is_a_success_that_is_counted_apart_and_opens_the_next_phase() -> None:
    world = DeploymentWorld(2)
    world.attend(1, 2)
    deployment = world.deploy(phases=(Phase(count=1, success_percent=100),))
    assert world.states() == [RunState.RUNNING, RunState.WAITING]
    step = StepRun(run="", number=0, node="1", step_name="Grow", attempt=1, remarks=("it could not grow",))
    world.presence.step(machine_name(1), step, world.now)
    assert world.run(1).remarks == (Remark("Grow", "it could not grow"),)
    remarks = (Remark("Grow", "it could not grow"), Remark("", "its log was not taken"))
    run = world.ledger.current[machine_name(1)]
    world.presence.finish(run.machine, run.name, RunOutcome(StepOutcome.SUCCEEDED, remarks=remarks), world.now)
    world.settle()
    assert world.states() == [RunState.SUCCEEDED, RunState.RUNNING]
    assert world.run(1).remarks == remarks
    assert (deployment.counts["succeeded"], deployment.counts["remarked"], deployment.target_count) == (1, 1, 2)
    world.finish(2)
    assert world.state() is DeploymentState.COMPLETED


def test_a_machine_that_runs_it_again_without_remarks_has_none() -> None:
    world = DeploymentWorld(1)
    world.attend(1)
    deployment = world.deploy(rerun=Rerun.ALWAYS)
    step = StepRun(run="", number=0, node="1", step_name="Grow", attempt=1, remarks=("it could not grow",))
    world.presence.step(machine_name(1), step, world.now)
    world.finish(1)
    assert deployment.counts["remarked"] == 1
    world.register(1)
    world.finish(1)
    assert world.run(1).remarks == ()
    assert (deployment.counts["succeeded"], deployment.counts["remarked"], deployment.target_count) == (1, 0, 1)


# Beginning


def test_a_required_deployment_begins_on_each_machine_as_soon_as_it_is_there() -> None:
    world = DeploymentWorld()
    world.attend(1)
    world.deploy()
    assert world.states() == [RunState.RUNNING, RunState.WAITING, RunState.WAITING]
    assert world.run(2).reason == "its agent is not connected"
    world.attend(2)
    assert world.ordered(2) == ["deployments/one/runs/2-1"]


def test_an_available_deployment_is_offered_and_begins_when_asked_for() -> None:
    world = DeploymentWorld()
    world.attend(1)
    world.deploy(purpose=Purpose.AVAILABLE, description="Fresh")
    assert world.standby(1).offers[0].description == "Fresh"
    assert not world.ordered(1)
    world.presence.want(machine_name(1), DEPLOYMENT, world.now)
    world.settle()
    assert world.ordered(1)
    world.finish(1)
    world.presence.want(machine_name(1), DEPLOYMENT, world.now)
    world.settle()
    assert world.ordered(1)[-1].endswith("1-2")


def test_an_operator_asks_for_an_available_deployment_by_a_retry() -> None:
    world = DeploymentWorld()
    world.attend(1)
    deployment = world.deploy(purpose=Purpose.AVAILABLE)
    world.operations.retry(deployment, [machine_name(1)], world.now)
    world.settle()
    assert world.ordered(1)
    with pytest.raises(NotFoundError, match="machines/9 is no target"):
        world.operations.retry(deployment, ["machines/9"], world.now)


def test_a_machine_that_joins_the_collection_later_is_a_target_too() -> None:
    world = DeploymentWorld(1)
    world.deploy()
    world.add_machine(7)
    world.attend(7)
    assert world.ordered(7)


def test_two_deployments_run_on_a_machine_one_after_the_other() -> None:
    world = DeploymentWorld(1)
    world.attend(1)
    world.deploy("deployments/one")
    world.now += 1
    world.deploy("deployments/two")
    assert world.run(1, "deployments/two").reason == "the machine runs deployments/one/runs/1-1"
    world.finish(1)
    assert world.run(1, "deployments/two").state is RunState.RUNNING


# Safety


def test_protected_and_held_machines_are_never_ordered_anything() -> None:
    world = DeploymentWorld()
    world.change_machine(1, protected=True)
    world.change_machine(2, state=MachineState.HELD)
    world.attend(1, 2, 3)
    deployment = world.deploy()
    assert set(deployment.runs) == {machine_name(3)}
    assert "it is protected" in world.standby(1).reason


def test_protection_counts_until_the_very_beginning() -> None:
    world = DeploymentWorld()
    world.deploy(deadline_time=ScheduleTime(utc=world.now + 100))
    world.attend(1, 2)
    world.change_machine(1, protected=True)
    world.advance(200)
    assert not world.ordered(1)
    assert world.run(1).state is RunState.SKIPPED
    assert world.deployment().target_count == 2
    world.change_machine(1, protected=False)
    world.settle()
    assert world.ordered(1)


def test_a_collection_that_becomes_protected_is_spared() -> None:
    world = DeploymentWorld()
    world.deploy()
    world.change_collection(protected=True)
    world.attend(1, 2, 3)
    assert not world.ordered(1)


def test_what_runs_goes_on_when_its_machine_leaves_the_collection() -> None:
    world = DeploymentWorld(1)
    world.attend(1)
    world.deploy()
    world.change_machine(1, protected=True)
    world.settle()
    assert world.run(1).state is RunState.RUNNING
    world.finish(1)
    assert world.run(1).state is RunState.SUCCEEDED


# Times


def test_nothing_begins_before_it_is_available_or_before_the_deadline() -> None:
    world = DeploymentWorld(1)
    world.attend(1)
    world.deploy(available_time=utc("2026-06-01T13:00"), deadline_time=utc("2026-06-01T14:00"))
    assert world.state() is DeploymentState.SCHEDULED
    assert "waits until it is available at 2026-06-01T13:00:00+00:00" in world.run(1).reason
    world.advance_to("2026-06-01T13:00:00+00:00")
    assert world.state() is DeploymentState.ACTIVE
    assert "waits for the deadline" in world.run(1).reason
    assert not world.ordered(1)
    world.advance_to("2026-06-01T14:00:00+00:00")
    assert world.ordered(1)


def test_a_local_deadline_comes_at_each_machines_own_hour() -> None:
    world = DeploymentWorld(1, time_zone="Europe/Berlin")
    world.add_machine(2, time_zone="America/New_York")
    world.attend(1, 2)
    world.deploy(deadline_time=local("2026-06-02T02:00"))
    world.advance_to("2026-06-02T00:00:00+00:00")
    assert world.ordered(1)
    assert not world.ordered(2)
    world.advance_to("2026-06-02T06:00:00+00:00")
    assert world.ordered(2)


def test_a_local_time_that_is_skipped_means_the_change_and_one_that_repeats_its_first_coming() -> None:
    assert instant_of(datetime(2027, 3, 28, 2, 30), BERLIN) == at("2027-03-28T01:00:00+00:00")
    assert instant_of(datetime(2026, 10, 25, 2, 30), BERLIN) == at("2026-10-25T00:30:00+00:00")
    assert instant_of(datetime(2026, 6, 1, 2, 0), BERLIN) == at("2026-06-01T00:00:00+00:00")


def test_nothing_begins_after_the_expiry_and_what_runs_goes_on() -> None:
    world = DeploymentWorld(2)
    world.attend(1)
    world.deploy(expiry_time=utc("2026-06-01T13:00"))
    world.advance_to("2026-06-01T13:00:00+00:00")
    assert world.state() is DeploymentState.EXPIRED
    assert world.run(2).state is RunState.FAILED
    assert "expired before" in world.run(2).error
    world.attend(2)
    assert not world.ordered(2)
    world.finish(1)
    assert world.run(1).state is RunState.SUCCEEDED


# Maintenance windows


def nightly(start: str = "2026-06-01T22:00", hours: float = 4, **fields: str) -> MaintenanceWindow:
    recurrence = fields.pop("recurrence", "FREQ=DAILY")
    return MaintenanceWindow(datetime.fromisoformat(start), hours * 3600, recurrence, **fields)


def test_a_run_waits_for_a_window_that_has_room_for_it() -> None:
    world = DeploymentWorld(1, maintenance_windows=(nightly(),))
    world.attend(1)
    world.deploy()
    assert world.run(1).reason == "waits for the maintenance window at 2026-06-01T22:00:00+00:00"
    world.advance_to("2026-06-01T21:59:59+00:00")
    assert not world.ordered(1)
    world.advance(2)
    assert world.ordered(1)


def test_a_run_that_no_longer_fits_waits_for_the_next_night() -> None:
    world = DeploymentWorld(1, maintenance_windows=(nightly(),))
    world.deploy()
    world.advance_to("2026-06-02T00:00:01+00:00")
    world.attend(1)
    assert world.run(1).reason == "waits for the maintenance window at 2026-06-02T22:00:00+00:00"


def test_windows_that_touch_count_as_one_and_one_too_short_is_said() -> None:
    early, late = nightly(hours=1), nightly("2026-06-01T23:00", hours=1)
    world = DeploymentWorld(1, maintenance_windows=(early, late))
    world.attend(1)
    world.deploy()
    world.advance_to("2026-06-01T22:00:00+00:00")
    assert world.ordered(1)
    alone = DeploymentWorld(1, maintenance_windows=(early,))
    alone.attend(1)
    alone.deploy()
    assert "no maintenance window" in alone.run(1).reason


def test_a_window_is_on_the_machines_clock_across_a_change_of_clocks() -> None:
    window = nightly("2026-10-20T01:00", 2)
    assert window.open_until(at("2026-10-25T00:30:00+00:00"), BERLIN) == at("2026-10-25T01:00:00+00:00")
    assert window.open_until(at("2026-10-26T00:30:00+00:00"), BERLIN) == at("2026-10-26T02:00:00+00:00")
    assert window.open_until(at("2026-10-26T02:00:00+00:00"), BERLIN) is None


def test_a_deployment_may_ignore_windows_and_an_available_one_does() -> None:
    world = DeploymentWorld(2, maintenance_windows=(nightly(),))
    world.attend(1)
    world.deploy(ignore_maintenance_windows=True)
    assert world.ordered(1)


# Rerun, retry, skip


@pytest.mark.parametrize(
    ("rerun", "after_success", "after_failure"),
    [
        (Rerun.NEVER, False, False),
        (Rerun.ALWAYS, True, True),
        (Rerun.IF_FAILED, False, True),
        (Rerun.IF_SUCCEEDED, True, False),
    ],
)
def test_a_machine_that_registers_anew_runs_it_again_as_the_rule_says(
    rerun: Rerun, after_success: bool, after_failure: bool
) -> None:
    world = DeploymentWorld(3)
    world.attend(1, 2)
    world.deploy(rerun=rerun)
    world.finish(1)
    world.fail(2)
    world.register(1)
    world.register(2)
    assert (len(world.ordered(1)) == 2) is after_success
    assert (len(world.ordered(2)) == 2) is after_failure


def test_a_retry_runs_all_that_failed_and_counts_attempts() -> None:
    world = DeploymentWorld()
    world.attend(1, 2, 3)
    deployment = world.deploy()
    world.fail(1, 2)
    world.finish(3)
    assert deployment.counts["failed"] == 2
    assert len(world.operations.retry(deployment, [], world.now)) == 2
    world.settle()
    assert (world.run(1).attempt, world.run(1).state) == (2, RunState.RUNNING)
    world.finish(1, 2)
    assert world.state() is DeploymentState.COMPLETED
    with pytest.raises(FailedPreconditionError, match="completed"):
        world.operations.retry(deployment, [], world.now)


def test_a_skipped_machine_is_cancelled_and_stays_out() -> None:
    world = DeploymentWorld(2)
    world.attend(1)
    deployment = world.deploy()
    world.operations.skip(deployment, [machine_name(1), machine_name(2)], world.now)
    world.settle()
    assert world.told(1) == ["CANCEL"]
    world.finish(1, outcome=StepOutcome.CANCELLED)
    assert world.states() == [RunState.SKIPPED, RunState.SKIPPED]
    assert deployment.target_count == 0
    world.register(2)
    world.attend(2)
    assert not world.ordered(2)


# Pausing, cancelling, taking too long


def test_a_pause_holds_what_runs_lets_nothing_begin_and_does_not_count_as_run_time() -> None:
    world = DeploymentWorld(2)
    world.attend(1)
    deployment = world.deploy(max_run_seconds=1000.0)
    world.operations.pause(deployment, world.now)
    world.settle()
    world.attend(2)
    assert world.told(1) == ["PAUSE"]
    assert not world.ordered(2)
    world.progress(1, paused=True)
    assert world.run(1).state is RunState.PAUSED
    world.advance(5000)
    world.operations.pause(deployment, world.now)
    world.operations.resume(deployment, world.now)
    world.settle()
    world.progress(1)
    assert world.told(1) == ["PAUSE", "RESUME"]
    assert world.run(1).state is RunState.RUNNING
    assert world.ordered(2)
    world.advance(999)
    assert world.run(1).state is RunState.RUNNING
    world.advance(2)
    assert world.told(1)[-1] == "CANCEL"


def test_a_deployment_that_expires_while_it_is_paused_says_so_and_what_it_holds_can_go_on() -> None:
    world = DeploymentWorld(2)
    world.attend(1)
    deployment = world.deploy(expiry_time=utc("2026-06-01T13:00"), max_run_seconds=1000.0)
    world.operations.pause(deployment, world.now)
    world.advance_to("2026-06-01T13:00:00+00:00")
    assert world.states() == [RunState.RUNNING, RunState.FAILED]
    assert world.state() is DeploymentState.EXPIRED
    assert deployment.waiting_reason == "1 machine that has begun is held by an operator's pause: resume or cancel it"
    world.crash()
    world.attend(1, run=world.run(1).name)
    assert world.told(1) == ["PAUSE", "PAUSE"]
    deployment = world.ledger.deployments[DEPLOYMENT]
    world.operations.resume(deployment, world.now)
    world.settle()
    assert world.told(1)[-1] == "RESUME"
    assert world.state() is DeploymentState.EXPIRED
    assert not deployment.waiting_reason
    world.advance(999)
    world.finish(1)
    assert world.run(1).state is RunState.SUCCEEDED
    with pytest.raises(FailedPreconditionError, match="is expired: make a new deployment"):
        world.operations.resume(deployment, world.now)


def test_a_deployment_that_expires_while_it_is_paused_and_holds_nothing_is_over() -> None:
    world = DeploymentWorld(2)
    deployment = world.deploy(expiry_time=utc("2026-06-01T13:00"))
    world.operations.pause(deployment, world.now)
    world.advance_to("2026-06-01T13:00:00+00:00")
    assert world.states() == [RunState.FAILED, RunState.FAILED]
    assert world.state() is DeploymentState.EXPIRED
    assert not deployment.waiting_reason


def test_a_cancelled_deployment_ends_what_runs_by_its_machines_word_and_the_rest_at_once() -> None:
    world = DeploymentWorld(3)
    world.attend(1, 2)
    deployment = world.deploy()
    world.depart(2)
    world.operations.cancel(deployment, world.now)
    world.settle()
    assert world.states() == [RunState.RUNNING, RunState.CANCELLED, RunState.CANCELLED]
    world.finish(1, outcome=StepOutcome.CANCELLED)
    assert world.run(1).state is RunState.CANCELLED
    world.attend(2, run=world.run(2).name)
    assert world.told(2) == ["CANCEL"]


def test_a_machine_that_does_not_say_that_it_ended_is_not_waited_for() -> None:
    world = DeploymentWorld(1)
    world.attend(1)
    deployment = world.deploy()
    world.operations.cancel(deployment, world.now)
    world.advance(61)
    assert world.run(1).state is RunState.CANCELLED


def test_a_run_that_takes_too_long_is_cancelled_and_failed_lost_or_not() -> None:
    world = DeploymentWorld(2)
    world.attend(1, 2)
    world.deploy(max_run_seconds=100.0)
    world.depart(2)
    world.advance(100)
    assert world.told(1) == ["CANCEL"]
    world.finish(1, outcome=StepOutcome.CANCELLED)
    assert world.states() == [RunState.FAILED, RunState.FAILED]
    assert "takes longer than 100 s" in world.run(1).error
    assert "contact with it is lost" in world.run(2).error


# Coming and going


def test_a_machine_that_vanishes_is_lost_and_gets_the_same_order_when_it_returns() -> None:
    world = DeploymentWorld(1)
    world.attend(1)
    world.deploy()
    world.advance(10)
    world.depart(1)
    assert world.run(1).state is RunState.LOST
    assert world.run(1).contact_time == world.now
    assert world.deployment().counts["unknown"] == 1
    world.attend(1, run=world.run(1).name)
    assert world.ordered(1) == [world.run(1).name] * 2
    assert world.run(1).state is RunState.RUNNING


def test_a_machine_that_restarts_is_awaited_for_a_while() -> None:
    world = DeploymentWorld(1)
    world.attend(1)
    world.deploy()
    world.presence.restart(machine_name(1), "boot", world.now)
    world.depart(1)
    assert world.run(1).state is RunState.RESTARTING
    world.advance(world.timing.restart - 1)
    assert world.run(1).state is RunState.RESTARTING
    world.advance(2)
    assert world.run(1).state is RunState.LOST


def test_after_a_crash_nothing_runs_that_nobody_hears_of() -> None:
    world = DeploymentWorld(2)
    world.attend(1, 2)
    world.deploy()
    world.finish(2)
    world.crash()
    assert world.states() == [RunState.LOST, RunState.SUCCEEDED]
    assert world.presence.of(machine_name(1)) == MachinePresence(current_run="deployments/one/runs/1-1")


def test_an_outcome_that_comes_twice_is_closed_twice_and_counts_once() -> None:
    world = DeploymentWorld(2)
    world.attend(1)
    world.deploy()
    name = world.run(1).name
    world.finish(1)
    world.crash()
    world.attend(1, run=name)
    assert world.told(1) == ["CANCEL"]
    world.presence.finish(machine_name(1), name, RunOutcome(StepOutcome.SUCCEEDED), world.now)
    world.settle()
    assert world.run(1).state is RunState.SUCCEEDED
    assert world.standby(1).reason == "nothing is deployed to this machine"


# Waking


def test_machines_that_are_not_there_at_the_deadline_are_woken_a_few_times() -> None:
    world = DeploymentWorld(2)
    world.attend(1)
    world.deploy(wake=True, deadline_time=ScheduleTime(utc=world.now + 100))
    assert not world.woken
    world.advance(100)
    assert world.woken == [("aa:bb:cc:00:00:02",)]
    world.advance(3600)
    assert len(world.woken) == 3


@pytest.mark.parametrize(
    "recurrence",
    ["FREQ=SECONDLY", "FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30", "every day", "FREQ=DAILY;UNTIL=20200101T000000"],
)
def test_a_window_that_cannot_be_is_refused(recurrence: str) -> None:
    with pytest.raises(InvalidArgumentError):
        nightly(recurrence=recurrence).check()


def test_a_window_ends_with_its_recurrence() -> None:
    window = nightly(recurrence="FREQ=DAILY;UNTIL=20260602T220000Z", time_zone="UTC")
    window.check()
    assert window.open_until(at("2026-06-02T23:00:00+00:00"), BERLIN) is not None
    assert window.open_until(at("2026-06-03T23:00:00+00:00"), BERLIN) is None
