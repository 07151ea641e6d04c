from __future__ import annotations

import pytest
from fleetcast_scheduler.senders.domain.commands import StopTransmission
from fleetcast_scheduler.senders.domain.transmission import (
    ReportState,
    TransmissionReport,
    TransmissionTotals,
    UnicastReason,
)
from fleetcast_scheduler.sessions.domain.events import Assignment
from fleetcast_scheduler.sessions.domain.participant import ReceptionTotals
from fleetcast_scheduler.sessions.domain.session import SessionState

from tests.unit.scheduler.sessions.actors import World, live, machines
from tests.unit.scheduler.sessions.test_sessions import A, B, running_world


def test_a_session_moves_to_another_sender_when_its_own_dies() -> None:
    world = running_world(A, B)
    world.connect_sender("senders/b", address="other:7444")
    (before,) = live(world)
    world.kill_sender("senders/a")
    world.advance(4.9)
    assert list(live(world)) == [before]
    world.advance(0.1)
    world.answer_all()
    (after,) = live(world)
    assert after != before
    heard = world.last(A)
    assert isinstance(heard, Assignment)
    assert (heard.transmission, heard.sender_address) == (after, "other:7444")


def test_a_lone_sender_that_comes_back_goes_on_with_what_it_still_runs() -> None:
    world = running_world(A)
    (before,) = live(world)
    world.disconnect_sender()
    assert "its stream is broken" in world.session().waiting_reason
    world.advance(60)
    world.connect_sender()
    world.answer_all()
    assert list(live(world)) == [before]
    assert world.assigned(A)
    assert world.session().waiting_reason == ""


def test_a_lone_sender_that_lost_everything_gets_a_new_transmission() -> None:
    world = running_world(A)
    (before,) = live(world)
    world.kill_sender()
    world.connect_sender()
    world.answer_all()
    (after,) = live(world)
    assert after != before
    assert world.assigned(A)


def test_a_sender_is_told_to_stop_what_nobody_wants() -> None:
    world = World()
    world.running["senders/a"] = {"sessions/gone/transmissions/1"}
    world.connect_sender()
    assert world.orders["senders/a"] == [StopTransmission("sessions/gone/transmissions/1")]


def test_a_report_of_something_unknown_is_answered_with_a_stop() -> None:
    world = running_world(A)
    report = TransmissionReport("sessions/x/transmissions/9", ReportState.SENDING, TransmissionTotals())
    world.dispatcher.report_transmission("senders/a", report, world.now)
    world.settle()
    assert world.orders["senders/a"] == [StopTransmission("sessions/x/transmissions/9")]


def test_a_transmission_that_the_sender_reports_as_failed_is_replaced() -> None:
    world = running_world(A)
    (before,) = live(world)
    report = TransmissionReport(before, ReportState.FAILED, TransmissionTotals(), "the network is unreachable")
    world.dispatcher.report_transmission("senders/a", report, world.now)
    world.settle()
    world.advance(1)
    world.answer_all()
    (after,) = live(world)
    assert after != before
    assert world.assigned(A)


def test_a_group_and_port_rest_after_the_stop_and_are_free_again_later() -> None:
    world = World()
    world.connect_sender(last_group="239.192.0.0", last_port=7500)
    world.open_session()
    world.join(A)
    world.answer_all()
    world.cancel("sessions/one")
    world.answer_all()
    world.open_session(name="sessions/two")
    world.join(B, session="sessions/two")
    assert world.state("sessions/two") is SessionState.WAITING
    assert "no free group and port" in world.session("sessions/two").waiting_reason
    world.advance(30)
    assert world.state("sessions/two") is SessionState.RUNNING


def test_the_least_loaded_sender_takes_the_next_session_and_its_limit_holds() -> None:
    world = World()
    world.connect_sender("senders/a", max_concurrent=1)
    world.connect_sender("senders/b", max_concurrent=2)
    for number, machine in enumerate(machines(4)):
        world.open_session(name=f"sessions/{number}")
        world.join(machine, session=f"sessions/{number}")
    world.answer_all()
    assert len(world.running["senders/a"]) == 1
    assert len(world.running["senders/b"]) == 2
    assert world.state("sessions/3") is SessionState.WAITING
    world.cancel("sessions/0")
    world.answer_all()
    assert world.state("sessions/3") is SessionState.RUNNING


def test_after_a_restart_of_the_scheduler_everything_goes_on() -> None:
    world = running_world(A, B)
    (before,) = live(world)
    world.crash()
    assert world.state() is SessionState.RUNNING
    world.connect_sender()
    world.join(A, B)
    world.answer_all()
    assert list(live(world)) == [before]
    assert world.assigned(A)
    assert world.assigned(B)


def test_after_a_restart_of_both_the_transmission_is_started_anew() -> None:
    world = running_world(A)
    (before,) = live(world)
    world.crash()
    world.kill_sender()
    world.connect_sender()
    world.join(A)
    world.answer_all()
    (after,) = live(world)
    assert after != before
    assert world.assigned(A)


def test_only_senders_of_the_session_s_site_serve_it() -> None:
    world = World()
    world.connect_sender("senders/a", site="south")
    world.open_session(site="north")
    world.join(A)
    assert world.session().waiting_reason == (
        "waits for a sender of the site north: none is connected; those of other sites serve it with --any-site"
    )
    world.connect_sender("senders/b", site="north")
    world.answer_all()
    assert world.running["senders/b"]
    assert not world.running["senders/a"]


