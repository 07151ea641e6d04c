from __future__ import annotations

import pytest
from fleetcast_kit.errors import FailedPreconditionError, NotFoundError
from fleetcast_scheduler.senders.domain.commands import AdmitParticipants, MoveToUnicast, StartTransmission
from fleetcast_scheduler.sessions.domain.participant import ParticipantState, ReceptionTotals
from fleetcast_scheduler.sessions.domain.session import SessionState
from fleetcast_scheduler.sessions.domain.start_rules import StartRules

from tests.unit.scheduler.sessions.actors import World, live, machines
from tests.unit.scheduler.sessions.test_sessions import A, B, C, running_world

LOST, FAILED = ParticipantState.LOST, ParticipantState.FAILED
ROOM = {machine: f"PC-{number:02}" for number, machine in enumerate(machines(6), 1)}


def awaiting_world(rules: StartRules | None = None) -> World:
    world = World()
    world.connect_sender()
    world.open_session(rules or StartRules(min_clients=6), collection="collections/room-1")
    world.dispatcher.expect("sessions/one", dict(ROOM))
    world.settle()
    return world


def test_a_waiting_session_names_at_most_three_of_those_who_are_missing() -> None:
    world = awaiting_world()
    assert world.session().waiting_reason.endswith("missing: PC-01, PC-02, PC-03 and 3 more")
    world.join(*machines(4))
    assert world.session().waiting_reason.endswith("6 machines (4 joined so far); missing: PC-05, PC-06")
    world.leave(machines(4)[0])
    assert world.session().waiting_reason.endswith("missing: PC-05, PC-06; gone again: machines/0")


def test_only_machines_of_its_collection_join_a_session() -> None:
    world = awaiting_world(StartRules())
    with pytest.raises(FailedPreconditionError, match="fleetcast collection add room-1 guest") as refused:
        world.join("machines/guest")
    assert refused.value.reason == "NOT_A_MEMBER"
    world.join(A)
    world.dispatcher.expect("sessions/one", {})
    world.leave(A)
    world.join(A)
    assert world.participant(A).state is ParticipantState.RECEIVING, "who has begun may end, also after leaving it"


def test_a_session_completes_when_all_of_its_collection_have_ended() -> None:
    world = awaiting_world(StartRules())
    for machine in machines(6):
        assert world.state() is not SessionState.COMPLETED
        world.join(machine)
        world.answer_all()
        world.finish(machine)
    assert world.state() is SessionState.COMPLETED


def test_who_left_the_collection_is_awaited_no_longer() -> None:
    world = awaiting_world(StartRules())
    world.join(A)
    world.answer_all()
    world.finish(A)
    assert world.state() is SessionState.IDLE
    world.dispatcher.expect("sessions/one", {A: "PC-01"})
    world.settle()
    assert world.state() is SessionState.COMPLETED


def test_a_machine_served_apart_stays_in_the_session() -> None:
    world = running_world(A, B)
    world.dispatcher.operations.serve_apart(world.session(), A)
    world.settle()
    (name,) = live(world)
    assert world.orders["senders/a"] == [MoveToUnicast(name, (A,))]
    world.answer_all()
    assert world.participant(A).state is ParticipantState.RECEIVING
    world.dispatcher.operations.serve_apart(world.session(), A)
    world.settle()
    assert world.orders["senders/a"] == []


def test_another_sender_is_told_who_is_served_apart_and_so_is_one_that_comes_back() -> None:
    world = running_world(A, B)
    world.dispatcher.operations.serve_apart(world.session(), A)
    world.settle()
    world.answer_all()
    world.disconnect_sender()
    world.connect_sender()
    told = [type(order) for order in world.orders["senders/a"]]
    assert told.index(AdmitParticipants) < told.index(MoveToUnicast)
    world.answer_all()
    world.connect_sender("senders/b")
    world.kill_sender("senders/a")
    world.advance(5)
    (start,) = world.orders["senders/b"]
    assert isinstance(start, StartTransmission)
    world.answer("senders/b")
    assert world.orders["senders/b"] == [MoveToUnicast(start.transmission, (A,))]


def test_a_crash_forgets_nobody_who_is_served_apart() -> None:
    world = running_world(A)
    world.dispatcher.operations.serve_apart(world.session(), A)
    world.settle()
    world.crash()
    world.connect_sender()
    world.join(A)
    world.answer_all()
    assert world.participant(A).apart
    assert world.participant(A).state is ParticipantState.RECEIVING


def test_who_has_ended_is_not_served_apart() -> None:
    world = running_world(A, B)
    world.finish(A)
    with pytest.raises(FailedPreconditionError, match="has ended"):
        world.dispatcher.operations.serve_apart(world.session(), A)
    with pytest.raises(NotFoundError):
        world.dispatcher.operations.serve_apart(world.session(), C)


