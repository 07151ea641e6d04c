from __future__ import annotations

from dataclasses import replace

import pytest
from fleetcast_kit.errors import AbortedError, FailedPreconditionError, NotFoundError
from fleetcast_scheduler.senders.domain.commands import SetTransmissionRate
from fleetcast_scheduler.senders.domain.policies import DailyCeiling, RatePolicy
from fleetcast_scheduler.sessions.domain.admission import AdmissionRules, EndPolicy, LatePolicy
from fleetcast_scheduler.sessions.domain.events import Dismissal, DismissalReason, Waiting
from fleetcast_scheduler.sessions.domain.operations import SessionEdit
from fleetcast_scheduler.sessions.domain.participant import Joiner, ParticipantState
from fleetcast_scheduler.sessions.domain.session import SessionState
from fleetcast_scheduler.sessions.domain.start_rules import StartRules

from tests.unit.scheduler.sessions.actors import START, World, machines
from tests.unit.scheduler.sessions.test_sessions import A, B, C, running_world

RECEIVING, WAITING = ParticipantState.RECEIVING, ParticipantState.WAITING


def test_a_closed_session_takes_nobody_else_but_takes_back_whom_it_knows() -> None:
    world = running_world(A)
    world.dispatcher.operations.close(world.session())
    world.leave(A)
    with pytest.raises(FailedPreconditionError, match="closed") as caught:
        world.join(B)
    assert caught.value.reason == "SESSION_CLOSED"
    world.join(A)
    world.finish(A)
    assert world.state() is SessionState.COMPLETED


def test_closing_a_waiting_session_ends_the_wait_for_a_number() -> None:
    world = World()
    world.connect_sender()
    world.open_session(StartRules(min_clients=20))
    world.join(A)
    world.dispatcher.operations.close(world.session())
    world.settle()
    assert world.participant(A).state is RECEIVING


def test_closing_an_empty_session_completes_it() -> None:
    world = World()
    world.open_session(StartRules(min_clients=20))
    world.dispatcher.operations.close(world.session())
    world.settle()
    assert world.state() is SessionState.COMPLETED


def test_a_drained_session_lets_those_that_receive_finish() -> None:
    world = running_world(A, B, admission=AdmissionRules(max_participants=1))
    assert world.states() == {A: RECEIVING, B: WAITING}
    world.dispatcher.operations.drain(world.session(), world.now)
    world.settle()
    assert world.states() == {A: RECEIVING, B: ParticipantState.DISMISSED}
    world.finish(A)
    assert world.state() is SessionState.COMPLETED


def test_stopping_completes_at_once_and_dismisses_the_rest() -> None:
    world = running_world(A, B)
    world.finish(A)
    world.dispatcher.operations.stop(world.session(), world.now)
    world.settle()
    assert world.state() is SessionState.COMPLETED
    assert world.states() == {A: ParticipantState.SUCCEEDED, B: ParticipantState.DISMISSED}
    heard = world.last(B)
    assert isinstance(heard, Dismissal)
    assert (heard.reason, heard.detail) == (DismissalReason.REMOVED, "an operator stopped the session")


def test_a_kicked_machine_is_told_why_and_cannot_come_back() -> None:
    world = running_world(A, B)
    kick = world.dispatcher.operations.kick
    kick(world.session(), A, "wrong room", world.now)
    world.settle()
    heard = world.last(A)
    assert isinstance(heard, Dismissal)
    assert (heard.reason, heard.detail) == (DismissalReason.REMOVED, "wrong room")
    with pytest.raises(FailedPreconditionError, match="wrong room"):
        world.join(A)
    assert world.dispatcher.find_open(A, "images/win11") is world.session()
    with pytest.raises(NotFoundError):
        kick(world.session(), C, "", world.now)
    world.finish(B)
    with pytest.raises(FailedPreconditionError, match="SUCCEEDED"):
        kick(world.session(), B, "", world.now)


def test_never_more_than_the_maximum_receive_and_places_are_given_away() -> None:
    world = running_world(*machines(5), admission=AdmissionRules(max_participants=2))
    receiving = world.session().machines(RECEIVING)
    assert receiving == machines(5)[:2]
    world.advance(2)
    heard = world.last(machines(5)[3])
    assert isinstance(heard, Waiting)
    assert heard.reason == "waits for a place: 2 machines receive, which is the most; this one is number 2"
    world.finish(receiving[0])
    world.leave(receiving[1])
    assert world.session().machines(RECEIVING) == machines(5)[2:4]
    world.join(receiving[1])
    assert world.participant(receiving[1]).state is WAITING
    world.finish(machines(5)[2])
    assert world.participant(receiving[1]).state is RECEIVING, "who received before comes before who never did"
    assert world.participant(machines(5)[4]).state is WAITING


def test_late_machines_join_the_running_pass_by_default() -> None:
    world = running_world(A)
    world.join(B)
    world.answer_all()
    assert world.assigned(B)


def test_late_machines_are_refused_if_the_operator_says_so() -> None:
    world = running_world(A, admission=AdmissionRules(late_policy=LatePolicy.REFUSE))
    with pytest.raises(FailedPreconditionError, match="takes no late machines"):
        world.join(B)
    world.leave(A)
    world.join(A)
    assert world.participant(A).state is RECEIVING


def test_late_machines_wait_for_the_next_run_under_the_start_rules() -> None:
    world = running_world(
        A,
        rules=StartRules(min_clients=2, start_delay_seconds=60),
        admission=AdmissionRules(late_policy=LatePolicy.NEXT_RUN),
    )
    world.advance(60)
    assert world.participant(A).state is RECEIVING
    world.advance(600)
    world.join(B)
    assert world.participant(B).state is WAITING
    heard = world.last(B)
    assert isinstance(heard, Waiting)
    assert "next run" in heard.reason
    world.leave(A)
    world.join(A)
    assert world.participant(A).state is RECEIVING, "who belongs to the run comes back into it"
    world.finish(A)
    assert world.state() is SessionState.WAITING
    world.join(C)
    world.answer_all()
    assert world.state() is SessionState.RUNNING
    assert world.assigned(B)
    assert world.assigned(C)


