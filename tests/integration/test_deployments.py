from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from fleetcast.scheduler.v1 import deployment_service_pb2 as messages

from tests.integration.deployment_actors import DEPLOYMENT_STATE, STATE, Operator, RunningMachine
from tests.integration.scheduler_actors import IMAGE, SIZE_BYTES, Site, open_site
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
