"""`fleetcast machine`: list, show, set, approve, remove, policy."""

from __future__ import annotations

import uuid
from enum import StrEnum
from typing import Annotated

import typer
from fleetcast.scheduler.v1 import machine_service_pb2
from fleetcast.scheduler.v1.machine_service_pb2 import Machine, RegistrationPolicy
from fleetcast.scheduler.v1.machine_service_pb2_grpc import MachineServiceStub
from fleetcast_kit.errors import InvalidArgumentError

from fleetcast_cli.machines.lookup import find_machine, find_machines
from fleetcast_cli.machines.view import machine_fields, machine_label, machine_list
from fleetcast_cli.shell.command import Json, command
from fleetcast_cli.shell.connection import UNARY_SECONDS, connection, every_page
from fleetcast_cli.shell.plain import short_name, to_plain, write_json
from fleetcast_cli.shell.references import identifier, resource
from fleetcast_cli.shell.text import fields, output
from fleetcast_cli.task_sequences.variables import Unset, Variable, change_variables

group = typer.Typer(no_args_is_help=True)

MachineName = Annotated[
    str, typer.Argument(metavar="MACHINE", help="Display name, id or MAC address.", show_default=False)
]
MachineNames = Annotated[
    list[str], typer.Argument(metavar="MACHINE...", help="Display names, ids or MAC addresses.", show_default=False)
]
Filter = Annotated[
    str,
    typer.Option(
        "--filter",
        metavar="EXPR",
        help="""Only machines for which this holds, such as 'machine.model == "X1"'.""",
    ),
]


class State(StrEnum):
    """Whether a machine may take part."""

    EXPECTED = "expected"
    HELD = "held"
    APPROVED = "approved"


class Action(StrEnum):
    """What becomes of unknown machines."""

    ACCEPT = "accept"
    HOLD = "hold"
    REFUSE = "refuse"


@command(group, "list", span="fleetcast machine list")
async def list_machines(
    context: typer.Context,
    *,
    expression: Filter = "",
    state: Annotated[State | None, typer.Option("--state", help="Only machines in this state.")] = None,
    as_json: Json = False,
) -> None:
    """List machines. `held` ones wait for `fleetcast machine approve`, `expected` ones were imported."""
    machines: list[Machine] = []
    async with connection(context).dial() as channel:
        request = machine_service_pb2.ListMachinesRequest(page_size=1000, filter=expression)
        async for answer in every_page(MachineServiceStub(channel).ListMachines, request):
            machines += [machine for machine in answer.machines if state in (None, short_name(machine, "state"))]
    if as_json:
        write_json({"machines": [to_plain(machine) for machine in machines]})
    elif machines:
        output().print(machine_list(machines))
    elif expression or state:
        output().print("no such machines")
    else:
        output().print("no machines; let some enrol, or make them known with: fleetcast machine import FILE.csv")


@command(group, "show", span="fleetcast machine show")
async def show(context: typer.Context, machine: MachineName, as_json: Json = False) -> None:
    """Show one machine: who it is, what it is made of, its variables."""
    async with connection(context).dial() as channel:
        found = await find_machine(MachineServiceStub(channel), machine)
    if as_json:
        write_json(to_plain(found))
        return
    output().print(fields(machine_fields(found)))


