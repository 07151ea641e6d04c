"""One identity on two computers: neither receives, and somebody is told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from fleetcast.scheduler.v1 import audit_service_pb2, machine_service_pb2, participation_service_pb2
from fleetcast.scheduler.v1.audit_service_pb2_grpc import AuditServiceStub
from fleetcast.scheduler.v1.machine_service_pb2_grpc import MachineServiceStub
from fleetcast_kit.errors import FleetcastError, from_rpc_error
from fleetcast_kit.identity.peer import Role

from tests.integration.deployment_actors import RunningMachine
from tests.integration.scheduler_actors import FakeMachine, FakeSender, Site, open_site
from tests.integration.test_scheduler import TIMING

HELD, APPROVED = machine_service_pb2.Machine.STATE_HELD, machine_service_pb2.Machine.STATE_APPROVED


def hardware(number: int) -> participation_service_pb2.HardwareIdentifiers:
    return participation_service_pb2.HardwareIdentifiers(
        smbios_uuid=f"aaaaaaaa-0000-0000-0000-00000000000{number}",
        serial_number=f"PC{number}",
        mac_addresses=[f"02:00:00:00:00:0{number}"],
    )


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with open_site(tmp_path, TIMING) as opened:
        await FakeSender(opened).connect()
        yield opened


@pytest.fixture
def operator(site: Site) -> Any:
    return MachineServiceStub(site.channel(Role.ADMINISTRATOR, "operator"))


async def joined(site: Site, number: int | None) -> FakeMachine:
    """Returns the machine of identity 1 that receives, from hardware of a number, or without saying its hardware."""
    machine = FakeMachine(site, "1")
    await machine.join(image="images/win11", **{} if number is None else {"hardware": hardware(number)})
    await machine.hear("assignment")
    return machine


async def refusal(site: Site, number: int) -> FleetcastError:
    machine = FakeMachine(site, "1")
    await machine.join(image="images/win11", hardware=hardware(number))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await machine.hear("assignment")
    return from_rpc_error(caught.value)


async def known(operator: Any) -> machine_service_pb2.Machine:
    (machine,) = (await operator.ListMachines(machine_service_pb2.ListMachinesRequest())).machines
    return machine  # type: ignore[no-any-return]


async def test_two_live_streams_of_one_identity_from_different_hardware_are_both_held(
    site: Site, operator: Any
) -> None:
    first = await joined(site, 1)
    assert (await refusal(site, 2)).reason == "MACHINE_HELD"
    dismissal = await first.hear("dismissal")
    assert "the machine is held: it takes part from other hardware (serial number pc2, not pc1)" in dismissal.detail
    assert (await refusal(site, 1)).reason == "MACHINE_HELD", "nobody knows which of the two is the copy"
    machine = await known(operator)
    assert machine.state == HELD
    assert "the state directory of its agent was copied" in machine.held_reason
    audit: Any = AuditServiceStub(site.channel(Role.ADMINISTRATOR, "operator"))
    entries = (await audit.ListAuditEntries(audit_service_pb2.ListAuditEntriesRequest())).audit_entries
    assert "machine.hold" in [entry.action for entry in entries]


async def test_a_registered_machine_that_receives_from_other_hardware_waits_for_an_operator(
    site: Site, operator: Any
) -> None:
    registering = RunningMachine(site, "1")
    await registering.register()
    assert (await refusal(site, 2)).reason == "MACHINE_HELD"
    await operator.ApproveMachine(machine_service_pb2.ApproveMachineRequest(name="machines/1"))
    machine = await known(operator)
    assert (machine.state, machine.inventory.serial_number) == (APPROVED, "PC2"), "its hardware was replaced"
    await joined(site, 2)
    assert (await refusal(site, 1)).reason == "MACHINE_HELD", "now this is the copy"


async def test_a_machine_comes_back_from_its_own_hardware_and_one_that_says_none_is_not_doubted(site: Site) -> None:
    for number in (1, None, 1):
        await joined(site, number)
