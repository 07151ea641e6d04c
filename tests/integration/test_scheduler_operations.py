from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from fleetcast.scheduler.v1 import audit_service_pb2, sender_service_pb2, session_pb2, session_service_pb2
from fleetcast.scheduler.v1.audit_service_pb2_grpc import AuditServiceStub
from fleetcast.scheduler.v1.sender_service_pb2_grpc import SenderServiceStub
from fleetcast_kit.identity.peer import Role
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from tests.integration.scheduler_actors import FakeMachine, FakeSender, Site, open_site
from tests.integration.test_scheduler import STATES, TIMING, create, get, until_state
from tests.support.waiting import until

ADMISSION = session_pb2.AdmissionRules


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with open_site(tmp_path, TIMING) as opened:
        yield opened


async def refused(call: Any) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.details() or ""


async def test_everything_set_at_creation_is_shown_and_survives_a_restart(site: Site) -> None:
    operator = site.operator()
    until_time = Timestamp(seconds=2_000_000_000)
    made = await create(
        operator,
        start_rules=session_pb2.StartRules(
            min_clients=3, quiet_time=Duration(seconds=20), match=session_pb2.StartRules.MATCH_ALL, manual=True
        ),
        rate=session_pb2.RatePolicy(
            ceiling_bits_per_second=10**9,
            daily_ceilings=[
                session_pb2.DailyCeiling(
                    start_minute=480, end_minute=1080, time_zone="Europe/Berlin", ceiling_bits_per_second=10**8
                )
            ],
        ),
        admission=ADMISSION(
            until_time=until_time,
            late_policy=ADMISSION.LATE_POLICY_NEXT_RUN,
            end_policy=ADMISSION.END_POLICY_STOP,
            max_participants=7,
        ),
        priority=5,
        slow_policy=session_pb2.SlowPolicy(
            action=session_pb2.SlowPolicy.ACTION_SEPARATE, threshold_bits_per_second=10**7
        ),
    )
    await site.kill()
    await site.start()
    found = await get(operator, made.name)
    for field in ("start_rules", "rate", "admission", "priority", "slow_policy", "etag"):
        assert getattr(found, field) == getattr(made, field), field


async def test_an_edit_takes_only_what_its_mask_names(site: Site) -> None:
    operator = site.operator()
    made = await create(operator, start_rules=session_pb2.StartRules(min_clients=3), priority=5)
    changes = session_pb2.Session(
        name=made.name,
        start_rules=session_pb2.StartRules(start_delay=Duration(seconds=9)),
        admission=ADMISSION(max_participants=4),
        etag=made.etag,
    )
    mask = FieldMask(paths=["start_rules.start_delay", "admission"])
    edited = (
        await operator.UpdateSession(session_service_pb2.UpdateSessionRequest(session=changes, update_mask=mask))
    ).session
    assert edited.start_rules.min_clients == 3
    assert edited.start_rules.start_delay.seconds == 9
    assert edited.admission.max_participants == 4
    assert edited.priority == 5
    again = operator.UpdateSession(session_service_pb2.UpdateSessionRequest(session=changes, update_mask=mask))
    assert "changed by somebody else" in await refused(again)
    wrong = session_service_pb2.UpdateSessionRequest(session=changes, update_mask=FieldMask(paths=["image"]))
    assert "'image' cannot be changed" in await refused(operator.UpdateSession(wrong))


async def test_a_rate_changes_while_it_runs(site: Site) -> None:
    sender = FakeSender(site)
    await sender.connect()
    machine = FakeMachine(site, "1")
    await machine.join(image="images/win11")
    name = (await machine.hear("assignment")).session
    changes = session_pb2.Session(name=name, rate=session_pb2.RatePolicy(fixed_bits_per_second=10**8))
    await site.operator().UpdateSession(
        session_service_pb2.UpdateSessionRequest(session=changes, update_mask=FieldMask(paths=["rate"]))
    )
    await until(lambda: sender.commands[-1].WhichOneof("message") == "set_rate")
    assert sender.commands[-1].set_rate.rate.fixed_bits_per_second == 10**8


async def test_a_kicked_machine_is_dismissed_and_its_sender_told(site: Site) -> None:
    sender = FakeSender(site)
    await sender.connect()
    operator, machine = site.operator(), FakeMachine(site, "1")
    await machine.join(image="images/win11")
    name = (await machine.hear("assignment")).session
    answer = await operator.KickParticipant(
        session_service_pb2.KickParticipantRequest(name=f"{name}/participants/1", reason="wrong room")
    )
    assert answer.participant.state == session_pb2.Participant.STATE_DISMISSED
    assert (await machine.hear("dismissal")).detail == "wrong room"
    await until(lambda: [c.WhichOneof("message") for c in sender.commands].count("stop") == 1)
    await machine.join(session=name)
    assert "wrong room" in await refused(machine.hear("assignment"))


