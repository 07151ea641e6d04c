"""Machines that start from the network, against a real scheduler: what they are answered, and what a stranger gains."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from fleetcast.scheduler.v1 import boot_service_pb2, machine_service_pb2
from fleetcast.scheduler.v1.boot_service_pb2_grpc import BootServiceStub
from fleetcast.scheduler.v1.machine_service_pb2_grpc import MachineServiceStub
from fleetcast_kit.errors import FailedPreconditionError
from fleetcast_kit.identity.certificates import public_key_der
from fleetcast_kit.identity.credentials import Credentials
from fleetcast_kit.identity.key_code import key_code
from fleetcast_kit.identity.peer import Role
from fleetcast_kit.joining.enrolment import enrol
from fleetcast_kit.rpc.channel import open_channel

from tests.integration.deployment_actors import Operator
from tests.integration.scheduler_actors import Site, open_site
from tests.integration.test_scheduler import TIMING

STATE = machine_service_pb2.Machine.State
UUID = "0a0b0c0d-0000-4000-8000-000000000001"
MAC = "52:54:00:00:00:01"
CSV = f"display_name,smbios_uuid,serial_number,mac_addresses,collection\npc-1,{UUID},S1,{MAC},collections/room-5\n"


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with open_site(tmp_path, TIMING) as opened:
        yield opened


class Room:
    """One room with one imported machine, seen by an administrator and by a boot service."""

    def __init__(self, site: Site, directory: Path) -> None:
        self.site = site
        self.directory = directory
        self.boot: Any = BootServiceStub(site.channel(Role.SERVICE, "boot"))
        self.admin: Any = BootServiceStub(site.channel(Role.ADMINISTRATOR, "a"))
        self.machines: Any = MachineServiceStub(site.channel(Role.ADMINISTRATOR, "a"))
        self.operator = Operator(site)
        self._starts = 0

    async def furnish(self) -> str:
        await self.operator.collect(name="room-5")
        answer = await self.machines.ImportMachines(machine_service_pb2.ImportMachinesRequest(csv=CSV))
        return str(answer.machines[0].name)

    async def ask(self, *, with_ticket: bool = False, mac: str = MAC, uuid: str = UUID) -> Any:
        asker = boot_service_pb2.BootAsker(mac_address=mac, smbios_uuids=[uuid] if uuid else [], firmware="UEFI amd64")
        return await self.boot.DecideBoot(boot_service_pb2.DecideBootRequest(asker=asker, with_ticket=with_ticket))

    async def start(self, answer: Any) -> Credentials:
        """Enrols as a machine does that has nothing but its memory: each start has a new key."""
        self._starts += 1
        directory = self.directory / f"start{self._starts}"
        return await enrol(self.site.address, answer.token, directory, "pc", ticket=answer.ticket)

    async def register(self, credentials: Credentials, **inventory: Any) -> machine_service_pb2.Machine:
        hardware: dict[str, Any] = {"smbios_uuid": UUID, "serial_number": "S1", "mac_addresses": [MAC]}
        request = machine_service_pb2.RegisterMachineRequest(
            display_name="pc", inventory=machine_service_pb2.Inventory(**hardware | inventory)
        )
        async with open_channel(self.site.address, credentials) as channel:
            stub: Any = MachineServiceStub(channel)
            return (await stub.RegisterMachine(request, timeout=10)).machine  # type: ignore[no-any-return]

    async def open(self, **fields: Any) -> None:
        await self.admin.OpenBoot(boot_service_pb2.OpenBootRequest(collection="collections/room-5", **fields))


@pytest.fixture
async def room(site: Site, tmp_path: Path) -> Room:
    return Room(site, tmp_path / "starts")


async def test_an_unknown_machine_knocks_is_held_and_shows_the_code_that_the_list_shows(room: Room) -> None:
    answer = await room.ask(with_ticket=True)
    assert (answer.answer, answer.ticket) == (boot_service_pb2.BOOT_ANSWER_KNOCK, "")
    credentials = await room.start(answer)
    machine = await room.register(credentials)
    assert machine.state == STATE.STATE_HELD
    assert machine.code == key_code(public_key_der(credentials.private_key.public_key()))
    assert machine.code in machine.held_reason
    approved = await room.machines.ApproveMachine(machine_service_pb2.ApproveMachineRequest(name=machine.name))
    assert approved.machine.state == STATE.STATE_APPROVED
    assert (await room.ask()).answer == boot_service_pb2.BOOT_ANSWER_LOCAL


async def test_while_a_collection_is_open_its_machine_takes_its_imported_place(room: Room) -> None:
    imported = await room.furnish()
    assert (await room.ask()).answer == boot_service_pb2.BOOT_ANSWER_LOCAL, "nothing is due, and nothing is open"
    await room.open(expected_count=1)
    answer = await room.ask(with_ticket=True)
    assert answer.answer == boot_service_pb2.BOOT_ANSWER_KNOCK
    machine = await room.register(await room.start(answer))
    assert (machine.state, machine.display_name) == (STATE.STATE_APPROVED, "pc-1")
    state = await room.admin.GetBootState(boot_service_pb2.GetBootStateRequest())
    assert list(state.windows[0].admitted_machines) == [imported]


async def test_a_stranger_that_shows_one_identifier_is_held_while_the_collection_is_open(room: Room) -> None:
    await room.furnish()
    await room.open()
    answer = await room.ask(with_ticket=True, uuid="ffffffff-0000-4000-8000-00000000dead")
    machine = await room.register(await room.start(answer), smbios_uuid="", serial_number="other")
    assert machine.state == STATE.STATE_HELD


async def test_a_window_survives_a_kill_of_the_scheduler(room: Room) -> None:
    await room.furnish()
    await room.open()
    await room.site.kill()
    await room.site.start()
    assert (await Room(room.site, room.directory).ask()).answer == boot_service_pb2.BOOT_ANSWER_KNOCK


async def test_a_machine_with_due_work_gets_its_own_identity_at_each_start(room: Room) -> None:
    imported = await room.furnish()
    await room.operator.deploy(collection="collections/room-5")
    names = set()
    for _ in range(2):
        answer = await room.ask(with_ticket=True)
        assert answer.answer == boot_service_pb2.BOOT_ANSWER_INSTALL, answer.reason
        credentials = await room.start(answer)
        machine = await room.register(credentials)
        assert machine.state == STATE.STATE_APPROVED
        names.add(machine.name)
    assert names == {imported}


async def test_a_ticket_that_a_second_key_uses_holds_the_machine_and_gives_nothing(room: Room) -> None:
    imported = await room.furnish()
    await room.operator.deploy(collection="collections/room-5")
    answer = await room.ask(with_ticket=True)
    await room.start(answer)
    with pytest.raises(FailedPreconditionError, match="has been used by another key") as refused:
        await room.start(answer)
    assert refused.value.reason == "TICKET_USED"
    found = await room.machines.GetMachine(machine_service_pb2.GetMachineRequest(name=imported))
    assert found.machine.state == STATE.STATE_HELD
    assert "two keys used it" in found.machine.held_reason


async def test_a_ticket_that_no_scheduler_knows_is_refused_with_a_reason_of_its_own(room: Room) -> None:
    answer = await room.ask(with_ticket=True)
    answer.ticket = "0" * 40
    with pytest.raises(FailedPreconditionError) as refused:
        await room.start(answer)
    assert refused.value.reason == "TICKET_ENDED"


async def test_what_a_boot_service_reports_is_listed_with_the_machine_it_is(room: Room) -> None:
    imported = await room.furnish()
    report = boot_service_pb2.BootReport(
        asker=boot_service_pb2.BootAsker(mac_address=MAC, smbios_uuids=[UUID]),
        stage="loader",
        answer=boot_service_pb2.BOOT_ANSWER_KNOCK,
        likely_reason="a firewall",
    )
    await room.boot.ReportBoot(boot_service_pb2.ReportBootRequest(reports=[report]))
    (listed,) = (await room.admin.ListBoots(boot_service_pb2.ListBootsRequest())).boots
    assert (listed.machine, listed.display_name, listed.stage) == (imported, "pc-1", "loader")
    assert listed.likely_reason == "a firewall"
