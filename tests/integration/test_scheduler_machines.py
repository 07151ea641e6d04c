from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from fleetcast.scheduler.v1 import collection_service_pb2, machine_service_pb2
from fleetcast.scheduler.v1.audit_service_pb2 import ListAuditEntriesRequest
from fleetcast.scheduler.v1.audit_service_pb2_grpc import AuditServiceStub
from fleetcast.scheduler.v1.collection_service_pb2_grpc import CollectionServiceStub
from fleetcast.scheduler.v1.machine_service_pb2_grpc import MachineServiceStub
from fleetcast.scheduler.v1.session_service_pb2 import ListParticipantsRequest
from fleetcast_kit.identity.peer import Role
from google.protobuf.field_mask_pb2 import FieldMask

from tests.integration.scheduler_actors import FakeMachine, FakeSender, Site, open_site
from tests.integration.test_scheduler import TIMING
from tests.integration.test_scheduler_operations import refused

STATE = machine_service_pb2.Machine.State
POLICY = machine_service_pb2.RegistrationPolicy


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with open_site(tmp_path, TIMING) as opened:
        yield opened


@pytest.fixture
def operator(site: Site) -> Any:
    return MachineServiceStub(site.channel(Role.ADMINISTRATOR, "operator"))


@pytest.fixture
def librarian(site: Site) -> Any:
    return CollectionServiceStub(site.channel(Role.ADMINISTRATOR, "librarian"))


def mac(number: int) -> str:
    return f"aa:bb:cc:00:00:{number:02x}"


async def register(site: Site, number: int, **inventory: Any) -> machine_service_pb2.Machine:
    stub: Any = MachineServiceStub(site.channel(Role.MACHINE, str(number)))
    values: dict[str, Any] = {"serial_number": f"S{number}", "mac_addresses": [mac(number)], "model": "OptiPlex"}
    message = machine_service_pb2.RegisterMachineRequest(
        display_name=f"pc-{number}", inventory=machine_service_pb2.Inventory(**values | inventory)
    )
    answer = await stub.RegisterMachine(message)
    return answer.machine  # type: ignore[no-any-return]


async def create_collection(librarian: Any, name: str, **fields: Any) -> collection_service_pb2.Collection:
    message = collection_service_pb2.Collection(name=f"collections/{name}", **fields)
    answer = await librarian.CreateCollection(collection_service_pb2.CreateCollectionRequest(collection=message))
    return answer.collection  # type: ignore[no-any-return]


async def members(librarian: Any, name: str) -> list[str]:
    found: list[str] = []
    token = ""
    while True:
        request = collection_service_pb2.ListMembersRequest(name=f"collections/{name}", page_size=2, page_token=token)
        page = await librarian.ListMembers(request)
        found += [machine.name for machine in page.machines]
        token = page.next_page_token
        if not token:
            return found


async def test_an_imported_machine_takes_its_place_when_it_registers(site: Site, operator: Any, librarian: Any) -> None:
    await create_collection(librarian, "lab")
    csv = (
        "display_name,serial_number,mac_addresses,collection,variable:room\n"
        f"Left,S1,{mac(1)},collections/lab,5\nRight,S2,{mac(2)},,\n"
    )
    request = machine_service_pb2.ImportMachinesRequest(csv=csv, request_id="r")
    made = (await operator.ImportMachines(request)).machines
    assert [machine.state for machine in made] == [STATE.STATE_EXPECTED] * 2
    assert list((await operator.ImportMachines(request)).machines) == list(made)
    again = operator.ImportMachines(machine_service_pb2.ImportMachinesRequest(csv=csv))
    assert "has the serial number of" in await refused(again)
    registered = await register(site, 1)
    assert (registered.name, registered.display_name, registered.state) == ("machines/1", "Left", STATE.STATE_APPROVED)
    assert dict(registered.variables) == {"room": "5"}
    assert await members(librarian, "lab") == ["machines/1"]
    listed = (await operator.ListMachines(machine_service_pb2.ListMachinesRequest())).machines
    assert [machine.name for machine in listed] == ["machines/1", made[1].name]


