from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from fleetcast.scheduler.v1 import deployment_pb2, session_pb2, session_service_pb2
from fleetcast.scheduler.v1 import deployment_service_pb2 as messages
from fleetcast_kit.grants import check_upload_grant
from fleetcast_sequence import canonical, parse

from tests.integration.deployment_actors import DEPLOYMENT_STATE, STATE, Operator, RunningMachine
from tests.integration.scheduler_actors import (
    IMAGE,
    SEQUENCE,
    SEQUENCE_DIGEST,
    SIZE_BYTES,
    FakeMachine,
    FakeSender,
    Site,
    open_site,
)
from tests.integration.test_scheduler import TIMING


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with open_site(tmp_path, TIMING) as opened:
        yield opened


@pytest.fixture
def operator(site: Site) -> Operator:
    return Operator(site)


async def ready_machine(site: Site, name: str = "1", **fields: Any) -> RunningMachine:
    machine = RunningMachine(site, name)
    await machine.register(**fields)
    return machine


async def test_a_required_image_is_ordered_reported_and_closed(site: Site, operator: Operator) -> None:
    machine = await ready_machine(site)
    await operator.collect("1", variables={"room": "5"})
    await machine.attend()
    assert (await machine.hear("standby")).reason == "nothing is deployed to this machine"
    answer = await operator.deploy(variables={"language": "de"})
    name = answer.deployment.name
    order = await machine.hear("order")
    assert order.image == IMAGE
    assert [(image.image, image.size_bytes) for image in order.images] == [(IMAGE, SIZE_BYTES)]
    assert dict(order.collection_variables) == {"room": "5"}
    assert dict(order.deployment_variables) == {"language": "de"}
    assert 7190 <= order.remaining_seconds <= 7200
    assert order.attempt == 1
    assert order.display_name == "pc-1"
    sequence = await machine.progress(2, step_fraction=0.5)
    await machine.known(sequence)
    (run,) = await operator.runs(name)
    assert (run.state, run.step, run.step_name, run.step_fraction) == (STATE.STATE_RUNNING, 2, "step 2", 0.5)
    await machine.finish(order.run)
    assert (await machine.hear("closed")).run == order.run
    deployment = await operator.get(name)
    assert deployment.state == DEPLOYMENT_STATE.STATE_COMPLETED
    assert deployment.image == IMAGE
    assert deployment.summary.succeeded_count == deployment.summary.target_count == 1
    answer = await operator.deployments.GetRun(messages.GetRunRequest(name=order.run))
    assert answer.run.state == STATE.STATE_SUCCEEDED
    assert answer.run.content == IMAGE


async def test_a_run_survives_the_death_of_the_scheduler(site: Site, operator: Operator) -> None:
    machine = await ready_machine(site)
    await operator.collect("1")
    await machine.attend()
    name = (await operator.deploy()).deployment.name
    order = await machine.hear("order")
    await site.kill()
    await site.start()
    run = await operator.run_when(name, STATE.STATE_LOST)
    assert run.name == order.run
    assert run.contact_time.seconds
    await machine.attend(order.run)
    again = await machine.hear("order")
    assert (again.run, again.image, again.attempt) == (order.run, order.image, 1)
    assert (await operator.run_when(name, STATE.STATE_RUNNING)).name == order.run
    await machine.finish(order.run)
    assert (await machine.hear("closed")).run == order.run


async def test_machines_of_a_deployment_share_a_session_that_says_who_is_missing(
    site: Site, operator: Operator
) -> None:
    runners = [await ready_machine(site, name) for name in ("1", "2", "3")]
    await operator.collect("1", "2", "3")
    template = deployment_pb2.SessionTemplate(start_rules=session_pb2.StartRules(min_clients=3))
    name = (await operator.deploy(session=template)).deployment.name
    receivers = []
    for runner in runners[:2]:
        await runner.attend()
        order = await runner.hear("order")
        receiver = FakeMachine(site, runner.name)
        await receiver.join(image=order.image, run=order.run)
        waiting = await receiver.hear("waiting")
        receivers.append((receiver, order))
    assert waiting.session
    session = await find_session(site, waiting.session)
    assert session.deployment == name
    assert session.expected_count == 3
    assert list(session.missing_machines) == ["machines/3"]
    assert "missing: pc-3" in session.waiting_reason
    await operator.deployments.SkipRuns(messages.SkipRunsRequest(name=name, machines=["machines/3"]))
    sender = FakeSender(site)
    await sender.connect()
    for receiver, _ in receivers:
        assert (await receiver.hear("assignment")).session == waiting.session
        await receiver.finish()
        await receiver.hear("dismissal")
    session = await find_session(site, waiting.session)
    assert session.state == session_pb2.Session.STATE_COMPLETED
    for runner, (_, order) in zip(runners, receivers, strict=False):
        await runner.finish(order.run)
        await runner.hear("closed")
    assert (await operator.get(name)).state == DEPLOYMENT_STATE.STATE_COMPLETED
    await sender.disconnect()


async def find_session(site: Site, name: str) -> session_pb2.Session:
    answer = await site.operator().GetSession(session_service_pb2.GetSessionRequest(name=name))
    return answer.session  # type: ignore[no-any-return]


async def test_a_task_sequence_is_pinned_held_ordered_and_let_go(site: Site, operator: Operator) -> None:
    machine = await ready_machine(site)
    await operator.collect("1")
    steps = "steps: [{name: Keep, type: capture-image, with: {volume: c, image: '{{ series }}'}}]"
    variables = "variables: {series: {default: other}}"
    site.sequences.canonical_form = canonical(parse(f"name: bare-metal\n{variables}\n{steps}\n"))
    site.sequences.uploads = ["reference"]
    answer = await operator.deploy(task_sequence="taskSequences/bare-metal", variables={"series": "reference"})
    name = answer.deployment.name
    assert answer.deployment.task_sequence == SEQUENCE
    assert site.sequences.held == {name: SEQUENCE}
    await machine.attend()
    order = await machine.hear("order")
    assert order.task_sequence == site.sequences.canonical_form
    assert order.task_sequence_digest == SEQUENCE_DIGEST
    assert order.images[0].is_wim
    check_upload_grant(order.upload_grant, site.authority.certificate, machine="machines/1", image="reference")
    await machine.finish(order.run)
    await machine.hear("closed")
    async with asyncio.timeout(5):
        while site.sequences.held:  # noqa: ASYNC110 - nobody says when
            await asyncio.sleep(0.02)