def test_all_that_failed_are_tried_again_and_awaited_for_a_while() -> None:
    world = running_world(A, B, C)
    world.finish(A, B, error="the disk is full")
    assert world.dispatcher.operations.retry(world.session(), [], world.now) == [
        world.participant(A),
        world.participant(B),
    ]
    world.settle()
    assert world.states() == {A: LOST, B: LOST, C: ParticipantState.RECEIVING}
    world.join(A)
    assert world.participant(A).state is ParticipantState.RECEIVING
    world.answer_all()
    world.finish(A, C)
    assert world.state() is SessionState.RUNNING, "B may still come"


def test_a_machine_that_was_taken_out_is_tried_again_only_by_name() -> None:
    world = running_world(A, B)
    world.dispatcher.operations.kick(world.session(), A, "", world.now)
    assert world.dispatcher.operations.retry(world.session(), [], world.now) == []
    with pytest.raises(FailedPreconditionError, match="taken out"):
        world.join(A)
    world.dispatcher.operations.retry(world.session(), [A], world.now)
    world.join(A)
    assert world.participant(A).state is ParticipantState.RECEIVING


def test_retrying_changes_nobody_who_receives_or_has_the_image() -> None:
    world = running_world(A, B)
    world.finish(A)
    before = world.session().edit_count
    world.dispatcher.operations.retry(world.session(), [A, B], world.now)
    assert world.states() == {A: ParticipantState.SUCCEEDED, B: ParticipantState.RECEIVING}
    assert world.session().edit_count == before


def test_an_ended_session_retries_nobody() -> None:
    world = running_world(A)
    world.cancel()
    with pytest.raises(FailedPreconditionError, match="CANCELLED"):
        world.dispatcher.operations.retry(world.session(), [A], world.now)


def test_the_sender_in_the_machines_subnet_comes_before_a_less_loaded_one() -> None:
    world = World()
    world.connect_sender("senders/near", subnets=("10.1.0.0/16", "fd00:1::/64"))
    world.connect_sender("senders/far", subnets=("10.2.0.0/16",))
    for number, address in enumerate(("10.1.0.7", "fd00:1::7", "10.1.0.9")):
        name = f"sessions/{number}"
        world.open_session(name=name)
        world.join(A, session=name, address=address)
    assert {one.sender for one in world.dispatcher.pool.transmissions.values()} == {"senders/near"}


def test_most_machines_decide_and_the_site_comes_before_the_subnet() -> None:
    world = World()
    world.connect_sender("senders/a", subnets=("10.1.0.0/16",), site="north")
    world.connect_sender("senders/b", subnets=("10.2.0.0/16",), site="south")
    for name, site in (("sessions/one", ""), ("sessions/two", "north")):
        world.open_session(StartRules(min_clients=3), name=name, site=site)
        for machine, address in ((A, "10.1.0.7"), (B, "10.2.0.7"), (C, "10.2.0.8")):
            world.join(machine, session=name, address=address)
    chosen = {one.session: one.sender for one in world.dispatcher.pool.transmissions.values()}
    assert chosen == {"sessions/one": "senders/b", "sessions/two": "senders/a"}


def test_among_senders_of_one_subnet_the_least_loaded_is_chosen() -> None:
    world = World()
    for name in ("senders/a", "senders/b"):
        world.connect_sender(name, subnets=("10.1.0.0/16",))
    for name in ("sessions/one", "sessions/two"):
        world.open_session(name=name)
        world.join(A, session=name, address="10.1.0.7")
    assert {one.sender for one in world.dispatcher.pool.transmissions.values()} == {"senders/a", "senders/b"}


def warning(world: World) -> str:
    pool = world.dispatcher.pool
    return next(filter(None, map(pool.multicast_warning, pool.transmissions.values())), "")


def test_a_sender_in_none_of_the_machines_subnets_is_warned_of_with_what_to_do() -> None:
    world = World()
    world.connect_sender("senders/a", interface="office0", subnets=("192.0.2.0/24",))
    world.open_session()
    world.join(A, address="10.77.0.2")
    world.answer_all()
    assert "10.77.0.2" in warning(world)
    assert "office0 (192.0.2.0/24)" in warning(world)
    assert "--multicast-interface" in warning(world)


@pytest.mark.parametrize(
    ("subnets", "address"), [(("10.77.0.0/24",), "10.77.0.2"), ((), "10.77.0.2"), (("192.0.2.0/24",), "")]
)
def test_nobody_is_warned_where_a_machine_is_near_or_nothing_is_known(subnets: tuple[str, ...], address: str) -> None:
    world = World()
    world.connect_sender("senders/a", interface="office0", subnets=subnets)
    world.open_session()
    world.join(A, address=address)
    world.answer_all()
    assert not warning(world)


def test_multicast_that_arrives_through_routers_is_not_warned_of() -> None:
    world = World()
    world.connect_sender("senders/a", interface="office0", subnets=("192.0.2.0/24",))
    world.open_session()
    world.join(A, address="10.77.0.2")
    world.answer_all()
    world.dispatcher.progress("sessions/one", A, ReceptionTotals(size_bytes=1000, datagram_count=1), world.now)
    assert not warning(world)
