from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from fleetcast.catalog.v1 import image_pb2
from fleetcast.scheduler.v1 import participation_service_pb2, session_pb2, session_service_pb2
from fleetcast.scheduler.v1.session_service_pb2_grpc import SessionServiceStub
from fleetcast_kit.errors import from_rpc_error
from fleetcast_kit.identity.peer import Role
from fleetcast_scheduler.sessions.domain.session import Timing
from google.protobuf.duration_pb2 import Duration

from tests.integration.scheduler_actors import IMAGE, SIZE_BYTES, FakeMachine, FakeSender, Site, open_site
from tests.support.waiting import until

STATES = session_pb2.Session.State
TIMING = Timing(idle=0.5, lost=0.3, sender_grace=0.3, quarantine=0.2, notice=0.1, retry=0.1)


@pytest.fixture
async def site(tmp_path: Path, database_url: str) -> AsyncIterator[Site]:
    async with open_site(tmp_path, TIMING, database_url) as opened:
        yield opened


async def get(operator: Any, name: str) -> session_pb2.Session:
    answer = await operator.GetSession(session_service_pb2.GetSessionRequest(name=name))
    return answer.session  # type: ignore[no-any-return]


async def until_state(operator: Any, name: str, state: int) -> session_pb2.Session:
    async def reached() -> bool:
        return (await get(operator, name)).state == state

    await until(reached)
    return await get(operator, name)


async def create(operator: Any, **request: Any) -> session_pb2.Session:
    answer = await operator.CreateSession(session_service_pb2.CreateSessionRequest(image="images/win11", **request))
    return answer.session  # type: ignore[no-any-return]


async def test_the_first_machine_opens_a_session_and_later_ones_join_it(site: Site) -> None:
    sender = FakeSender(site)
    await sender.connect()
    first, second = FakeMachine(site, "1"), FakeMachine(site, "2")
    await first.join(image="images/win11")
    assignment = await first.hear("assignment")
    assert assignment.image == IMAGE
    assert assignment.size_bytes == SIZE_BYTES
    assert assignment.sender_address == "sender-a:7444"
    assert site.catalog.held == {assignment.session: IMAGE}
    await second.join(image=IMAGE)
    assert (await second.hear("assignment")).transmission == assignment.transmission
    assert sender.admitted[assignment.transmission] == {"machines/1", "machines/2"}
    for machine in (first, second):
        await machine.finish()
        await machine.hear("dismissal")
        assert machine.acknowledged == 2
    session = await until_state(site.operator(), assignment.session, STATES.STATE_IDLE)
    assert session.mode == session_pb2.Session.MODE_AUTO
    assert session.succeeded_count == 2
    await until(lambda: not sender.running)
    await until_state(site.operator(), assignment.session, STATES.STATE_COMPLETED)
    await until(lambda: not site.catalog.held)


async def test_many_machines_that_ask_at_once_share_one_session_and_few_admissions(site: Site) -> None:
    sender = FakeSender(site)
    await sender.connect()
    machines = [FakeMachine(site, str(number)) for number in range(30)]
    await asyncio.gather(*(machine.join(image="images/win11") for machine in machines))
    assignments = await asyncio.gather(*(machine.hear("assignment") for machine in machines))
    assert len({assignment.session for assignment in assignments}) == 1
    assert len(site.catalog.held) == 1


async def test_a_scheduled_session_waits_starts_and_completes(site: Site) -> None:
    sender = FakeSender(site)
    await sender.connect()
    operator = site.operator()
    session = await create(operator, start_rules=session_pb2.StartRules(min_clients=2))
    assert session.state == STATES.STATE_WAITING
    assert "2 machines (0 joined so far)" in session.waiting_reason
    first, second = FakeMachine(site, "1"), FakeMachine(site, "2")
    await first.join(session=session.name)
    waiting = await first.hear("waiting")
    assert (waiting.joined_count, waiting.min_clients) == (1, 2)
    await second.join(session=session.name)
    for machine in (first, second):
        await machine.hear("assignment")
        await machine.finish()
        await machine.hear("dismissal")
    ended = await until_state(operator, session.name, STATES.STATE_COMPLETED)
    assert ended.succeeded_count == 2


async def test_a_start_delay_starts_with_fewer_machines(site: Site) -> None:
    await FakeSender(site).connect()
    rules = session_pb2.StartRules(min_clients=9, start_delay=Duration(nanos=200_000_000))
    session = await create(site.operator(), start_rules=rules)
    machine = FakeMachine(site, "1")
    await machine.join(session=session.name)
    await machine.hear("waiting")
    await machine.hear("assignment")


