"""`fleetcast collection`: create, list, show, set, add, remove, delete."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Annotated

import typer
from fleetcast.scheduler.v1 import collection_service_pb2
from fleetcast.scheduler.v1.collection_service_pb2 import Collection
from fleetcast.scheduler.v1.collection_service_pb2_grpc import CollectionServiceStub
from fleetcast.scheduler.v1.machine_service_pb2 import Machine
from fleetcast.scheduler.v1.machine_service_pb2_grpc import MachineServiceStub
from fleetcast_kit.errors import InvalidArgumentError

from fleetcast_cli.collections.maintenance_windows import (
    MAINTENANCE_HELP,
    format_maintenance_window,
    parse_maintenance_windows,
)
from fleetcast_cli.machines.commands import MachineNames
from fleetcast_cli.machines.lookup import find_machines
from fleetcast_cli.machines.view import machine_list
from fleetcast_cli.shell.command import Json, command
from fleetcast_cli.shell.connection import UNARY_SECONDS, connection, every_page
from fleetcast_cli.shell.plain import to_plain, write_json
from fleetcast_cli.shell.references import identifier, resource
from fleetcast_cli.shell.text import ABSENT, fields, format_time, output, plural, table
from fleetcast_cli.task_sequences.variables import Unset, Variable, change_variables, format_variables, parse_variables

if TYPE_CHECKING:
    import grpc

group = typer.Typer(no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="COLLECTION", help="The collection's name.", show_default=False)]
Rule = Annotated[
    str | None,
    typer.Option(
        "--rule",
        metavar="EXPR",
        help="""Machines for which this holds are members, such as 'machine.model == "X1"'.""",
        show_default=False,
    ),
]
Description = Annotated[
    str | None, typer.Option("--description", metavar="TEXT", help="What it is, for people.", show_default=False)
]
Protected = Annotated[
    bool | None,
    typer.Option(
        "--protected/--not-protected",
        help="Its machines are never the target of a deployment.",
        show_default=False,
    ),
]
MaintenanceWindows = Annotated[
    list[str] | None,
    typer.Option(
        "--maintenance-window",
        metavar="WINDOW",
        help="When required deployments may begin; see below. Can be repeated.",
        show_default=False,
    ),
]


@command(group, "create", span="fleetcast collection create", epilog=MAINTENANCE_HELP)
async def create(
    context: typer.Context,
    *,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Letters, digits and -, at most 63.", show_default=False)],
    rule: Rule = None,
    description: Description = None,
    variable: Variable = None,
    protected: Protected = None,
    maintenance_window: MaintenanceWindows = None,
    as_json: Json = False,
) -> None:
    """Make a collection: of machines that are added by name, and of those for which a rule holds."""
    request = collection_service_pb2.CreateCollectionRequest(
        collection=Collection(
            name=resource("collections", name),
            description=description or "",
            rule=rule or "",
            variables=parse_variables(variable),
            protected=bool(protected),
            maintenance_windows=parse_maintenance_windows(maintenance_window or []),
        ),
        request_id=str(uuid.uuid4()),
    )
    async with connection(context).dial() as channel:
        answer = await CollectionServiceStub(channel).CreateCollection(request, timeout=UNARY_SECONDS)
        members = await list_members(channel, answer.collection.name)
    _print_change("created", answer.collection, members, as_json=as_json)


@command(group, "list", span="fleetcast collection list")
async def list_collections(context: typer.Context, as_json: Json = False) -> None:
    """List collections by name."""
    collections: list[Collection] = []
    async with connection(context).dial() as channel:
        request = collection_service_pb2.ListCollectionsRequest()
        async for answer in every_page(CollectionServiceStub(channel).ListCollections, request):
            collections += answer.collections
    if as_json:
        write_json({"collections": [to_plain(collection) for collection in collections]})
        return
    if not collections:
        output().print("no collections; make one with: fleetcast collection create NAME")
        return
    rows = table("collection", "by name", "rule", "description", "", right=("by name",))
    for collection in collections:
        rows.add_row(
            identifier(collection.name),
            str(collection.named_member_count),
            collection.rule or ABSENT,
            collection.description or ABSENT,
            "protected" if collection.protected else "",
        )
    output().print(rows)


@command(group, "show", span="fleetcast collection show")
async def show(context: typer.Context, collection: Name, as_json: Json = False) -> None:
    """Show a collection and the machines that are in it now, by name and by its rule."""
    name = resource("collections", collection)
    async with connection(context).dial() as channel:
        get = collection_service_pb2.GetCollectionRequest(name=name)
        found = (await CollectionServiceStub(channel).GetCollection(get, timeout=UNARY_SECONDS)).collection
        members = await list_members(channel, name)
    if as_json:
        write_json(to_plain(found) | {"members": [to_plain(machine) for machine in members]})
        return
    output().print(fields(_collection_fields(found, members)))
    if members:
        output().print()
        output().print(machine_list(members))


@command(group, "set", span="fleetcast collection set", epilog=MAINTENANCE_HELP)
async def set_collection(
    context: typer.Context,
    *,
    collection: Name,
    rule: Rule = None,
    description: Description = None,
    variable: Variable = None,
    unset: Unset = None,
    protected: Protected = None,
    maintenance_window: MaintenanceWindows = None,
    as_json: Json = False,
) -> None:
    """Change a collection. An empty --rule leaves only the machines that were added by name."""
    name = resource("collections", collection)
    windows = parse_maintenance_windows(maintenance_window or [])
    async with connection(context).dial() as channel:
        collections = CollectionServiceStub(channel)
        get = collection_service_pb2.GetCollectionRequest(name=name)
        found = (await collections.GetCollection(get, timeout=UNARY_SECONDS)).collection
        changes = Collection(name=name, etag=found.etag)
        request = collection_service_pb2.UpdateCollectionRequest(collection=changes, request_id=str(uuid.uuid4()))
        for field, value in (("rule", rule), ("description", description), ("protected", protected)):
            if value is not None:
                setattr(request.collection, field, value)
                request.update_mask.paths.append(field)
        if variable or unset:
            request.collection.variables.update(change_variables(found.variables, variable, unset))
            request.update_mask.paths.append("variables")
        if maintenance_window:
            request.collection.maintenance_windows.extend(windows)
            request.update_mask.paths.append("maintenance_windows")
        if not request.update_mask.paths:
            raise InvalidArgumentError("nothing to change: give some of the flags in `fleetcast collection set --help`")
        changed = (await collections.UpdateCollection(request, timeout=UNARY_SECONDS)).collection
        members = await list_members(channel, name)
    _print_change("changed", changed, members, as_json=as_json)


@command(group, "add", span="fleetcast collection add")
async def add(context: typer.Context, collection: Name, machine: MachineNames, as_json: Json = False) -> None:
    """Make machines members by name. Those that are stay so."""
    name = resource("collections", collection)
    async with connection(context).dial() as channel:
        found = await find_machines(MachineServiceStub(channel), machine)
        request = collection_service_pb2.AddMembersRequest(
            name=name, machines=[one.name for one in found], request_id=str(uuid.uuid4())
        )
        answer = await CollectionServiceStub(channel).AddMembers(request, timeout=UNARY_SECONDS)
        members = await list_members(channel, name)
    _print_change("changed", answer.collection, members, as_json=as_json)


@command(group, "remove", span="fleetcast collection remove")
async def remove(context: typer.Context, collection: Name, machine: MachineNames, as_json: Json = False) -> None:
    """End memberships by name. Machines for which the rule holds stay in it."""
    name = resource("collections", collection)
    async with connection(context).dial() as channel:
        found = await find_machines(MachineServiceStub(channel), machine)
        request = collection_service_pb2.RemoveMembersRequest(
            name=name, machines=[one.name for one in found], request_id=str(uuid.uuid4())
        )
        answer = await CollectionServiceStub(channel).RemoveMembers(request, timeout=UNARY_SECONDS)
        members = await list_members(channel, name)
    _print_change("changed", answer.collection, members, as_json=as_json)


@command(group, "delete", span="fleetcast collection delete")
async def delete(context: typer.Context, collection: Name, as_json: Json = False) -> None:
    """Delete a collection. Its machines stay."""
    name = resource("collections", collection)
    async with connection(context).dial() as channel:
        collections = CollectionServiceStub(channel)
        get = collection_service_pb2.GetCollectionRequest(name=name)
        await collections.GetCollection(get, timeout=UNARY_SECONDS)  # a mistyped name is an error, not a success
        request = collection_service_pb2.DeleteCollectionRequest(name=name, request_id=str(uuid.uuid4()))
        await collections.DeleteCollection(request, timeout=UNARY_SECONDS)
    if as_json:
        write_json({"deleted_collection": name})
        return
    output().print(f"deleted collection {identifier(name)}; its machines stay")


async def list_members(channel: grpc.aio.Channel, collection: str) -> list[Machine]:
    """Returns the machines that are in a collection now."""
    members: list[Machine] = []
    request = collection_service_pb2.ListMembersRequest(name=collection, page_size=1000)
    async for answer in every_page(CollectionServiceStub(channel).ListMembers, request):
        members += answer.machines
    return members


def _collection_fields(collection: Collection, members: list[Machine]) -> list[tuple[str, str]]:
    return [
        ("collection", identifier(collection.name)),
        ("description", collection.description),
        ("rule", collection.rule),
        ("machines", f"{len(members)}, {collection.named_member_count} of them by name"),
        ("protected", "yes: its machines are never the target of a deployment" if collection.protected else ""),
        ("maintenance", "\n".join(map(format_maintenance_window, collection.maintenance_windows))),
        ("variables", format_variables(collection.variables)),
        ("created", format_time(collection.create_time)),
    ]


def _print_change(what: str, collection: Collection, members: list[Machine], *, as_json: bool) -> None:
    if as_json:
        write_json(to_plain(collection) | {"members": [to_plain(machine) for machine in members]})
        return
    name = identifier(collection.name)
    output().print(f"{what} collection {name}: {plural(len(members), 'machine')} in it now", soft_wrap=True)
