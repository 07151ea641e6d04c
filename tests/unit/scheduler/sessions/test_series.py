from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from fleetcast_kit.errors import FailedPreconditionError, InvalidArgumentError
from fleetcast_scheduler.sessions.domain.admission import AdmissionRules
from fleetcast_scheduler.sessions.domain.operations import SessionEdit, begin_series
from fleetcast_scheduler.sessions.domain.participant import ParticipantState
from fleetcast_scheduler.sessions.domain.session import Session, SessionState
from fleetcast_scheduler.sessions.domain.start_rules import Match, StartRules

from tests.unit.scheduler.sessions.actors import World
from tests.unit.scheduler.sessions.test_sessions import A, B

HOUR, DAY = 3600.0, 86400.0
BERLIN = ZoneInfo("Europe/Berlin")
SECOND = "sessions/one-2"


def berlin(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN).timestamp()


def nightly(
    world: World,
    start: str,
    *,
    until: str = "",
    rule: str = "FREQ=DAILY",
    match: Match = Match.ALL,
    min_clients: int = 0,
) -> Session:
    """Opens a session that recurs, an hour before its first start."""
    world.now = berlin(start) - HOUR
    start_rules = StartRules(start_time=berlin(start), match=match, min_clients=min_clients)
    admission = AdmissionRules(until_time=berlin(until) if until else None)
    series = begin_series(rule, "Europe/Berlin", start_rules, admission)
    return world.open_session(start_rules, admission=admission, series=series)


def run_once(world: World, name: str = "sessions/one", machine: str = A) -> None:
    """Lets one machine come and get the image."""
    world.join(machine, session=name)
    if world.state(name) is SessionState.WAITING:
        world.advance((world.session(name).rules.start_time or world.now) - world.now)
    world.answer_all()
    world.finish(machine, session=name)


def starts_on_the_clock(session: Session) -> str:
    return datetime.fromtimestamp(session.rules.start_time or 0, BERLIN).strftime("%m-%d %H:%M")


def test_the_next_occurrence_is_there_when_the_one_before_has_ended_and_waits_for_its_time() -> None:
    world = World()
    world.connect_sender()
    nightly(world, "2027-01-15T02:00", min_clients=1)
    run_once(world)
    world.advance(600)
    assert world.state() is SessionState.COMPLETED
    following = world.session(SECOND)
    assert (following.state, starts_on_the_clock(following)) == (SessionState.WAITING, "01-16 02:00")
    assert following.image == world.session().image
    assert world.opened == [SECOND]
    run_once(world, SECOND)
    assert datetime.fromtimestamp(following.start_time or 0, BERLIN).strftime("%d %H:%M") == "16 02:00"
    assert starts_on_the_clock(world.session("sessions/one-3")) == "01-17 02:00"


def test_two_in_the_morning_stays_two_on_the_clock_over_both_changes_of_the_clocks() -> None:
    for start, times in (
        ("2027-03-27T02:00", ["03-27 02:00", "03-28 03:00", "03-29 02:00"]),
        ("2027-10-30T02:30", ["10-30 02:30", "10-31 02:30", "11-01 02:30"]),
    ):
        world = World()
        world.connect_sender()
        nightly(world, start, min_clients=1)
        seen = []
        for name in ("sessions/one", SECOND, "sessions/one-3"):
            seen.append(starts_on_the_clock(world.session(name)))
            run_once(world, name)
        assert seen == times


def test_the_end_of_the_window_stays_where_it_is_on_the_clock() -> None:
    world = World()
    nightly(world, "2027-03-27T22:00", until="2027-03-28T06:00")
    world.advance(HOUR + 8 * HOUR)
    assert world.state() is SessionState.COMPLETED, "until 06:00, an hour of which the clocks skip"
    assert world.session(SECOND).admission.until_time == berlin("2027-03-29T06:00")


def test_a_window_to_which_nobody_came_ends_at_its_end_and_the_next_opens() -> None:
    world = World()
    nightly(world, "2027-01-15T22:00", until="2027-01-16T06:00")
    world.advance(9 * HOUR)
    assert world.state() is SessionState.COMPLETED
    assert starts_on_the_clock(world.session(SECOND)) == "01-16 22:00"
    assert "2027-01-16 21:00:00 UTC" in world.session(SECOND).waiting_reason


def test_a_window_that_cannot_start_says_why_and_becomes_the_next_with_its_machines() -> None:
    world = World()
    world.connect_sender()
    session = nightly(world, "2027-01-15T02:00", min_clients=2)
    world.join(A)
    world.advance(2 * DAY)
    assert session.state is SessionState.WAITING
    assert starts_on_the_clock(session) == "01-16 02:00"
    assert "2 machines (1 joined so far)" in session.waiting_reason
    assert "could not start" in session.waiting_reason
    assert list(world.dispatcher.ledger.sessions) == ["sessions/one"]
    world.join(B)
    world.advance(0)
    assert world.states() == {A: ParticipantState.RECEIVING, B: ParticipantState.RECEIVING}


