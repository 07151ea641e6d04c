"""What people complain about in other tools, as far as the scheduler can spare them it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from fleetcast_kit.errors import FailedPreconditionError
from fleetcast_scheduler.calendar.local_time import ScheduleTime
from fleetcast_scheduler.deployments.domain.run import RunState
from fleetcast_scheduler.senders.domain.commands import MoveToUnicast, SetTransmissionRate, StartTransmission
from fleetcast_scheduler.senders.domain.policies import RatePolicy, SlowAction, SlowPolicy
from fleetcast_scheduler.sessions.domain.admission import AdmissionRules
from fleetcast_scheduler.sessions.domain.events import Assignment
from fleetcast_scheduler.sessions.domain.operations import SessionEdit
from fleetcast_scheduler.sessions.domain.participant import Joiner, ParticipantState, ReceptionTotals
from fleetcast_scheduler.sessions.domain.session import SessionMode, SessionState
from fleetcast_scheduler.sessions.domain.start_rules import StartRules

from tests.unit.scheduler.deployments.deployment_world import DeploymentWorld
from tests.unit.scheduler.deployments.test_deployments import nightly
from tests.unit.scheduler.sessions.actors import World, live, machines
from tests.unit.scheduler.sessions.test_sessions import A, B, C, running_world


def test_01_a_slow_machine_is_served_apart_and_its_session_goes_on() -> None:
    policy = SlowPolicy(SlowAction.UNICAST, threshold_bits_per_second=50_000_000)
    world = World()
    world.connect_sender()
    world.open_session(slow_policy=policy)
    world.join(A, B)
    (start,) = world.orders["senders/a"]
    assert isinstance(start, StartTransmission)
    assert start.slow_policy == policy
    world.answer_all()
    world.dispatcher.operations.serve_apart(world.session(), A)
    world.settle()
    assert world.orders["senders/a"] == [MoveToUnicast(world.session().transmission, (A,))]
    world.answer_all()
    world.finish(B)
    assert world.participant(B).state is ParticipantState.SUCCEEDED
    assert world.participant(A).state is ParticipantState.RECEIVING


def test_02_a_session_that_waits_says_for_what_and_who_is_missing() -> None:
    world = World()
    world.connect_sender()
    world.open_session(StartRules(min_clients=3))
    world.join(A, B)
    world.leave(B)
    assert world.session().waiting_reason == "waits for 3 machines (1 joined so far); gone again: machines/1"


def _start(world: World) -> None:
    world.start()


def _edit(world: World) -> None:
    world.dispatcher.operations.edit(world.session(), SessionEdit(rules=StartRules(min_clients=1)))


def _close(world: World) -> None:
    world.dispatcher.operations.close(world.session())


@pytest.mark.parametrize("act", [_start, _edit, _close])
def test_02_a_wrong_number_of_machines_is_corrected_or_overruled_while_they_wait(act: Callable[[World], None]) -> None:
    world = World()
    world.connect_sender()
    world.open_session(StartRules(min_clients=30))
    world.join(A)
    act(world)
    world.settle()
    world.answer_all()
    assert world.assigned(A)


def test_03_a_rebooted_machine_is_taken_back_into_its_session_and_a_late_one_is_welcome() -> None:
    world = running_world(A, B)
    world.advance(30)
    world.leave(A)
    world.join(A)
    world.join(C)
    world.answer_all()
    assert world.assigned(A)
    assert world.assigned(C)
    assert len(world.session().participants) == 3


def test_06_a_cancelled_session_leaves_no_sender_no_port_and_no_machine_in_progress() -> None:
    world = running_world(A, B)
    world.cancel()
    world.answer_all()
    assert not world.running["senders/a"]
    assert not world.session().open_count
    world.advance(60)
    assert not world.dispatcher.pool.leases


def test_06_a_session_cancelled_while_its_sender_is_away_is_stopped_when_it_returns() -> None:
    world = running_world(A)
    (name,) = live(world)
    world.disconnect_sender()
    world.cancel()
    assert name in world.running["senders/a"]
    world.connect_sender()
    world.answer_all()
    assert not world.running["senders/a"]


def test_06_a_scheduler_killed_while_it_cancels_finishes_the_job() -> None:
    world = running_world(A)
    world.cancel()
    world.crash()
    world.connect_sender()
    world.answer_all()
    assert not world.running["senders/a"]
    assert world.state() is SessionState.CANCELLED


def test_06_a_finished_session_does_not_block_the_next() -> None:
    world = running_world(A, rules=StartRules(min_clients=1))
    world.finish(A)
    assert world.state() is SessionState.COMPLETED
    world.open_session(name="sessions/two")
    world.join(A, session="sessions/two")
    world.answer_all()
    assert world.assigned(A)


def test_07_every_machine_shows_its_rate_its_losses_and_its_time_to_the_end() -> None:
    world = running_world(A)
    for second in range(1, 20):
        world.now += 1
        totals = ReceptionTotals(size_bytes=1000, written_bytes=20 * second, lost_datagram_count=7)
        world.dispatcher.progress("sessions/one", A, totals, world.now)
    participant = world.participant(A)
    assert participant.rate_bytes_per_second == pytest.approx(20, rel=0.05)
    assert participant.remaining_seconds == pytest.approx(31, abs=2)
    assert participant.totals.lost_datagram_count == 7


def test_08_a_dead_machine_costs_the_others_nothing() -> None:
    world = running_world(A, B, C, mode=SessionMode.AUTO)
    world.leave(A)
    world.finish(B, C)
    assert world.participant(B).state is ParticipantState.SUCCEEDED
    assert world.participant(C).state is ParticipantState.SUCCEEDED
    world.advance(700)
    assert world.state() is SessionState.COMPLETED


def test_10_each_site_is_served_by_its_own_sender() -> None:
    world = World()
    for site in ("north", "south"):
        world.connect_sender(f"senders/{site}", site=site, address=f"{site}:7444")
    for machine, site in ((A, "north"), (B, "south"), (C, "south")):
        world.open_session(name=f"sessions/{machine[-1]}", site=site)
        world.join(machine, session=f"sessions/{machine[-1]}")
        world.answer_all()
        heard = world.last(machine)
        assert isinstance(heard, Assignment)
        assert heard.sender_address == f"{site}:7444"


def test_11_two_sessions_never_share_a_port() -> None:
    world = World()
    world.connect_sender("senders/a", last_group="239.192.0.0", last_port=7509)
    world.connect_sender("senders/b", last_group="239.192.0.0", last_port=7509)
    for number, machine in enumerate(machines(12)):
        world.open_session(name=f"sessions/{number}")
        world.join(machine, session=f"sessions/{number}")
    leases = world.live_leases()
    assert len(set(leases)) == len(leases) == 10


def test_15_a_place_held_by_a_machine_that_does_not_come_is_given_away() -> None:
    world = running_world(A, B, admission=AdmissionRules(max_participants=1))
    world.leave(A)
    world.answer_all()
    assert world.assigned(B)


def test_15_a_session_nobody_comes_to_does_not_hold_a_sender() -> None:
    world = World()
    world.connect_sender(max_concurrent=1)
    world.open_session(StartRules(min_clients=5))
    world.join(A)
    world.open_session(name="sessions/two")
    world.join(B, session="sessions/two")
    world.answer_all()
    assert world.assigned(B)


@pytest.mark.parametrize("reason", ["wlan0 is a wireless interface", "nothing arrives from the group"])
def test_16_and_18_a_machine_that_takes_no_multicast_is_served_beside_the_others_and_says_why(reason: str) -> None:
    world = running_world(A)
    world.dispatcher.join("sessions/one", Joiner(machine=B, unicast_only=True, no_multicast_reason=reason), world.now)
    world.settle()
    world.answer_all()
    assert world.assigned(B)
    world.crash()
    assert world.participant(B).unicast_only
    assert world.participant(B).no_multicast_reason == reason
    assert not world.participant(A).unicast_only


def test_17_the_rate_of_a_running_session_can_be_capped_and_freed() -> None:
    world = running_world(A)
    edit = world.dispatcher.operations.edit
    for ceiling in (10**8, 0):
        edit(world.session(), SessionEdit(rate=RatePolicy(ceiling_bits_per_second=ceiling)))
        world.settle()
        (command,) = world.orders["senders/a"]
        assert command == SetTransmissionRate(world.session().transmission, RatePolicy(ceiling_bits_per_second=ceiling))
        world.answer_all()


def test_an_ended_session_says_so_instead_of_letting_a_machine_wait() -> None:
    world = running_world(A)
    world.cancel()
    with pytest.raises(FailedPreconditionError, match="CANCELLED: join or create another one"):
        world.join(B)


def test_02_a_deployment_that_waits_says_what_for_for_each_machine() -> None:
    world = DeploymentWorld(2, maintenance_windows=(nightly(),))
    deployment = world.deploy()
    assert deployment.waiting_reason == "waits for the maintenance window at 2026-06-01T22:00:00+00:00"
    world.advance_to("2026-06-01T22:00:00+00:00")
    assert deployment.waiting_reason == "its agent is not connected"


def test_03_a_machine_that_was_switched_off_goes_on_with_the_run_that_it_had() -> None:
    world = DeploymentWorld(1)
    world.attend(1)
    world.deploy()
    world.depart(1)
    world.advance(3600)
    world.attend(1, run=world.run(1).name)
    world.finish(1)
    assert world.run(1).state is RunState.SUCCEEDED
    assert len(set(world.ordered(1))) == 1


def test_06_no_run_stays_in_progress_when_its_machine_never_comes_back() -> None:
    world = DeploymentWorld(1)
    world.attend(1)
    world.deploy(max_run_seconds=3600.0)
    world.crash()
    assert world.run(1).state is RunState.LOST
    world.advance(3600)
    assert world.run(1).state is RunState.FAILED
    assert not world.ledger.current


def test_07_all_that_failed_are_run_again_by_one_operation() -> None:
    world = DeploymentWorld(5)
    world.attend(1, 2, 3, 4, 5)
    deployment = world.deploy()
    world.fail(1, 2, 3)
    world.finish(4, 5)
    world.operations.retry(deployment, [], world.now)
    world.settle()
    assert +deployment.counts == {"running": 3, "succeeded": 2}


def test_07_what_is_shown_is_true_even_of_a_machine_whose_agent_vanished() -> None:
    world = DeploymentWorld(1)
    world.attend(1)
    deployment = world.deploy()
    world.progress(1)
    world.advance(42)
    contact_time = world.run(1).contact_time
    world.crash()
    assert world.run(1).state is RunState.LOST
    assert world.run(1).contact_time == contact_time
    assert world.deployment().counts["unknown"] == 1
    assert deployment.name == world.deployment().name


def test_a_running_sequence_can_be_stopped() -> None:
    world = DeploymentWorld(1)
    world.attend(1)
    deployment = world.deploy()
    world.operations.cancel(deployment, world.now)
    world.settle()
    assert world.told(1) == ["CANCEL"]


def test_schedules_count_in_the_boot_environment_because_the_server_keeps_them() -> None:
    world = DeploymentWorld(1)
    world.attend(1)
    world.deploy(available_time=ScheduleTime(utc=world.now + 60), expiry_time=ScheduleTime(utc=world.now + 120))
    assert not world.ordered(1)
    world.advance(59)
    assert not world.ordered(1)
    world.advance(1)
    assert world.ordered(1)


def test_a_machine_that_boots_from_the_network_is_not_installed_again_by_accident() -> None:
    world = DeploymentWorld(1)
    world.attend(1)
    world.deploy()
    world.finish(1)
    world.register(1)
    world.attend(1)
    assert len(world.ordered(1)) == 1
