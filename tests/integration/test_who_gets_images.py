"""Who gets an image: whom a session, a deployment or a policy of the administrator names, and nobody else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from fleetcast.scheduler.v1 import collection_service_pb2
from fleetcast_kit.errors import FleetcastError, from_rpc_error
from fleetcast_sequence import canonical, parse

from tests.integration.deployment_actors import Operator, RunningMachine
from tests.integration.scheduler_actors import IMAGE, FakeMachine, FakeSender, Site, open_site
from tests.integration.test_scheduler import TIMING, create

SERIES = IMAGE.partition("@")[0]


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with open_site(tmp_path, TIMING) as opened:
        yield opened


@pytest.fixture
async def operator(site: Site) -> Operator:
    await FakeSender(site).connect()
    return Operator(site)


async def registered(site: Site, name: str) -> RunningMachine:
    machine = RunningMachine(site, name)
    await machine.register()
    return machine


async def refusal(site: Site, name: str, **target: str) -> FleetcastError:
    """Returns why a machine is not let into a session."""
    machine = FakeMachine(site, name)
    await machine.join(**target)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await machine.hear("assignment")
    return from_rpc_error(caught.value)


async def received(site: Site, name: str, **target: str) -> str:
    """Returns the session that a machine is let into."""
    machine = FakeMachine(site, name)
    await machine.join(**target)
    transmission: str = (await machine.hear("assignment")).transmission
    return transmission.partition("/transmissions/")[0]


def restoring(site: Site, image: str) -> None:
    """Has the task sequence put back a user state, and nothing else."""
    step = f"{{name: Back, type: restore-user-state, with: {{volume: c, image: '{image}'}}}}"
    site.sequences.canonical_form = canonical(parse(f"name: bare-metal\nsteps: [{step}]\n"))
    site.sequences.needs_image = False


async def test_a_user_state_goes_to_its_machine_and_to_no_other_by_whatever_name(
    site: Site, operator: Operator
) -> None:
    for name in ("1", "2"):
        await registered(site, name)
    site.catalog.owner = "machines/1"
    for image in (SERIES, IMAGE):
        error = await refusal(site, "2", image=image)
        assert error.reason == "IMAGE_OF_ANOTHER_MACHINE"
        assert "deploy a task sequence that restores it to machines/2" in error.message
    session = await received(site, "1", image=SERIES)
    for target in ({"session": session}, {"image": IMAGE}, {"image": SERIES}):
        assert (await refusal(site, "2", **target)).reason == "IMAGE_OF_ANOTHER_MACHINE"


async def test_a_session_on_a_user_state_is_for_its_machine_unless_it_names_a_collection(
    site: Site, operator: Operator
) -> None:
    for name in ("1", "2", "3"):
        await registered(site, name)
    await operator.collect("2")
    site.catalog.owner = "machines/1"
    for_all = await create(site.operator())
    assert (await refusal(site, "2", session=for_all.name)).reason == "IMAGE_OF_ANOTHER_MACHINE"
    for_the_lab = await create(site.operator(), collection="collections/lab")
    assert await received(site, "2", session=for_the_lab.name) == for_the_lab.name
    assert (await refusal(site, "3", session=for_the_lab.name)).reason == "NOT_A_MEMBER"


async def test_a_run_receives_the_user_state_that_its_step_restores_and_no_other(
    site: Site, operator: Operator
) -> None:
    machines = {name: await registered(site, name) for name in ("1", "2")}
    await operator.collect("1", "2")
    site.catalog.image = "images/state-S1@sha256:" + "a" * 64
    site.catalog.owner = "machines/1"
    restoring(site, "state-{{ machine.serial }}")
    for machine in machines.values():
        await machine.attend()
    await operator.deploy(task_sequence="taskSequences/bare-metal")
    runs = {name: (await machine.hear("order")).run for name, machine in machines.items()}
    session = await received(site, "1", image="images/state-S1", run=runs["1"])
    error = await refusal(site, "2", image="images/state-S1", run=runs["2"])
    assert "does not deploy images/state-S1" in error.message
    assert "does not deploy images/state-S1" in (await refusal(site, "2", session=session)).message


async def test_a_new_machine_gets_the_user_state_that_a_deployment_names_for_it(site: Site, operator: Operator) -> None:
    successor = await registered(site, "2")
    await operator.collect("2")
    site.catalog.owner = "machines/1"
    restoring(site, SERIES.removeprefix("images/"))
    await successor.attend()
    await operator.deploy(task_sequence="taskSequences/bare-metal")
    run = (await successor.hear("order")).run
    assert await received(site, "2", image=SERIES, run=run)


async def test_who_asks_for_an_image_by_name_gets_a_session_beside_that_of_a_collection(
    site: Site, operator: Operator
) -> None:
    for name in ("1", "2"):
        await registered(site, name)
    await operator.collect("1")
    for_the_lab = await create(site.operator(), collection="collections/lab")
    assert await received(site, "1", image=SERIES) == for_the_lab.name
    assert await received(site, "2", image=SERIES) != for_the_lab.name


async def test_who_was_added_to_the_collection_a_moment_ago_is_let_in(site: Site, operator: Operator) -> None:
    for name in ("1", "2"):
        await registered(site, name)
    await operator.collect("1")
    session = await create(site.operator(), collection="collections/lab")
    assert (await refusal(site, "2", session=session.name)).reason == "NOT_A_MEMBER"
    request: Any = collection_service_pb2.AddMembersRequest(name="collections/lab", machines=["machines/2"])
    await operator.collections.AddMembers(request)
    assert await received(site, "2", session=session.name) == session.name