@pytest.mark.parametrize("crashes", [False, True])
def test_a_site_that_is_cut_off_keeps_its_session_until_it_is_back(crashes: bool) -> None:
    world = World()
    world.connect_sender("senders/a", site="south")
    world.connect_sender("senders/b", site="north")
    world.open_session(site="north")
    world.join(A, B)
    world.answer_all()
    (before,) = live(world)
    if crashes:
        world.crash()
        world.connect_sender("senders/a", site="south")
        world.join(A, B)
    world.disconnect_sender("senders/b")
    world.advance(600)
    assert list(live(world)) == [before]
    world.connect_sender("senders/b", site="north")
    world.answer_all()
    assert list(live(world)) == [before]
    assert not world.running["senders/a"]


def test_with_any_site_another_sender_takes_over() -> None:
    world = World()
    world.connect_sender("senders/a", site="south")
    world.connect_sender("senders/b", site="north")
    world.open_session(site="north", any_site=True)
    world.join(A)
    world.answer_all()
    assert world.running["senders/b"]
    world.disconnect_sender("senders/b")
    world.advance(60)
    world.answer_all()
    assert world.running["senders/a"]


def test_with_any_site_senders_of_the_site_come_first_whatever_their_load() -> None:
    world = World()
    world.connect_sender("senders/a", site="south")
    world.connect_sender("senders/b", site="north", max_concurrent=2)
    for number, machine in enumerate(machines(3)):
        world.open_session(name=f"sessions/{number}", site="north", any_site=True)
        world.join(machine, session=f"sessions/{number}")
    world.answer_all()
    assert len(world.running["senders/b"]) == 2
    assert len(world.running["senders/a"]) == 1, "another site is better than none"


def test_a_session_that_waits_for_a_place_says_its_position_and_an_estimate() -> None:
    world = World()
    world.connect_sender(max_concurrent=1)
    names = [f"sessions/{number}" for number in range(3)]
    for name, machine in zip(names, machines(3), strict=True):
        world.open_session(name=name)
        world.join(machine, session=name)
        world.advance(1)
    world.answer_all()
    for second in range(60):
        world.now += 1
        totals = ReceptionTotals(size_bytes=10_000, written_bytes=10 * second)
        world.dispatcher.progress(names[0], machines(3)[0], totals, world.now)
    world.advance(20)
    reasons = [world.session(name).waiting_reason for name in names[1:]]
    assert reasons[0].endswith("number 1 in the queue, a place is expected in about 16 min")
    assert reasons[1].endswith("number 2 in the queue")
    world.open_session(name="sessions/urgent", priority=9)
    world.join("machines/9", session="sessions/urgent")
    waiting = [*names[1:], "sessions/urgent"]
    positions = [world.session(name).waiting_reason.partition("number ")[2][:1] for name in waiting]
    assert positions == ["2", "3", "1"]
    world.cancel(names[0])
    world.answer_all()
    assert world.state("sessions/urgent") is SessionState.RUNNING
    assert world.session(names[1]).waiting_reason.partition("number ")[2].startswith("1")


def test_a_sender_that_most_machines_cannot_reach_loses_the_session() -> None:
    world = running_world(*machines(4))
    world.connect_sender("senders/b")
    unreachable = world.dispatcher.sender_unreachable
    for machine in machines(2):
        unreachable("sessions/one", machine, world.now)
    world.settle()
    world.answer_all()
    assert world.running["senders/a"], "half of them may have a fault of their own"
    unreachable("sessions/one", machines(3)[2], world.now)
    world.settle()
    world.advance(1)
    world.answer_all()
    assert world.running == {"senders/a": set(), "senders/b": {"sessions/one/transmissions/2"}}


def test_a_lone_sender_that_nobody_reaches_keeps_the_session() -> None:
    world = running_world(A)
    world.dispatcher.sender_unreachable("sessions/one", A, world.now)
    world.settle()
    world.answer_all()
    assert world.assigned(A)
    assert world.running["senders/a"] == {"sessions/one/transmissions/1"}


def test_a_failed_transmission_is_tried_with_another_sender() -> None:
    world = running_world(A)
    world.connect_sender("senders/b")
    (name,) = live(world)
    report = TransmissionReport(name, ReportState.FAILED, TransmissionTotals(), "the disk is broken")
    world.dispatcher.report_transmission("senders/a", report, world.now)
    world.settle()
    world.advance(1)
    world.answer_all()
    assert world.running["senders/b"]


def test_why_a_machine_is_served_by_unicast_follows_what_its_sender_reports() -> None:
    world = running_world(A, B)
    (name,) = live(world)

    def report(unicast: dict[str, UnicastReason]) -> None:
        said = TransmissionReport(name, ReportState.SENDING, TransmissionTotals(), unicast=unicast)
        world.dispatcher.report_transmission("senders/a", said, world.now)

    participants = world.session().participants
    report({B: UnicastReason.DEAF})
    assert (participants[A].unicast_reason, participants[B].unicast_reason) == (None, UnicastReason.DEAF)
    revision = participants[B].revision
    report({B: UnicastReason.DEAF})
    assert participants[B].revision == revision, "what did not change is no news for a watch"
    report({})
    assert participants[B].unicast_reason is None
    assert participants[B].revision > revision
