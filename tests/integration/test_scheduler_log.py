"""The server's log says when sessions and deployments start and end, and which machine failed with what."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.deployment_actors import OUTCOME, Operator, RunningMachine
from tests.integration.scheduler_actors import FakeMachine, FakeSender, Site, open_site
from tests.integration.test_scheduler import TIMING, create
from tests.support.waiting import until


@pytest.fixture
async def site(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Site]:
    caplog.set_level(logging.INFO, logger="fleetcast_scheduler")
    async with open_site(tmp_path, TIMING) as opened:
        await FakeSender(opened).connect()
        yield opened


async def test_a_session_is_logged_from_its_opening_to_its_end_with_who_failed(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    session = await create(site.operator())
    machine = FakeMachine(site, "1")
    await machine.join(session=session.name)
    await machine.hear("assignment")
    await until(lambda: f"{session.name} (images/win11) starts with 1 machine" in caplog.messages)
    await machine.finish("the disk is broken")
    await machine.hear("dismissal")
    assert f"machines/1 failed in {session.name}: the disk is broken" in caplog.messages
    await until(lambda: f"{session.name} (images/win11) is completed" in caplog.messages)
    assert any(line.startswith(f"{session.name} opened for images/win11@") for line in caplog.messages)


async def test_a_deployment_is_logged_when_it_is_made_and_when_a_machine_fails(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    operator, machine = Operator(site), RunningMachine(site, "1")
    await machine.register()
    await operator.collect("1")
    name = (await operator.deploy()).deployment.name
    assert any(line.startswith(f"{name} deploys images/win11@") for line in caplog.messages)
    await machine.attend()
    run = (await machine.hear("order")).run
    await machine.finish(run, outcome=OUTCOME.OUTCOME_FAILED, error="the disk is broken")
    await machine.hear("closed")
    await until(lambda: f"machines/1 (pc-1) failed in {run}: the disk is broken" in caplog.messages)


async def test_the_end_of_a_deployment_is_logged_with_what_became_of_its_machines(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    operator, machine = Operator(site), RunningMachine(site, "1")
    await machine.register()
    await operator.collect("1")
    name = (await operator.deploy()).deployment.name
    await machine.attend()
    await machine.finish((await machine.hear("order")).run)
    await machine.hear("closed")
    await until(lambda: f"{name} (images/win11 to collections/lab) is completed: 1 succeeded" in caplog.messages)