@pytest.mark.parametrize(("policy", "state"), [(EndPolicy.FINISH, RECEIVING), (EndPolicy.STOP, None)])
def test_at_its_end_a_session_closes_and_finishes_or_stops(policy: EndPolicy, state: ParticipantState | None) -> None:
    world = running_world(A, admission=AdmissionRules(until_time=START + 100, end_policy=policy))
    world.advance(99)
    world.join(B)
    world.advance(1)
    assert world.session().closed
    if state is RECEIVING:
        assert world.participant(A).state is RECEIVING
        with pytest.raises(FailedPreconditionError, match="closed"):
            world.join(C)
    else:
        assert world.state() is SessionState.COMPLETED
        assert world.participant(A).error == "the session's time is over"


def test_a_session_that_has_not_started_by_its_end_starts_with_those_there_or_completes() -> None:
    world = World()
    world.connect_sender()
    world.open_session(StartRules(min_clients=9), admission=AdmissionRules(until_time=START + 10))
    world.open_session(StartRules(min_clients=9), name="sessions/two", admission=AdmissionRules(until_time=START + 10))
    world.join(A)
    world.advance(10)
    assert world.participant(A).state is RECEIVING
    assert world.state("sessions/two") is SessionState.COMPLETED


def test_extending_moves_the_end_and_the_start_that_have_not_come() -> None:
    world = World()
    rules, admission = StartRules(start_time=START + 50), AdmissionRules(until_time=START + 100)
    session = world.open_session(rules, admission=admission)
    world.dispatcher.operations.extend(session, 30)
    assert session.rules.start_time == START + 80
    assert session.admission.until_time == START + 130
    plain = world.open_session(name="sessions/two")
    with pytest.raises(FailedPreconditionError, match="no end and no start time"):
        world.dispatcher.operations.extend(plain, 30)


def test_a_waiting_session_can_be_edited_as_a_whole_and_the_edit_takes_effect() -> None:
    world = World()
    world.connect_sender()
    session = world.open_session(StartRules(min_clients=9))
    world.join(A)
    world.dispatcher.operations.edit(session, SessionEdit(rules=StartRules(min_clients=1)))
    world.settle()
    assert world.state() is SessionState.RUNNING


def test_a_running_session_changes_its_rate_but_not_its_start_rules() -> None:
    world = running_world(A)
    edit = world.dispatcher.operations.edit
    edit(world.session(), SessionEdit(rate=RatePolicy(fixed_bits_per_second=10**8)))
    world.settle()
    (command,) = world.orders["senders/a"]
    assert command == SetTransmissionRate(world.session().transmission, RatePolicy(fixed_bits_per_second=10**8))
    with pytest.raises(FailedPreconditionError, match="start_rules can change only while it waits"):
        edit(world.session(), SessionEdit(rules=StartRules(min_clients=3)))
    with pytest.raises(AbortedError, match="changed by somebody else"):
        edit(world.session(), SessionEdit(priority=3, etag="0"))
    edit(world.session(), SessionEdit(priority=3, etag=str(world.session().edit_count)))


def test_the_ceiling_changes_with_the_time_of_the_day() -> None:
    # The story begins at 08:00 UTC.
    office = DailyCeiling(9 * 60, 10 * 60, "UTC", 5)
    world = running_world(A, rate=RatePolicy(ceiling_bits_per_second=50, daily_ceilings=(office,)))
    told = []
    for _ in range(3):
        world.advance(3600)
        told += [order.rate.ceiling_bits_per_second for order in world.orders["senders/a"]]  # type: ignore[union-attr]
        world.answer_all()
    assert told == [5, 50]


def test_a_higher_priority_gets_the_free_sender_first() -> None:
    world = World()
    for number, priority in enumerate((0, 5, -5)):
        world.open_session(name=f"sessions/{number}", priority=priority)
        world.join(machines(3)[number], session=f"sessions/{number}")
    world.connect_sender(max_concurrent=1)
    assert world.state("sessions/1") is SessionState.RUNNING
    world.cancel("sessions/1")
    world.answer_all()
    assert world.state("sessions/0") is SessionState.RUNNING
    assert world.state("sessions/2") is SessionState.WAITING


def test_a_drained_sender_keeps_what_it_has_and_gets_nothing_new() -> None:
    world = running_world(A)
    world.dispatcher.drain_sender("senders/a", True)
    world.settle()
    world.open_session(name="sessions/two")
    world.join(B, session="sessions/two")
    assert world.state() is SessionState.RUNNING
    assert world.state("sessions/two") is SessionState.WAITING
    world.dispatcher.drain_sender("senders/a", False)
    world.settle()
    assert world.state("sessions/two") is SessionState.RUNNING


def test_editing_the_maximum_while_running_admits_those_who_wait() -> None:
    world = running_world(A, B, admission=AdmissionRules(max_participants=1))
    session = world.session()
    admission = replace(session.admission, max_participants=2)
    world.dispatcher.operations.edit(session, SessionEdit(admission=admission))
    world.settle()
    world.answer_all()
    assert world.assigned(B)


def test_a_thousand_machines_join_a_session_that_runs_in_order() -> None:
    world = running_world(A, admission=AdmissionRules(max_participants=100))
    for machine in machines(1000):
        world.dispatcher.join("sessions/one", Joiner(machine=machine), world.now)
    world.settle()
    assert world.session().machines(RECEIVING) == machines(100)