async def test_a_machine_in_a_session_has_the_name_that_operators_gave_it_and_says_why_it_takes_no_multicast(
    site: Site, operator: Any
) -> None:
    registered = await register(site, 1)
    registered.display_name = "Left"
    mask = FieldMask(paths=["display_name"])
    await operator.UpdateMachine(machine_service_pb2.UpdateMachineRequest(machine=registered, update_mask=mask))
    machine = FakeMachine(site, "1")
    reason = "wlan0 is a wireless interface"
    await machine.join(image="images/win11", display_name="its own", unicast_only=True, no_multicast_reason=reason)
    session = (await machine.hear("waiting")).session
    (participant,) = (await site.operator().ListParticipants(ListParticipantsRequest(parent=session))).participants
    assert participant.display_name == "Left"
    assert (participant.unicast, participant.no_multicast_reason) == (True, reason)


async def test_a_held_machine_joins_nothing_until_an_operator_approves_it(site: Site, operator: Any) -> None:
    await FakeSender(site).connect()
    await operator.SetRegistrationPolicy(
        machine_service_pb2.SetRegistrationPolicyRequest(policy=POLICY(action=POLICY.ACTION_HOLD))
    )
    held = await register(site, 1)
    assert (held.state, held.held_reason) == (STATE.STATE_HELD, "is not known")
    machine = FakeMachine(site, "1")
    await machine.join(image="images/win11")
    assert "machines/1 is held" in await refused(machine.hear("assignment"))
    await site.kill()
    await site.start()
    await FakeSender(site).connect()
    await machine.join(image="images/win11")
    assert "machines/1 is held" in await refused(machine.hear("assignment"))
    await operator.ApproveMachine(machine_service_pb2.ApproveMachineRequest(name="machines/1"))
    await machine.join(image="images/win11")
    await machine.hear("assignment")
    assert (await register(site, 1)).state == STATE.STATE_APPROVED


async def test_unknown_machines_are_refused_or_collected_by_policy(site: Site, operator: Any, librarian: Any) -> None:
    await operator.SetRegistrationPolicy(
        machine_service_pb2.SetRegistrationPolicyRequest(policy=POLICY(action=POLICY.ACTION_REFUSE))
    )
    assert "unknown machines are refused here" in await refused(register(site, 1))
    await create_collection(librarian, "fresh")
    await operator.SetRegistrationPolicy(
        machine_service_pb2.SetRegistrationPolicyRequest(policy=POLICY(collection="collections/fresh"))
    )
    await register(site, 2)
    assert await members(librarian, "fresh") == ["machines/2"]
    in_use = librarian.DeleteCollection(collection_service_pb2.DeleteCollectionRequest(name="collections/fresh"))
    assert "where unknown machines go" in await refused(in_use)


async def test_new_hardware_of_a_registered_machine_is_approved_as_that_machine(
    site: Site, operator: Any, librarian: Any
) -> None:
    await register(site, 1)
    await create_collection(librarian, "lab")
    await librarian.AddMembers(
        collection_service_pb2.AddMembersRequest(name="collections/lab", machines=["machines/1"])
    )
    again = await register(site, 2, serial_number="S1", mac_addresses=[mac(1)])
    assert again.state == STATE.STATE_HELD
    assert again.resembles == "machines/1"
    approved = (
        await operator.ApproveMachine(
            machine_service_pb2.ApproveMachineRequest(name="machines/2", as_machine="machines/1")
        )
    ).machine
    assert approved.display_name == "pc-1"
    assert await members(librarian, "lab") == ["machines/2"]
    gone = operator.GetMachine(machine_service_pb2.GetMachineRequest(name="machines/1"))
    assert "no machine 'machines/1'" in await refused(gone)


