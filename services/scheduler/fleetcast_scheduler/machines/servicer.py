"""MachineService: the machines that an installation knows."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import grpc
from fleetcast.scheduler.v1 import machine_service_pb2 as messages
from fleetcast.scheduler.v1.machine_service_pb2_grpc import (
    MachineServiceServicer,
    add_MachineServiceServicer_to_server,
)
from fleetcast_kit.identity.peer import Role, current_identity
from fleetcast_kit.rpc.paging import decode_page_token, encode_page_token, page_size
from fleetcast_kit.rpc.server import Service

from fleetcast_scheduler.machines import convert
from fleetcast_scheduler.machines.domain.machine import Machine, read_csv
from fleetcast_scheduler.machines.domain.presence import MachinePresence
from fleetcast_scheduler.machines.machines import Machines
from fleetcast_scheduler.names import machine_name

if TYPE_CHECKING:  # the class is generic in its stubs only
    _Context = grpc.aio.ServicerContext[Any, Any]


class MachineServicer(MachineServiceServicer):
    """Converts, calls, converts back."""

    def __init__(self, machines: Machines, presence: Callable[[str], MachinePresence]) -> None:
        self._machines = machines
        self._presence = presence

    async def RegisterMachine(  # noqa: N802
        self, request: messages.RegisterMachineRequest, context: _Context
    ) -> messages.RegisterMachineResponse:
        """Registers the caller."""
        machine = await self._machines.register(
            current_identity().name,
            request.display_name[: convert.MAX_TEXT_LENGTH],
            convert.inventory_of(request.inventory),
            convert.time_zone_said(request.time_zone),
        )
        return messages.RegisterMachineResponse(machine=self._message(machine))

    async def GetMachine(  # noqa: N802
        self, request: messages.GetMachineRequest, context: _Context
    ) -> messages.GetMachineResponse:
        """Returns one machine."""
        machine = await self._machines.get(machine_name(request.name))
        return messages.GetMachineResponse(machine=self._message(machine))

    async def ListMachines(  # noqa: N802
        self, request: messages.ListMachinesRequest, context: _Context
    ) -> messages.ListMachinesResponse:
        """Returns a page of machines."""
        size = page_size(request.page_size)
        position = decode_page_token(request.page_token, str)
        found = await self._machines.list_machines(str(position[0]) if position else "", size + 1, request.filter)
        return messages.ListMachinesResponse(
            machines=map(self._message, found[:size]),
            next_page_token=encode_page_token([found[size - 1].name]) if len(found) > size else "",
        )

    async def UpdateMachine(  # noqa: N802
        self, request: messages.UpdateMachineRequest, context: _Context
    ) -> messages.UpdateMachineResponse:
        """Changes a machine."""
        machine = await self._machines.update(
            machine_name(request.machine.name, "machine.name"),
            convert.machine_edit(request.machine, request.update_mask.paths),
            request.machine.etag,
            request.request_id,
        )
        return messages.UpdateMachineResponse(machine=self._message(machine))

    async def ImportMachines(  # noqa: N802
        self, request: messages.ImportMachinesRequest, context: _Context
    ) -> messages.ImportMachinesResponse:
        """Makes known machines."""
        made = await self._machines.import_rows(read_csv(request.csv), request.request_id)
        return messages.ImportMachinesResponse(machines=map(self._message, made))

    async def ApproveMachine(  # noqa: N802
        self, request: messages.ApproveMachineRequest, context: _Context
    ) -> messages.ApproveMachineResponse:
        """Approves a machine."""
        as_machine = machine_name(request.as_machine, "as_machine") if request.as_machine else ""
        machine = await self._machines.approve(machine_name(request.name), as_machine, request.request_id)
        return messages.ApproveMachineResponse(machine=self._message(machine))

    async def RemoveMachine(  # noqa: N802
        self, request: messages.RemoveMachineRequest, context: _Context
    ) -> messages.RemoveMachineResponse:
        """Forgets a machine."""
        await self._machines.remove(machine_name(request.name), request.request_id)
        return messages.RemoveMachineResponse()

    async def GetRegistrationPolicy(  # noqa: N802
        self, request: messages.GetRegistrationPolicyRequest, context: _Context
    ) -> messages.GetRegistrationPolicyResponse:
        """Returns what becomes of unknown machines."""
        policy = await self._machines.policy()
        return messages.GetRegistrationPolicyResponse(policy=convert.policy_message(policy))

    async def SetRegistrationPolicy(  # noqa: N802
        self, request: messages.SetRegistrationPolicyRequest, context: _Context
    ) -> messages.SetRegistrationPolicyResponse:
        """Sets what becomes of unknown machines."""
        policy = await self._machines.set_policy(convert.policy_of(request.policy), request.request_id)
        return messages.SetRegistrationPolicyResponse(policy=convert.policy_message(policy))

    def _message(self, machine: Machine) -> messages.Machine:
        return convert.machine_message(machine, self._presence(machine.name))


def machine_service(machines: Machines, presence: Callable[[str], MachinePresence]) -> Service:
    """Returns the service, ready to be served."""
    administrators = (
        "GetMachine",
        "ListMachines",
        "UpdateMachine",
        "ImportMachines",
        "ApproveMachine",
        "RemoveMachine",
        "GetRegistrationPolicy",
        "SetRegistrationPolicy",
    )
    roles = dict.fromkeys(administrators, frozenset({Role.ADMINISTRATOR}))
    return Service(
        add=add_MachineServiceServicer_to_server,
        servicer=MachineServicer(machines, presence),
        full_name="fleetcast.scheduler.v1.MachineService",
        roles=roles | {"RegisterMachine": frozenset({Role.MACHINE})},
    )
