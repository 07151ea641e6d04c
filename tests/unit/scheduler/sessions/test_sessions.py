from __future__ import annotations

import pytest
from fleetcast_kit.errors import FailedPreconditionError
from fleetcast_scheduler.senders.domain.commands import StartTransmission
from fleetcast_scheduler.senders.domain.policies import RatePolicy, SlowPolicy
from fleetcast_scheduler.sessions.domain.events import Dismissal, DismissalReason, Waiting
from fleetcast_scheduler.sessions.domain.participant import Joiner, ParticipantState, ReceptionTotals
from fleetcast_scheduler.sessions.domain.session import MAX_FAILURES, SessionMode, SessionState
from fleetcast_scheduler.sessions.domain.start_rules import StartRules

from tests.unit.scheduler.sessions.actors import IMAGE, World, live, machines

A, B, C = machines(3)


def running_world(*joined: str, **session: object) -> World:
    world = World()
    world.connect_sender()
    world.open_session(**session)  # type: ignore[arg-type]
    world.join(*joined)
    world.answer_all()
    return world


def test_a_machine_is_assigned_only_after_its_sender_was_told() -> None:
    world = World()
    world.connect_sender()
    world.open_session()
    world.join(A)
    assert world.state() is SessionState.RUNNING
    assert not world.assigned(A)
    world.answer_all()
    assert world.assigned(A)


def test_a_thousand_joins_at_once_are_one_admission() -> None:
    world = running_world(A)
    for machine in machines(1000):
        world.dispatcher.join("sessions/one", Joiner(machine=machine), world.now)
    world.settle()
    assert len(world.orders["senders/a"]) == 1
    world.answer_all()
    assert all(world.assigned(machine) for machine in machines(1000))


def test_a_scheduled_session_waits_for_its_machines_and_says_so() -> None:
    world = World()
    world.connect_sender()
    world.open_session(StartRules(min_clients=2))
    world.join(A)
    assert world.state() is SessionState.WAITING
    heard = world.last(A)
    assert isinstance(heard, Waiting)
    assert (heard.joined_count, heard.min_clients) == (1, 2)
    assert "2 machines (1 joined so far)" in heard.reason
    world.join(B)
    world.answer_all()
    assert world.state() is SessionState.RUNNING
    assert world.assigned(A)
    assert world.assigned(B)


def test_the_start_delay_starts_it_with_fewer_machines() -> None:
    world = World()
    world.connect_sender()
    world.open_session(StartRules(min_clients=20, start_delay_seconds=120))
    world.join(A)
    world.advance(119)
    assert world.state() is SessionState.WAITING
    world.advance(1)
    assert world.state() is SessionState.RUNNING


def test_a_machine_that_went_away_does_not_count_towards_the_start() -> None:
    world = World()
    world.connect_sender()
    world.open_session(StartRules(min_clients=2))
    world.join(A)
    world.leave(A)
    world.join(B)
    assert world.state() is SessionState.WAITING
    world.join(A)
    assert world.state() is SessionState.RUNNING


def test_an_operator_starts_it_at_any_time() -> None:
    world = World()
    world.connect_sender()
    world.open_session(StartRules(min_clients=9))
    world.join(A)
    world.start("sessions/one")
    assert world.state() is SessionState.RUNNING


def test_a_start_without_machines_leaves_it_idle_and_ready_for_the_first() -> None:
    world = World()
    world.connect_sender()
    world.open_session(StartRules(min_clients=9))
    world.start("sessions/one")
    assert world.state() is SessionState.IDLE
    world.join(A)
    world.answer_all()
    assert world.assigned(A)


def test_a_start_without_a_sender_is_remembered() -> None:
    world = World()
    world.open_session(StartRules(min_clients=9))
    world.join(A)
    world.start("sessions/one")
    assert "none is connected" in world.session().waiting_reason
    world.connect_sender()
    world.answer_all()
    assert world.assigned(A)


def test_without_a_sender_a_session_waits_and_says_so() -> None:
    world = World()
    world.open_session()
    world.join(A)
    assert world.state() is SessionState.WAITING
    assert world.session().waiting_reason == "waits for a sender: none is connected"
    heard = world.last(A)
    assert isinstance(heard, Waiting)
    assert "none is connected" in heard.reason
    world.connect_sender()
    world.answer_all()
    assert world.assigned(A)
    assert world.session().waiting_reason == ""


def test_a_session_completes_when_as_many_as_expected_have_ended() -> None:
    world = running_world(A, B, rules=StartRules(min_clients=2))
    world.finish(A)
    assert world.state() is SessionState.RUNNING
    world.finish(B)
    assert world.state() is SessionState.COMPLETED
    assert world.ended == ["sessions/one"]
    world.answer_all()
    assert world.running["senders/a"] == set()


def test_an_automatic_session_idles_runs_again_and_completes_by_itself() -> None:
    world = running_world(A, mode=SessionMode.AUTO)
    world.finish(A)
    assert world.state() is SessionState.IDLE
    world.answer_all()
    assert not world.running["senders/a"]
    world.advance(500)
    world.join(B)
    world.answer_all()
    assert world.state() is SessionState.RUNNING
    assert world.assigned(B)
    world.finish(B)
    world.advance(599)
    assert world.state() is SessionState.IDLE
    world.advance(1)
    assert world.state() is SessionState.COMPLETED
    assert world.ended == ["sessions/one"]


def test_a_lost_machine_comes_back_and_goes_on() -> None:
    world = running_world(A, B)
    world.advance(5)
    world.leave(A)
    assert world.participant(A).state is ParticipantState.LOST
    assert world.participant(A).contact_time == world.now - 5
    world.heard.clear()
    world.advance(30)
    world.join(A)
    world.answer_all()
    assert world.participant(A).state is ParticipantState.RECEIVING
    assert world.assigned(A)
    assert len(world.session().participants) == 2


