"""What recurs, who is awaited, who is served apart, and where: through the port, with a real database."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from fleetcast.scheduler.v1 import collection_service_pb2, sender_service_pb2, session_pb2, session_service_pb2
from fleetcast.scheduler.v1.collection_service_pb2_grpc import CollectionServiceStub
from fleetcast.scheduler.v1.sender_service_pb2_grpc import SenderServiceStub
from fleetcast_kit.identity.peer import Role
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from tests.integration.scheduler_actors import IMAGE, FakeMachine, FakeSender, Site, open_site
from tests.integration.test_scheduler import STATES, TIMING, create, get, until_state
from tests.integration.test_scheduler_machines import create_collection, register
from tests.integration.test_scheduler_operations import refused
from tests.support.waiting import until

KICK = session_service_pb2.KickParticipantRequest


@pytest.fixture
async def site(tmp_path: Path, database_url: str) -> AsyncIterator[Site]:
    async with open_site(tmp_path, TIMING, database_url) as opened:
        yield opened


def rules(start: float, **fields: Any) -> session_pb2.StartRules:
    return session_pb2.StartRules(start_time=Timestamp(seconds=int(start)), **fields)


async def joined(site: Site, session: str, *names: str) -> list[FakeMachine]:
    machines = [FakeMachine(site, name) for name in names]
    for machine in machines:
        await machine.join(session=session)
        await machine.hear("assignment")
    return machines


async def test_the_next_occurrence_holds_the_image_survives_a_kill_and_shows_its_time(site: Site) -> None:
    operator = site.operator()
    first = await create(
        operator,
        start_rules=rules(time.time() + 3600),
        recurrence="FREQ=DAILY",
        recurrence_time_zone="Europe/Berlin",
        collection="",
    )
    assert (first.occurrence, first.recurrence, first.recurrence_time_zone) == (1, "FREQ=DAILY", "Europe/Berlin")
    assert 23 * 3600 <= first.next_time.seconds - first.start_rules.start_time.seconds <= 25 * 3600
    await operator.CancelSession(session_service_pb2.CancelSessionRequest(name=first.name))
    name = f"{first.name}-2"
    await until(lambda: site.catalog.held == {name: IMAGE})
    second = await get(operator, name)
    assert (second.occurrence, second.state) == (2, STATES.STATE_WAITING)
    assert second.start_rules.start_time == first.next_time
    expected = datetime.fromtimestamp(first.next_time.seconds, UTC).strftime("%Y-%m-%d %H:%M")
    assert expected in second.waiting_reason
    await site.kill()
    await site.start()
    again = await get(operator, name)
    assert (again.recurrence, again.occurrence, again.next_time) == ("FREQ=DAILY", 2, second.next_time)
    await operator.CancelSession(session_service_pb2.CancelSessionRequest(name=name, series=True))
    await until(lambda: not site.catalog.held)
    listed = await operator.ListSessions(session_service_pb2.ListSessionsRequest())
    assert {session.name for session in listed.sessions} == {first.name, name}


async def test_a_kill_between_two_occurrences_leaves_the_image_held(site: Site) -> None:
    operator = site.operator()
    first = await create(operator, start_rules=rules(time.time() + 3600), recurrence="FREQ=DAILY")
    site.catalog.fails = True
    await operator.CancelSession(session_service_pb2.CancelSessionRequest(name=first.name))
    await site.kill()
    site.catalog.fails = False
    await site.start()
    await until(lambda: site.catalog.held == {f"{first.name}-2": IMAGE})


async def test_a_recurrence_is_changed_and_cleared_by_an_edit(site: Site) -> None:
    operator = site.operator()
    session = await create(operator, start_rules=rules(time.time() + 3600))
    for recurrence in ("FREQ=WEEKLY", ""):
        edit = session_pb2.Session(name=session.name, recurrence=recurrence)
        request = session_service_pb2.UpdateSessionRequest(session=edit, update_mask=FieldMask(paths=["recurrence"]))
        shown = (await operator.UpdateSession(request)).session
        assert (shown.recurrence, shown.occurrence) == (recurrence, 1 if recurrence else 0)


@pytest.mark.parametrize(
    ("fields", "part"),
    [
        ({"recurrence": "FREQ=DAILY"}, "set start_rules.start_time"),
        ({"recurrence": "every night", "start_rules": rules(2e9)}, "is no recurrence rule"),
        ({"recurrence_time_zone": "Mars/Base"}, "'Mars/Base' is not a time zone"),
        ({"collection": "collections/none"}, "there is no collection none"),
        ({"collection": "room 1"}, "is not the name of a collection"),
    ],
)
async def test_an_impossible_window_is_refused_in_one_sentence(site: Site, fields: dict[str, Any], part: str) -> None:
    call = site.operator().CreateSession(session_service_pb2.CreateSessionRequest(image="images/win11", **fields))
    assert part in await refused(call)
    assert not site.catalog.held


async def test_a_session_on_a_collection_says_who_is_missing(site: Site) -> None:
    operator = site.operator()
    librarian: Any = CollectionServiceStub(site.channel(Role.ADMINISTRATOR, "librarian"))
    for number in range(1, 6):
        await register(site, number, model="OptiPlex" if number < 5 else "Latitude")
    await create_collection(librarian, "desktops", rule='machine.model == "OptiPlex"')
    session = await create(
        operator, collection="collections/desktops", start_rules=session_pb2.StartRules(min_clients=4)
    )
    await asyncio.gather(*(FakeMachine(site, name).join(session=session.name) for name in ("1", "2")))

    async def shown() -> session_pb2.Session:
        return await get(operator, session.name)

    async def two_have_joined() -> bool:
        return "2 joined so far" in (await shown()).waiting_reason

    await until(two_have_joined)
    present = await shown()
    assert present.waiting_reason.endswith("missing: pc-3, pc-4")
    assert (present.expected_count, list(present.missing_machines)) == (4, ["machines/3", "machines/4"])
    await librarian.AddMembers(
        collection_service_pb2.AddMembersRequest(name="collections/desktops", machines=["machines/5"])
    )
    assert site.app is not None
    await site.app._awaited.refresh()
    assert (await shown()).expected_count == 5
    await site.kill()
    await site.start()

    async def counted() -> bool:
        return (await shown()).expected_count == 5

    await until(counted)
    assert (await shown()).collection == "collections/desktops"


async def test_a_kicked_machine_is_served_by_unicast_and_stays(site: Site) -> None:
    sender, operator = FakeSender(site), site.operator()
    await sender.connect()
    session = await create(operator, start_rules=session_pb2.StartRules(min_clients=2))
    first, second = FakeMachine(site, "1"), FakeMachine(site, "2")
    await asyncio.gather(first.join(session=session.name), second.join(session=session.name))
    transmission = (await first.hear("assignment")).transmission
    request = KICK(name=f"{session.name}/participants/1", action=KICK.ACTION_UNICAST, request_id="r1")
    for _ in range(2):
        participant = (await operator.KickParticipant(request)).participant
        assert (participant.unicast, participant.state) == (True, session_pb2.Participant.STATE_RECEIVING)
    await until(lambda: any(command.HasField("move_to_unicast") for command in sender.commands))
    moves = [command.move_to_unicast for command in sender.commands if command.HasField("move_to_unicast")]
    assert [(move.transmission, list(move.machines)) for move in moves] == [(transmission, ["machines/1"])]


async def test_machines_that_failed_are_retried_all_or_by_name(site: Site) -> None:
    sender, operator = FakeSender(site), site.operator()
    await sender.connect()
    session = await create(operator, start_rules=session_pb2.StartRules(min_clients=1))
    first, second, _ = await joined(site, session.name, "1", "2", "3")
    await first.finish(error="the disk is full")
    await operator.KickParticipant(KICK(name=f"{session.name}/participants/2"))
    await second.hear("dismissal")
    retry = session_service_pb2.RetryParticipantsRequest
    retried = (await operator.RetryParticipants(retry(parent=session.name))).participants
    assert [one.machine for one in retried] == ["machines/1"]
    assert retried[0].state == session_pb2.Participant.STATE_LOST
    name = f"{session.name}/participants/2"
    await operator.RetryParticipants(retry(parent=session.name, names=[name]))
    for number in ("1", "2"):
        (machine,) = await joined(site, session.name, number)
        await machine.finish()
        await machine.hear("dismissal")
    shown = await get(operator, session.name)
    assert (shown.succeeded_count, shown.failed_count) == (2, 0)
    assert "does not take part" in await refused(
        operator.RetryParticipants(retry(parent=session.name, names=["sessions/other/participants/2"]))
    )


async def test_the_sender_in_the_machines_subnet_is_chosen_by_where_its_stream_comes_from(site: Site) -> None:
    await FakeSender(site, "a", subnets=["192.0.2.0/24"]).connect()
    await FakeSender(site, "z", subnets=["127.0.0.0/8", "::1/128"]).connect()
    machine = FakeMachine(site, "1")
    await machine.join(image="images/win11")
    assert (await machine.hear("assignment")).sender_address == "sender-z:7444"


async def test_a_sender_whose_subnet_is_none_is_refused(site: Site) -> None:
    assert "does not appear to be" in await refused(FakeSender(site, subnets=["10.0.0.0/99"]).connect())


async def test_a_watch_of_the_senders_shows_all_of_them_then_each_change(site: Site) -> None:
    first = FakeSender(site, "a", subnets=["10.1.0.0/16"])
    await first.connect()
    stub: Any = SenderServiceStub(site.channel(Role.ADMINISTRATOR, "operator"))
    watch = stub.WatchSenders(sender_service_pb2.WatchSendersRequest())

    async def until_shown(name: str, condition: Any) -> sender_service_pb2.Sender:
        async with asyncio.timeout(10):
            while True:
                for sender in (await watch.read()).senders:
                    if sender.name == name and condition(sender):
                        return sender  # type: ignore[no-any-return]

    shown = await until_shown("senders/a", lambda sender: sender.connected)
    assert list(shown.subnets) == ["10.1.0.0/16"]
    second = FakeSender(site, "b")
    await second.connect()
    await until_shown("senders/b", lambda sender: sender.connected)
    machine = FakeMachine(site, "1")
    await machine.join(image="images/win11")
    transmission = (await machine.hear("assignment")).transmission
    await until_shown("senders/a", lambda sender: list(sender.transmissions) == [transmission])
    await first.report(transmission, 5, rate_bits_per_second=900, receiver_count=1)
    loaded = await until_shown("senders/a", lambda sender: sender.rate_bits_per_second)
    assert (loaded.rate_bits_per_second, loaded.receiver_count) == (900, 1)
    deaf = session_pb2.UnicastMachines(reason=session_pb2.UNICAST_REASON_DEAF, machines=["machines/1"])
    await first.report(transmission, 6, unicast=[deaf])
    (group,) = (await until_shown("senders/a", lambda sender: sender.unicast)).unicast
    assert (group.reason, group.machine_count) == (session_pb2.UNICAST_REASON_DEAF, 1)
    session = transmission.partition("/transmissions/")[0]
    listed = await site.operator().ListParticipants(session_service_pb2.ListParticipantsRequest(parent=session))
    assert [each.unicast_reason for each in listed.participants] == [session_pb2.UNICAST_REASON_DEAF]
    await first.disconnect()
    await until_shown("senders/a", lambda sender: not sender.connected)
    watch.cancel()


async def test_a_session_of_a_series_starts_by_itself_when_its_time_has_come(site: Site) -> None:
    sender, operator = FakeSender(site), site.operator()
    await sender.connect()
    session = await create(
        operator, start_rules=rules(time.time() + 2, match=session_pb2.StartRules.MATCH_ALL), recurrence="FREQ=DAILY"
    )
    machine = FakeMachine(site, "1")
    await machine.join(session=session.name)
    assert "waits for" in (await machine.hear("waiting")).reason
    await machine.hear("assignment")
    await machine.finish()
    await operator.StopSession(session_service_pb2.StopSessionRequest(name=session.name))
    await until_state(operator, session.name, STATES.STATE_COMPLETED)
    assert (await get(operator, f"{session.name}-2")).state == STATES.STATE_WAITING