async def test_a_copied_identity_is_held_said_and_recorded_and_approved_as_what_it_is(
    site: Site, operator: Any, librarian: Any
) -> None:
    await create_collection(librarian, "latitudes", rule='machine.model == "Latitude"')
    await register(site, 1)
    held = await register(site, 1, serial_number="S9", mac_addresses=[mac(9)], model="Latitude")
    assert held.state == STATE.STATE_HELD
    assert "other hardware (serial number s9, not s1" in held.held_reason
    assert (held.inventory.serial_number, held.claimed_inventory.serial_number) == ("S1", "S9")
    assert await members(librarian, "latitudes") == []
    assert (await register(site, 1)).state == STATE.STATE_HELD
    await site.kill()
    await site.start()
    machine = FakeMachine(site, "1")
    await machine.join(image="images/win11")
    assert "machines/1 is held" in await refused(machine.hear("assignment"))
    audit: Any = AuditServiceStub(site.channel(Role.ADMINISTRATOR, "operator"))
    entries = (await audit.ListAuditEntries(ListAuditEntriesRequest())).audit_entries
    assert [entry.resource for entry in entries if entry.action == "machine.hold"] == ["machines/1"]
    approved = await operator.ApproveMachine(machine_service_pb2.ApproveMachineRequest(name="machines/1"))
    assert (approved.machine.inventory.serial_number, approved.machine.held_reason) == ("S9", "")
    assert not approved.machine.HasField("claimed_inventory")
    assert await members(librarian, "latitudes") == ["machines/1"]
    assert (await register(site, 1)).state == STATE.STATE_HELD


async def test_a_machine_that_says_it_is_another_gets_nothing_of_that_one(
    site: Site, operator: Any, librarian: Any
) -> None:
    await create_collection(librarian, "latitudes", rule='machine.model == "Latitude"')
    await register(site, 1, model="Latitude")
    await register(site, 2)
    rogue = await register(site, 2, serial_number="S1", mac_addresses=[mac(2)], model="Latitude")
    assert rogue.state == STATE.STATE_HELD
    assert "has the serial number of machines/1" in rogue.held_reason
    assert await members(librarian, "latitudes") == ["machines/1"]
    assert (await register(site, 1, model="Latitude")).state == STATE.STATE_APPROVED


@pytest.mark.parametrize("action", [POLICY.ACTION_HOLD, POLICY.ACTION_REFUSE])
async def test_a_machine_that_never_registered_receives_nothing_where_unknown_machines_are_not_accepted(
    site: Site, operator: Any, action: Any
) -> None:
    await FakeSender(site).connect()
    await operator.SetRegistrationPolicy(machine_service_pb2.SetRegistrationPolicyRequest(policy=POLICY(action=action)))
    machine = FakeMachine(site, "1")
    await machine.join(image="images/win11")
    assert "machines/1 has not registered" in await refused(machine.hear("assignment"))


async def test_a_removed_machine_receives_nothing_at_once_until_it_registers_anew(
    site: Site, operator: Any, librarian: Any
) -> None:
    await FakeSender(site).connect()
    await register(site, 1)
    await create_collection(librarian, "lab")
    await librarian.AddMembers(
        collection_service_pb2.AddMembersRequest(name="collections/lab", machines=["machines/1"])
    )
    machine = FakeMachine(site, "1")
    await machine.join(image="images/win11")
    await machine.hear("assignment")
    lost = await operator.RemoveMachine(machine_service_pb2.RemoveMachineRequest(name="machines/1"))
    assert (lost.machine.display_name, list(lost.collections)) == ("pc-1", ["collections/lab"])
    assert "removed the machine" in str(await machine.hear("dismissal"))
    await machine.join(image="images/win11")
    assert "was removed and must register anew" in await refused(machine.hear("assignment"))
    await site.kill()
    await site.start()
    await machine.join(image="images/win11")
    assert "was removed and must register anew" in await refused(machine.hear("assignment"))
    assert (await register(site, 1)).state == STATE.STATE_APPROVED
    await FakeSender(site).connect()
    await machine.join(image="images/win11")
    await machine.hear("assignment")