async def test_a_session_without_a_sender_waits_says_so_and_starts_when_one_comes(site: Site) -> None:
    machine = FakeMachine(site, "1")
    await machine.join(image="images/win11")
    waiting = await machine.hear("waiting")
    assert "none is connected" in waiting.reason
    sender = FakeSender(site)
    await sender.connect()
    await machine.hear("assignment")


async def test_creating_twice_with_one_request_id_makes_one_session(site: Site) -> None:
    operator = site.operator()
    made = await asyncio.gather(*(create(operator, request_id="6f1c") for _ in range(5)))
    assert len({session.name for session in made}) == 1
    assert len(site.catalog.held) == 1


async def test_cancelling_twice_ends_everything_once(site: Site) -> None:
    sender = FakeSender(site)
    await sender.connect()
    operator, machine = site.operator(), FakeMachine(site, "1")
    await machine.join(image="images/win11")
    name = (await machine.hear("assignment")).session
    for _ in range(2):
        answer = await operator.CancelSession(session_service_pb2.CancelSessionRequest(name=name))
        assert answer.session.state == STATES.STATE_CANCELLED
    assert (await machine.hear("dismissal")).reason == 2
    await until(lambda: not sender.running)
    await until(lambda: not site.catalog.held)


async def test_starting_by_hand_beats_the_rules(site: Site) -> None:
    await FakeSender(site).connect()
    operator = site.operator()
    session = await create(operator, start_rules=session_pb2.StartRules(min_clients=5))
    machine = FakeMachine(site, "1")
    await machine.join(session=session.name)
    await machine.hear("waiting")
    answer = await operator.StartSession(session_service_pb2.StartSessionRequest(name=session.name))
    assert answer.session.state == STATES.STATE_RUNNING
    await machine.hear("assignment")