@command(group, "set", span="fleetcast machine set")
async def set_machine(
    context: typer.Context,
    *,
    machine: MachineName,
    display_name: Annotated[
        str | None, typer.Option("--display-name", metavar="NAME", help="Name for people.", show_default=False)
    ] = None,
    variable: Variable = None,
    unset: Unset = None,
    protected: Annotated[
        bool | None,
        typer.Option(
            "--protected/--not-protected",
            help="Protected machines are never the target of a deployment.",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Change a machine's name for people, its variables, its protection."""
    async with connection(context).dial() as channel:
        machines = MachineServiceStub(channel)
        found = await find_machine(machines, machine)
        request = machine_service_pb2.UpdateMachineRequest(request_id=str(uuid.uuid4()))
        request.machine.name, request.machine.etag = found.name, found.etag
        if display_name is not None:
            request.machine.display_name = display_name
            request.update_mask.paths.append("display_name")
        if variable or unset:
            request.machine.variables.update(change_variables(found.variables, variable, unset))
            request.update_mask.paths.append("variables")
        if protected is not None:
            request.machine.protected = protected
            request.update_mask.paths.append("protected")
        if not request.update_mask.paths:
            raise InvalidArgumentError(
                "nothing to change: give --display-name, --variable, --unset, --protected or --not-protected"
            )
        changed = (await machines.UpdateMachine(request, timeout=UNARY_SECONDS)).machine
    if as_json:
        write_json(to_plain(changed))
        return
    output().print(fields(machine_fields(changed)))


@command(group, "approve", span="fleetcast machine approve")
async def approve(
    context: typer.Context,
    *,
    machine: MachineNames,
    as_machine: Annotated[
        str | None,
        typer.Option(
            "--as",
            metavar="MACHINE",
            help="The record whose name, variables and collections it takes over; that one is removed.",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Let machines take part that are held."""
    if as_machine is not None and len(machine) > 1:
        raise InvalidArgumentError(
            f"--as {as_machine} is for one machine, {len(machine)} are given: approve them one by one"
        )
    approved: list[Machine] = []
    async with connection(context).dial() as channel:
        machines = MachineServiceStub(channel)
        found = await find_machines(machines, machine)
        record = await find_machine(machines, as_machine) if as_machine is not None else None
        for one in found:
            request = machine_service_pb2.ApproveMachineRequest(
                name=one.name, as_machine=record.name if record else "", request_id=str(uuid.uuid4())
            )
            approved.append((await machines.ApproveMachine(request, timeout=UNARY_SECONDS)).machine)
    if as_json:
        write_json({"machines": [to_plain(one) for one in approved]})
        return
    for one in approved:
        output().print(f"approved {machine_label(one)}", soft_wrap=True)


@command(group, "remove", span="fleetcast machine remove")
async def remove(context: typer.Context, machine: MachineNames, as_json: Json = False) -> None:
    """Forget machines: their names, variables and collections. One that is still there registers anew by itself."""
    lost: dict[str, list[str]] = {}
    async with connection(context).dial() as channel:
        machines = MachineServiceStub(channel)
        found = await find_machines(machines, machine)
        for one in found:
            request = machine_service_pb2.RemoveMachineRequest(name=one.name, request_id=str(uuid.uuid4()))
            answer = await machines.RemoveMachine(request, timeout=UNARY_SECONDS)
            lost[one.name] = list(answer.collections)
    if as_json:
        write_json({"removed_machines": [one.name for one in found]})
        return
    for one in found:
        output().print(f"removed {machine_label(one)}{_loss(one, lost[one.name])}", soft_wrap=True)


def _loss(machine: Machine, collections: list[str]) -> str:
    """Returns what a machine's removal loses, for the end of a sentence."""
    lost = [f"the name {machine.display_name}"] if machine.display_name else []
    if machine.variables:
        lost.append(f"the variables {', '.join(sorted(machine.variables))}")
    if collections:
        lost.append(f"its place in {', '.join(map(identifier, collections))}")
    if machine.protected:
        lost.append("its protection")
    return f": {', '.join(lost)} {'is' if len(lost) == 1 and not machine.variables else 'are'} lost" if lost else ""


@command(group, "policy", span="fleetcast machine policy")
async def policy(
    context: typer.Context,
    *,
    action: Annotated[Action | None, typer.Argument(help="Without it, the policy is only shown.")] = None,
    collection: Annotated[
        str, typer.Option("--collection", metavar="NAME", help="With accept: unknown machines become members of it.")
    ] = "",
    imported: Annotated[
        Action | None,
        typer.Option(
            "--imported",
            help="What becomes of machines recognised as imported ones: accept or hold.",
            show_default="accept",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show or set what becomes of unknown machines that register: accept, hold for approval, or refuse."""
    if collection and action is not Action.ACCEPT:
        raise InvalidArgumentError(
            f"--collection {collection} is for accepted machines: write `accept --collection {collection}`",
            field="collection",
        )
    if imported is Action.REFUSE or (imported and action is None):
        raise InvalidArgumentError(
            f"--imported {imported} is not possible here: write `{action or 'accept'} --imported hold` or accept",
            field="imported",
        )
    async with connection(context).dial() as channel:
        machines = MachineServiceStub(channel)
        if action is None:
            get = machine_service_pb2.GetRegistrationPolicyRequest()
            found = (await machines.GetRegistrationPolicy(get, timeout=UNARY_SECONDS)).policy
        else:
            request = machine_service_pb2.SetRegistrationPolicyRequest(
                policy=RegistrationPolicy(
                    action=RegistrationPolicy.Action.Value(f"ACTION_{action.name}"),
                    collection=resource("collections", collection) if collection else "",
                    imported_action=RegistrationPolicy.Action.Value(f"ACTION_{(imported or Action.ACCEPT).name}"),
                ),
                request_id=str(uuid.uuid4()),
            )
            found = (await machines.SetRegistrationPolicy(request, timeout=UNARY_SECONDS)).policy
    if as_json:
        write_json(to_plain(found))
        return
    becomes = {
        RegistrationPolicy.ACTION_HOLD: "are held until an operator approves them",
        RegistrationPolicy.ACTION_REFUSE: "are refused",
    }.get(found.action, "are accepted")
    into = f" and become members of {identifier(found.collection)}" if found.collection else ""
    held = "; imported ones are held too" if found.imported_action == RegistrationPolicy.ACTION_HOLD else ""
    output().print(f"unknown machines {becomes}{into}{held}", soft_wrap=True)