async def test_an_empty_policy_changes_nothing(operator: Any) -> None:
    hold = machine_service_pb2.SetRegistrationPolicyRequest(policy=POLICY(action=POLICY.ACTION_HOLD))
    await operator.SetRegistrationPolicy(hold)
    for request in (
        machine_service_pb2.SetRegistrationPolicyRequest(),
        machine_service_pb2.SetRegistrationPolicyRequest(policy=POLICY()),
    ):
        assert "the policy says nothing" in await refused(operator.SetRegistrationPolicy(request))
    present = await operator.GetRegistrationPolicy(machine_service_pb2.GetRegistrationPolicyRequest())
    assert present.policy.action == POLICY.ACTION_HOLD


async def test_a_collection_has_members_by_name_and_by_rule(site: Site, operator: Any, librarian: Any) -> None:
    for number in range(1, 6):
        await register(site, number, memory_bytes=number * 2**30)
    rule = "machine.memory_bytes >= 4 * 1073741824"
    made = await create_collection(librarian, "big", rule=rule, variables={"edition": "pro"})
    assert await members(librarian, "big") == ["machines/4", "machines/5"]
    await librarian.AddMembers(
        collection_service_pb2.AddMembersRequest(name="collections/big", machines=["machines/1", "machines/4"])
    )
    assert await members(librarian, "big") == ["machines/1", "machines/4", "machines/5"]
    await librarian.RemoveMembers(
        collection_service_pb2.RemoveMembersRequest(name="collections/big", machines=["machines/1", "machines/4"])
    )
    assert await members(librarian, "big") == ["machines/4", "machines/5"]
    edit = collection_service_pb2.Collection(name=made.name, rule="machine.memory_bytes < 0", etag=made.etag)
    request = collection_service_pb2.UpdateCollectionRequest(collection=edit, update_mask=FieldMask(paths=["rule"]))
    edited = (await librarian.UpdateCollection(request)).collection
    assert dict(edited.variables) == {"edition": "pro"}
    assert await members(librarian, "big") == []
    assert "changed by somebody else" in await refused(librarian.UpdateCollection(request))
    filtered = await operator.ListMachines(machine_service_pb2.ListMachinesRequest(filter=rule))
    assert [machine.name for machine in filtered.machines] == ["machines/4", "machines/5"]
    unknown = librarian.AddMembers(
        collection_service_pb2.AddMembersRequest(name="collections/big", machines=["machines/99"])
    )
    assert "no machine 'machines/99'" in await refused(unknown)
    broken = create_collection(librarian, "broken", rule="machine.colour == 'red'")
    assert "'colour', which a machine does not have" in await refused(broken)
    await librarian.DeleteCollection(collection_service_pb2.DeleteCollectionRequest(name="collections/big"))
    assert not (await librarian.ListCollections(collection_service_pb2.ListCollectionsRequest())).collections


async def test_a_machine_is_edited_and_removed(site: Site, operator: Any) -> None:
    await register(site, 1)
    message = machine_service_pb2.Machine(
        name="machines/1", protected=True, variables={"room": "7"}, display_name="ignored"
    )
    request = machine_service_pb2.UpdateMachineRequest(
        machine=message, update_mask=FieldMask(paths=["protected", "variables"])
    )
    edited = (await operator.UpdateMachine(request)).machine
    assert (edited.protected, dict(edited.variables), edited.display_name) == (True, {"room": "7"}, "pc-1")
    wrong = machine_service_pb2.UpdateMachineRequest(machine=message, update_mask=FieldMask(paths=["state"]))
    assert "'state' cannot be changed" in await refused(operator.UpdateMachine(wrong))
    assert (await register(site, 1)).protected
    for _ in range(2):
        await operator.RemoveMachine(machine_service_pb2.RemoveMachineRequest(name="machines/1"))
    assert not (await operator.ListMachines(machine_service_pb2.ListMachinesRequest())).machines