def test_one_that_is_idle_when_the_next_is_due_gives_way() -> None:
    world = World()
    world.connect_sender()
    nightly(world, "2027-01-15T02:00", match=Match.ANY, min_clients=2)
    world.join(A)
    world.advance(DAY + HOUR - 60)
    world.answer_all()
    world.finish(A)
    assert world.state() is SessionState.IDLE
    world.advance(60)
    assert world.state() is SessionState.COMPLETED
    assert starts_on_the_clock(world.session(SECOND)) == "01-16 02:00"


def test_one_that_runs_longer_than_a_day_delays_the_next_and_only_the_last_missed_one_opens() -> None:
    world = World()
    world.connect_sender()
    nightly(world, "2027-01-15T02:00", min_clients=1)
    world.join(A)
    world.advance(3 * DAY + 2 * HOUR)
    world.answer_all()
    assert world.state() is SessionState.RUNNING
    assert SECOND not in world.dispatcher.ledger.sessions
    world.finish(A)
    assert starts_on_the_clock(world.session(SECOND)) == "01-18 02:00"
    world.join(B, session=SECOND)
    assert world.state(SECOND) is SessionState.RUNNING


def test_a_delayed_window_whose_end_has_passed_is_left_out() -> None:
    world = World()
    world.connect_sender()
    nightly(world, "2027-01-15T02:00", until="2027-01-15T04:00", min_clients=1)
    world.join(A)
    world.advance(DAY + 6 * HOUR)
    world.finish(A)
    assert starts_on_the_clock(world.session(SECOND)) == "01-17 02:00"


def test_the_last_occurrence_has_no_next() -> None:
    world = World()
    world.connect_sender()
    nightly(world, "2027-01-15T02:00", rule="FREQ=DAILY;COUNT=2", min_clients=1)
    run_once(world)
    run_once(world, SECOND)
    assert world.state(SECOND) is SessionState.COMPLETED
    assert "sessions/one-3" not in world.dispatcher.ledger.sessions


def test_cancelling_one_occurrence_leaves_the_next() -> None:
    world = World()
    nightly(world, "2027-01-15T02:00")
    world.cancel()
    assert world.state() is SessionState.CANCELLED
    assert starts_on_the_clock(world.session(SECOND)) == "01-16 02:00"


def test_cancelling_the_series_leaves_nothing() -> None:
    world = World()
    session = nightly(world, "2027-01-15T02:00")
    world.dispatcher.operations.cancel(session, world.now, series=True)
    world.settle()
    assert list(world.dispatcher.ledger.sessions) == ["sessions/one"]


def test_a_cleared_recurrence_lets_the_present_one_finish_and_none_follow() -> None:
    world = World()
    world.connect_sender()
    session = nightly(world, "2027-01-15T02:00", min_clients=1)
    world.join(A)
    world.advance(HOUR)
    world.dispatcher.operations.edit(session, SessionEdit(recurrence=""))
    world.answer_all()
    world.finish(A)
    assert world.state() is SessionState.COMPLETED
    assert list(world.dispatcher.ledger.sessions) == ["sessions/one"]


def test_a_window_moved_for_one_night_is_back_at_its_time_the_next() -> None:
    world = World()
    world.connect_sender()
    session = nightly(world, "2027-01-15T02:00", min_clients=1)
    world.dispatcher.operations.extend(session, 3 * HOUR)
    run_once(world)
    assert datetime.fromtimestamp(session.start_time or 0, BERLIN).strftime("%H:%M") == "05:00"
    assert starts_on_the_clock(world.session(SECOND)) == "01-16 02:00"


def test_what_was_changed_holds_for_later_occurrences() -> None:
    world = World()
    session = nightly(world, "2027-01-15T02:00")
    world.dispatcher.operations.edit(session, SessionEdit(priority=7, recurrence="FREQ=WEEKLY"))
    world.cancel()
    following = world.session(SECOND)
    assert (following.priority, starts_on_the_clock(following)) == (7, "01-22 02:00")


def test_an_occurrence_whose_image_is_gone_ends_the_series() -> None:
    world = World()
    nightly(world, "2027-01-15T02:00")
    world.dispatcher.fail("sessions/one", "its image is gone", world.now)
    world.settle()
    assert list(world.dispatcher.ledger.sessions) == ["sessions/one"]


def test_a_crash_between_two_occurrences_loses_neither() -> None:
    world = World()
    world.connect_sender()
    nightly(world, "2027-01-15T02:00", min_clients=1)
    run_once(world)
    world.crash()
    world.connect_sender()
    assert starts_on_the_clock(world.session(SECOND)) == "01-16 02:00"
    run_once(world, SECOND)
    assert world.state(SECOND) is SessionState.COMPLETED


def test_a_recurrence_needs_a_start_time_and_must_recur() -> None:
    with pytest.raises(InvalidArgumentError, match=r"set start_rules\.start_time"):
        begin_series("FREQ=DAILY", "", StartRules(), AdmissionRules())
    with pytest.raises(InvalidArgumentError, match="never recurs after 2027-01-15 01:00:00 UTC"):
        begin_series("FREQ=DAILY;COUNT=1", "", StartRules(start_time=berlin("2027-01-15T02:00")), AdmissionRules())
    world = World()
    session = world.open_session(StartRules(start_time=world.now + 10))
    with pytest.raises(FailedPreconditionError, match="does not recur"):
        world.dispatcher.operations.edit(session, SessionEdit(time_zone="Europe/Berlin"))