async def test_close_drain_stop_and_extend_do_what_they_say(site: Site) -> None:
    await FakeSender(site).connect()
    operator = site.operator()
    closed = await create(operator)
    await operator.CloseSession(session_service_pb2.CloseSessionRequest(name=closed.name))
    await until_state(operator, closed.name, STATES.STATE_COMPLETED)
    drained, stopped = await create(operator), await create(operator)
    one, other = FakeMachine(site, "1"), FakeMachine(site, "2")
    await one.join(session=drained.name)
    await other.join(session=stopped.name)
    await asyncio.gather(one.hear("assignment"), other.hear("assignment"))
    answer = await operator.DrainSession(session_service_pb2.DrainSessionRequest(name=drained.name))
    assert answer.session.state == STATES.STATE_RUNNING
    assert answer.session.closed
    await one.finish()
    await one.hear("dismissal")
    await until_state(operator, drained.name, STATES.STATE_COMPLETED)
    await operator.StopSession(session_service_pb2.StopSessionRequest(name=stopped.name))
    assert (await other.hear("dismissal")).detail == "an operator stopped the session"
    timed = await create(operator, admission=ADMISSION(until_time=Timestamp(seconds=2_000_000_000)))
    for _ in range(2):
        extended = await operator.ExtendSession(
            session_service_pb2.ExtendSessionRequest(name=timed.name, extension=Duration(seconds=60), request_id="once")
        )
        assert extended.session.admission.until_time.seconds == 2_000_000_060


async def test_what_people_do_is_recorded_once_with_who_and_what(site: Site) -> None:
    operator = site.operator()
    session = await create(operator, request_id="r1")
    await create(operator, request_id="r1")
    for _ in range(2):
        await operator.CancelSession(session_service_pb2.CancelSessionRequest(name=session.name, request_id="r2"))
    audit: Any = AuditServiceStub(site.channel(Role.ADMINISTRATOR, "auditor"))
    request = audit_service_pb2.ListAuditEntriesRequest(resource=session.name)
    entries = (await audit.ListAuditEntries(request)).audit_entries
    assert {entry.address for entry in entries} <= {"127.0.0.1", "::1"}
    assert [(entry.action, entry.request_id, entry.caller) for entry in entries] == [
        ("session.cancel", "r2", "administrators/operator"),
        ("session.create", "r1", "administrators/operator"),
    ]
    assert entries[1].detail["image"] == session.image
    page = await audit.ListAuditEntries(audit_service_pb2.ListAuditEntriesRequest(page_size=1))
    rest = await audit.ListAuditEntries(
        audit_service_pb2.ListAuditEntriesRequest(page_size=1, page_token=page.next_page_token)
    )
    assert page.audit_entries[0].name > rest.audit_entries[0].name


async def test_senders_are_shown_drained_and_resumed(site: Site) -> None:
    sender = FakeSender(site, site="north", max_concurrent=4)
    await sender.connect()
    stub: Any = SenderServiceStub(site.channel(Role.ADMINISTRATOR, "operator"))
    machine = FakeMachine(site, "1")
    await machine.join(image="images/win11")
    transmission = (await machine.hear("assignment")).transmission
    (shown,) = (await stub.ListSenders(sender_service_pb2.ListSendersRequest())).senders
    assert (shown.name, shown.site, shown.max_concurrent, shown.connected) == ("senders/a", "north", 4, True)
    assert list(shown.transmissions) == [transmission]
    await stub.DrainSender(sender_service_pb2.DrainSenderRequest(name="senders/a"))
    await site.kill()
    await site.start()
    shown = (await stub.GetSender(sender_service_pb2.GetSenderRequest(name="senders/a"))).sender
    assert (shown.draining, shown.connected) == (True, False)
    resumed = await stub.ResumeSender(sender_service_pb2.ResumeSenderRequest(name="senders/a"))
    assert not resumed.sender.draining
    assert "there is no sender z" in await refused(
        stub.GetSender(sender_service_pb2.GetSenderRequest(name="senders/z"))
    )


@pytest.mark.parametrize(
    ("request_fields", "part"),
    [
        ({"start_rules": session_pb2.StartRules(min_clients=-1)}, "min_clients is -1"),
        ({"start_rules": session_pb2.StartRules(start_delay=Duration(seconds=-5))}, "start_delay is -5 s"),
        ({"rate": session_pb2.RatePolicy(fixed_bits_per_second=-1)}, "cannot be negative"),
        ({"admission": ADMISSION(max_participants=-2)}, "max_participants is -2"),
        ({"priority": 101}, "between -100 and 100"),
        ({"slow_policy": session_pb2.SlowPolicy(threshold_bits_per_second=-1)}, "cannot be negative"),
        (
            {
                "rate": session_pb2.RatePolicy(
                    daily_ceilings=[
                        session_pb2.DailyCeiling(end_minute=60, time_zone="Mars/Base", ceiling_bits_per_second=1)
                    ]
                )
            },
            "'Mars/Base' is not a time zone",
        ),
        ({"rate": session_pb2.RatePolicy(daily_ceilings=[session_pb2.DailyCeiling()])}, "for the whole day"),
    ],
)
async def test_an_impossible_setting_is_refused_in_one_sentence(
    site: Site, request_fields: dict[str, Any], part: str
) -> None:
    call = site.operator().CreateSession(
        session_service_pb2.CreateSessionRequest(image="images/win11", **request_fields)
    )
    assert part in await refused(call)
    assert not site.catalog.held


async def test_a_session_names_its_site_and_the_sender_there_takes_it(site: Site) -> None:
    for name in ("a", "b"):
        await FakeSender(site, name, site={"a": "south", "b": "north"}[name]).connect()
    session = await create(site.operator(), site="north")
    machine = FakeMachine(site, "1")
    await machine.join(session=session.name)
    assert (await machine.hear("assignment")).sender_address == "sender-b:7444"
    assert (await get(site.operator(), session.name)).site == "north"
