"""MachineService: the machines that an installation knows."""

from __future__ import annotations

from collections.abc import Callable

from fleetcast.scheduler.v1 import machine_service_pb2
from fleetcast.scheduler.v1.machine_service_pb2_grpc import (
    MachineServiceServicer,
    add_MachineServiceServicer_to_server,
)
from fleetcast_kit.identity.peer import Role, current_identity
from fleetcast_kit.rpc import paging
from fleetcast_kit.rpc.context import Context
from fleetcast_kit.rpc.server import Service

from fleetcast_scheduler.machines import convert
from fleetcast_scheduler.machines.domain.machine import Machine, read_csv
from fleetcast_scheduler.machines.domain.presence import MachinePresence
from fleetcast_scheduler.machines.machines import Machines
from fleetcast_scheduler.names import machine_name


class MachineServicer(MachineServiceServicer):
    """Converts, calls, converts back."""

    def __init__(self, machines: Machines, presence: Callable[[str], MachinePresence]) -> None:
        self._machines = machines
        self._presence = presence

    async def RegisterMachine(
        self, request: machine_service_pb2.RegisterMachineRequest, context: Context
    ) -> machine_service_pb2.RegisterMachineResponse:
        """Registers the caller."""
        machine = await self._machines.register(
            current_identity().name,
            request.display_name[: convert.MAX_TEXT_LENGTH],
            convert.inventory_of(request.inventory),
            convert.time_zone_said(request.time_zone),
        )
        return machine_service_pb2.RegisterMachineResponse(machine=self._message(machine))

    async def GetMachine(
        self, request: machine_service_pb2.GetMachineRequest, context: Context
    ) -> machine_service_pb2.GetMachineResponse:
        """Returns one machine."""
        machine = await self._machines.get(machine_name(request.name))
        return machine_service_pb2.GetMachineResponse(machine=self._message(machine))

    async def ListMachines(
        self, request: machine_service_pb2.ListMachinesRequest, context: Context
    ) -> machine_service_pb2.ListMachinesResponse:
        """Returns a page of machines."""
        page = paging.by_name(request)
        found = await self._machines.list_machines(page.after or "", page.limit, request.filter)
        shown, token = page.cut(found, lambda machine: machine.name)
        return machine_service_pb2.ListMachinesResponse(machines=map(self._message, shown), next_page_token=token)

    async def UpdateMachine(
        self, request: machine_service_pb2.UpdateMachineRequest, context: Context
    ) -> machine_service_pb2.UpdateMachineResponse:
        """Changes a machine."""
        machine = await self._machines.update(
            machine_name(request.machine.name, "machine.name"),
            convert.machine_edit(request.machine, request.update_mask.paths),
            request.machine.etag,
            request.request_id,
        )
        return machine_service_pb2.UpdateMachineResponse(machine=self._message(machine))

    async def ImportMachines(
        self, request: machine_service_pb2.ImportMachinesRequest, context: Context
    ) -> machine_service_pb2.ImportMachinesResponse:
        """Makes known machines."""
        made = await self._machines.import_rows(read_csv(request.csv), request.request_id)
        return machine_service_pb2.ImportMachinesResponse(machines=map(self._message, made))

    async def ApproveMachine(
        self, request: machine_service_pb2.ApproveMachineRequest, context: Context
    ) -> machine_service_pb2.ApproveMachineResponse:
        """Approves a machine."""
        as_machine = machine_name(request.as_machine, "as_machine") if request.as_machine else ""
        machine = await self._machines.approve(machine_name(request.name), as_machine, request.request_id)
        return machine_service_pb2.ApproveMachineResponse(machine=self._message(machine))

    async def RemoveMachine(
        self, request: machine_service_pb2.RemoveMachineRequest, context: Context
    ) -> machine_service_pb2.RemoveMachineResponse:
        """Forgets a machine."""
        machine, collections = await self._machines.remove(machine_name(request.name), request.request_id)
        return machine_service_pb2.RemoveMachineResponse(
            machine=convert.machine_message(machine) if machine is not None else None, collections=sorted(collections)
        )

    async def GetRegistrationPolicy(
        self, request: machine_service_pb2.GetRegistrationPolicyRequest, context: Context
    ) -> machine_service_pb2.GetRegistrationPolicyResponse:
        """Returns what becomes of unknown machines."""
        policy = await self._machines.policy()
        return machine_service_pb2.GetRegistrationPolicyResponse(policy=convert.policy_message(policy))

    async def SetRegistrationPolicy(
        self, request: machine_service_pb2.SetRegistrationPolicyRequest, context: Context
    ) -> machine_service_pb2.SetRegistrationPolicyResponse:
        """Sets what becomes of unknown machines."""
        policy = await self._machines.set_policy(convert.policy_of(request.policy), request.request_id)
        return machine_service_pb2.SetRegistrationPolicyResponse(policy=convert.policy_message(policy))

    def _message(self, machine: Machine) -> machine_service_pb2.Machine:
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