async def test_a_watch_shows_a_snapshot_then_changes_and_ends_with_the_session(site: Site) -> None:
    sender = FakeSender(site)
    await sender.connect()
    operator = site.operator()
    session = await create(operator, start_rules=session_pb2.StartRules(min_clients=2))
    first, second = FakeMachine(site, "1"), FakeMachine(site, "2")
    await first.join(session=session.name)
    await first.hear("waiting")
    watch = operator.WatchSession(session_service_pb2.WatchSessionRequest(name=session.name))
    snapshot = await watch.read()
    assert [participant.machine for participant in snapshot.participants] == ["machines/1"]
    await second.join(session=session.name)
    await second.hear("assignment")
    await second.progress(SIZE_BYTES // 2)
    seen = {"machines/1": 0, "machines/2": 0}
    while not seen["machines/2"]:
        update = await watch.read()
        seen |= {participant.machine: participant.totals.written_bytes for participant in update.participants}
    assert seen == {"machines/1": 0, "machines/2": SIZE_BYTES // 2}
    (transmission,) = sender.running
    await sender.report(transmission, 12345)
    while update.session.transmission.sent_source_bytes != 12345:
        update = await watch.read()
    for machine in (first, second):
        await machine.finish()
        await machine.hear("dismissal")
    last = update
    while (update := await watch.read()) is not grpc.aio.EOF:
        assert update.session.revision > last.session.revision
        last = update
    assert last.session.state == STATES.STATE_COMPLETED
    resumed = operator.WatchSession(
        session_service_pb2.WatchSessionRequest(name=session.name, after_revision=last.session.revision)
    )
    assert not (await resumed.read()).participants
    assert await resumed.read() is grpc.aio.EOF
    future = operator.WatchSession(session_service_pb2.WatchSessionRequest(name=session.name, after_revision=10**12))
    again = await future.read()
    assert again.lost
    assert len(again.participants) == 2


async def test_progress_is_acknowledged_once_it_is_stored(site: Site) -> None:
    await FakeSender(site).connect()
    machine = FakeMachine(site, "1")
    await machine.join(image="images/win11")
    name = (await machine.hear("assignment")).session
    for part in range(1, 6):
        await machine.progress(part * 1000)
    await machine.acknowledgement(6)
    await site.kill()
    await site.start()
    participants = (
        await site.operator().ListParticipants(session_service_pb2.ListParticipantsRequest(parent=name))
    ).participants
    assert participants[0].totals.written_bytes == 5000


async def test_after_a_kill_machines_and_sender_come_back_and_the_session_goes_on(
    tmp_path: Path, database_url: str
) -> None:
    # However slow this host is, the sender comes back before it is taken for lost.
    async with open_site(tmp_path, replace(TIMING, sender_grace=30.0), database_url) as site:
        await _kill_and_come_back(site)


async def _kill_and_come_back(site: Site) -> None:
    sender = FakeSender(site)
    await sender.connect()
    operator = site.operator()
    session = await create(operator, start_rules=session_pb2.StartRules(min_clients=2))
    machines = [FakeMachine(site, "1"), FakeMachine(site, "2")]
    for machine in machines:
        await machine.join(session=session.name)
    before = [(await machine.hear("assignment")).transmission for machine in machines]
    await machines[0].finish()
    await machines[0].hear("dismissal")
    await site.kill()
    await site.start()
    await sender.connect()
    await machines[1].join(session=session.name)
    assert (await machines[1].hear("assignment")).transmission == before[1]
    await machines[1].finish()
    await machines[1].hear("dismissal")
    ended = await until_state(operator, session.name, STATES.STATE_COMPLETED)
    assert ended.succeeded_count == 2
    await until(lambda: not sender.running)
    await until(lambda: not site.catalog.held)


async def test_a_sender_that_dies_is_replaced_by_another(site: Site) -> None:
    one, other = FakeSender(site, "a"), FakeSender(site, "b")
    await one.connect()
    machine = FakeMachine(site, "1")
    await machine.join(image="images/win11")
    before = await machine.hear("assignment")
    await other.connect()
    await one.disconnect()
    after = await machine.hear("assignment")
    assert after.sender_address == "sender-b:7444"
    assert after.transmission != before.transmission
    assert after.session == before.session
    await one.connect()
    await until(lambda: before.transmission not in one.running)


async def test_a_sender_that_does_not_answer_is_taken_for_dead(tmp_path: Path) -> None:
    async with open_site(tmp_path, Timing(command=1.0, sender_grace=0.1)) as site:
        silent, other = FakeSender(site, "a"), FakeSender(site, "b")
        silent.answers = False
        await silent.connect()
        machine = FakeMachine(site, "1")
        await machine.join(image="images/win11")
        await silent.closed()
        await other.connect()
        assert (await machine.hear("assignment")).sender_address == "sender-b:7444"


async def test_a_second_stream_of_the_same_machine_replaces_the_first(site: Site) -> None:
    await FakeSender(site).connect()
    machine, twin = FakeMachine(site, "1"), FakeMachine(site, "1")
    await machine.join(image="images/win11")
    name = (await machine.hear("assignment")).session
    await twin.join(image="images/win11")
    await twin.hear("assignment")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await machine.hear("dismissal")
    assert from_rpc_error(caught.value).reason == "STREAM_REPLACED"
    session = await get(site.operator(), name)
    assert session.participant_count == 1


async def test_a_broken_stream_shows_the_machine_as_lost_and_a_comeback_as_receiving(site: Site) -> None:
    await FakeSender(site).connect()
    operator, machine = site.operator(), FakeMachine(site, "1")
    await machine.join(image="images/win11")
    name = (await machine.hear("assignment")).session

    async def shows(state: int) -> bool:
        answer = await operator.ListParticipants(session_service_pb2.ListParticipantsRequest(parent=name))
        return bool(answer.participants[0].state == state)

    machine.break_off()
    await until(lambda: shows(session_pb2.Participant.STATE_LOST))
    await machine.join(session=name)
    await machine.hear("assignment")
    assert await shows(session_pb2.Participant.STATE_RECEIVING)


@pytest.mark.parametrize(
    ("join", "code", "part"),
    [
        ({"session": "sessions/none"}, grpc.StatusCode.NOT_FOUND, "there is no session none"),
        ({"image": "images/none"}, grpc.StatusCode.NOT_FOUND, "there is no image"),
        ({"image": "win11"}, grpc.StatusCode.INVALID_ARGUMENT, "'win11' is not the name of an image"),
        ({}, grpc.StatusCode.INVALID_ARGUMENT, "must name a session or an image"),
        ({"image": "images/win11", "target_size_bytes": 5}, grpc.StatusCode.FAILED_PRECONDITION, "has 5 bytes"),
        ({"image": "images/win11", "target_size_bytes": -7}, grpc.StatusCode.INVALID_ARGUMENT, "-7"),
    ],
)
async def test_a_join_that_cannot_be_is_refused_in_one_sentence(
    site: Site, join: dict[str, Any], code: grpc.StatusCode, part: str
) -> None:
    machine = FakeMachine(site, "1")
    await machine.join(**join)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await machine.hear("assignment")
    assert caught.value.code() is code
    assert part in (caught.value.details() or "")


@pytest.mark.parametrize("target", [{"image": "images/win11"}, {"session": ""}])
async def test_a_machine_gets_no_wim_onto_a_device_and_no_volume_onto_a_disk_unless_it_wants_it_so(
    site: Site, target: dict[str, str]
) -> None:
    if "session" in target:
        made = await site.operator().CreateSession(session_service_pb2.CreateSessionRequest(image="images/win11"))
        target = {"session": made.session.name}
    medium = participation_service_pb2.Join
    volume = image_pb2.ImageContents(kind=image_pb2.ImageContents.KIND_VOLUME, filesystem="ext4")
    for image_format, contents, onto, said in (
        (image_pb2.IMAGE_FORMAT_WIM, None, medium.MEDIUM_VOLUME, "is a WIM or ESD file"),
        (image_pb2.IMAGE_FORMAT_RAW, volume, medium.MEDIUM_DISK, "has no partition table: it is one ext4 volume"),
    ):
        site.catalog.format, site.catalog.contents = image_format, contents
        machine = FakeMachine(site, "1")
        await machine.join(**target, medium=onto)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await machine.hear("waiting")
        assert said in (caught.value.details() or "")
        assert "--as-is" in (caught.value.details() or "")
    machine = FakeMachine(site, "1")
    await machine.join(**target)
    assert await machine.hear("waiting")


async def test_sessions_and_participants_are_listed_in_pages(site: Site) -> None:
    operator = site.operator()
    made = [(await create(operator)).name for _ in range(5)]
    listed: list[str] = []
    token = ""
    while True:
        page = await operator.ListSessions(session_service_pb2.ListSessionsRequest(page_size=2, page_token=token))
        listed += [session.name for session in page.sessions]
        token = page.next_page_token
        if not token:
            break
    assert listed == made[::-1]
    for number in range(3):
        machine = FakeMachine(site, str(number))
        await machine.join(session=made[0])
        await machine.hear("waiting")
    first = await operator.ListParticipants(session_service_pb2.ListParticipantsRequest(parent=made[0], page_size=2))
    rest = await operator.ListParticipants(
        session_service_pb2.ListParticipantsRequest(parent=made[0], page_size=2, page_token=first.next_page_token)
    )
    names = [participant.machine for participant in [*first.participants, *rest.participants]]
    assert names == ["machines/0", "machines/1", "machines/2"]
    assert not rest.next_page_token


async def test_holds_are_reconciled_at_the_start(site: Site) -> None:
    operator = site.operator()
    session = await create(operator)
    await site.kill()
    site.catalog.held = {"sessions/gone": IMAGE}
    await site.start()
    await until(lambda: site.catalog.held == {session.name: IMAGE})
    await site.kill()
    site.catalog.held.clear()
    site.catalog.image = "images/other@sha256:" + "b" * 64
    await site.start()
    failed = await until_state(operator, session.name, STATES.STATE_FAILED)
    assert "its image is gone" in failed.error


async def test_ended_sessions_stay_readable_after_a_restart(site: Site) -> None:
    operator = site.operator()
    session = await create(operator)
    await operator.CancelSession(session_service_pb2.CancelSessionRequest(name=session.name))
    await until(lambda: not site.catalog.held)
    await site.stop()
    await site.start()
    assert (await get(operator, session.name)).state == STATES.STATE_CANCELLED
    watch = operator.WatchSession(session_service_pb2.WatchSessionRequest(name=session.name))
    assert (await watch.read()).session.state == STATES.STATE_CANCELLED
    assert await watch.read() is grpc.aio.EOF
    with pytest.raises(grpc.aio.AioRpcError, match="CANCELLED"):
        await operator.StartSession(session_service_pb2.StartSessionRequest(name=session.name))


async def test_a_registration_with_an_impossible_range_is_refused(site: Site) -> None:
    for changes, part in (
        ({"first_group": "10.0.0.1"}, "multicast groups"),
        ({"first_group": "224.0.0.5"}, "multicast groups"),
        ({"last_group": "239.191.0.0"}, "no range"),
        ({"first_port": 0}, "between 1 and 65535"),
        ({"address": ""}, "is not an address"),
    ):
        with pytest.raises(grpc.aio.AioRpcError, match=part):
            await FakeSender(site, **changes).connect()


async def test_a_machine_may_not_do_what_an_operator_does(site: Site) -> None:
    stub: Any = SessionServiceStub(site.channel(Role.MACHINE, "1"))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.CancelSession(session_service_pb2.CancelSessionRequest(name="sessions/x"))
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