def test_a_machine_that_never_comes_back_does_not_hold_the_session() -> None:
    world = running_world(A, B, rules=StartRules(min_clients=2))
    world.leave(A)
    world.finish(B)
    assert world.state() is SessionState.RUNNING
    world.advance(60)
    assert world.state() is SessionState.IDLE
    world.advance(600)
    assert world.state() is SessionState.COMPLETED
    assert world.participant(A).state is ParticipantState.FAILED
    assert "did not come back" in world.participant(A).error


def test_cancelling_tells_every_machine_and_stops_the_sender() -> None:
    world = running_world(A, B)
    world.finish(B)
    world.cancel("sessions/one")
    heard = world.last(A)
    assert isinstance(heard, Dismissal)
    assert heard.reason is DismissalReason.CANCELLED
    assert world.states() == {A: ParticipantState.DISMISSED, B: ParticipantState.SUCCEEDED}
    world.answer_all()
    assert not world.running["senders/a"]
    world.cancel("sessions/one")
    assert world.ended == ["sessions/one"]


def test_a_target_that_is_too_small_is_refused_with_both_sizes() -> None:
    world = running_world()
    with pytest.raises(FailedPreconditionError, match=r"999 bytes .* needs 1000") as caught:
        world.join(A, size=999)
    assert caught.value.reason == "TARGET_TOO_SMALL"
    assert not world.session().participants
    world.join(A, size=1000)


def test_an_ended_session_takes_nobody_but_remembers_who_succeeded() -> None:
    world = running_world(A, B, rules=StartRules(min_clients=2))
    world.finish(A)
    world.finish(B, error="the disk is full")
    world.heard.clear()
    world.join(A)
    heard = world.last(A)
    assert isinstance(heard, Dismissal)
    assert heard.reason is DismissalReason.DONE
    for machine in (B, C):
        with pytest.raises(FailedPreconditionError, match="COMPLETED"):
            world.join(machine)


def test_a_machine_that_failed_may_try_again_while_the_session_is_open() -> None:
    world = running_world(A, B)
    world.finish(A, error="the disk is full")
    assert world.participant(A).state is ParticipantState.FAILED
    world.join(A)
    world.answer_all()
    assert world.participant(A).state is ParticipantState.RECEIVING
    assert world.participant(A).error == ""
    assert world.session().failed_count == 0


def test_a_joining_machine_finds_its_unfinished_session_even_if_a_newer_image_exists() -> None:
    world = running_world(A)
    assert world.dispatcher.find_open(A, "images/win11") is world.session()
    assert world.dispatcher.find_open(B, "images/win11") is None
    assert world.dispatcher.find_open(B, IMAGE) is world.session()


def test_reports_give_a_rate_and_a_time_to_the_end() -> None:
    world = running_world(A)
    for second in range(1, 30):
        world.now += 1
        totals = ReceptionTotals(size_bytes=1000, written_bytes=second * 10)
        world.dispatcher.progress("sessions/one", A, totals, world.now)
    participant = world.participant(A)
    assert participant.rate_bytes_per_second == pytest.approx(10, rel=0.01)
    assert participant.remaining_seconds == pytest.approx(71, abs=1)


def test_reports_make_no_decision_to_be_stored_at_once() -> None:
    world = running_world(A)
    world.dispatcher.ledger.changed_sessions.clear()
    world.dispatcher.ledger.changed_participants.clear()
    world.dispatcher.progress("sessions/one", A, ReceptionTotals(), world.now)
    assert not world.dispatcher.ledger.changed_sessions
    assert not world.dispatcher.ledger.changed_participants
    assert world.dispatcher.ledger.reported == {("sessions/one", A)}
    assert not world.dispatcher.ledger.unsettled


def test_a_machine_that_cannot_reach_its_sender_is_admitted_and_assigned_again() -> None:
    world = running_world(A)
    world.heard.clear()
    world.dispatcher.sender_unreachable("sessions/one", A, world.now)
    world.settle()
    world.answer_all()
    assert world.assigned(A)


def test_a_transmission_that_fails_is_replaced_after_a_growing_pause_until_the_session_fails() -> None:
    world = running_world(A)
    names = set()
    for failure in range(MAX_FAILURES):
        (name,) = live(world)
        names.add(name)
        world.dispatcher.answer_command("senders/a", _start_of(name), "the socket cannot be opened", world.now)
        world.settle()
        if failure < MAX_FAILURES - 1:
            assert "the socket cannot be opened" in world.session().waiting_reason
            world.advance(2**failure)
        world.answer_all()
    assert world.state() is SessionState.FAILED
    assert "6 transmissions in a row failed; the last one: the socket cannot be opened" in world.session().error
    assert len(names) == MAX_FAILURES
    heard = world.last(A)
    assert isinstance(heard, Dismissal)
    assert heard.reason is DismissalReason.SESSION_FAILED


def test_waiting_machines_hear_of_each_other_at_most_once_a_second() -> None:
    world = World()
    world.open_session(StartRules(min_clients=500))
    for number, machine in enumerate(machines(100)):
        world.now += 0.001 * number
        world.join(machine)
    assert len(world.heard[machines(1)[0]]) < 10
    world.advance(1)
    heard = world.last(machines(1)[0])
    assert isinstance(heard, Waiting)
    assert heard.joined_count == 100


def _start_of(name: str) -> StartTransmission:
    return StartTransmission(name, IMAGE, "239.192.0.1", 7500, RatePolicy(), (), "", SlowPolicy())
