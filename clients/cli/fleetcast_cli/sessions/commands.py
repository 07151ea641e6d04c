"""`fleetcast session`: create, list, show, start, cancel."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Annotated

import typer
from fleetcast.catalog.v1 import catalog_service_pb2, image_pb2
from fleetcast.catalog.v1.catalog_service_pb2_grpc import CatalogServiceStub
from fleetcast.scheduler.v1 import session_pb2, session_service_pb2
from fleetcast.scheduler.v1.session_service_pb2_grpc import SessionServiceStub
from fleetcast_kit.errors import FailedPreconditionError

from fleetcast_cli.images.lookup import find_image
from fleetcast_cli.sessions.flags import SESSION_HELP, Repeat, RepeatZone, SessionFlags, recurrence_zone
from fleetcast_cli.sessions.policies import format_start_rules
from fleetcast_cli.sessions.unicast import unicast_fields
from fleetcast_cli.sessions.view import machine_table, rule_fields, session_fields
from fleetcast_cli.shell.command import Json, command
from fleetcast_cli.shell.connection import UNARY_SECONDS, connection, every_page
from fleetcast_cli.shell.instants import Clock
from fleetcast_cli.shell.plain import short_name, to_plain, write_json
from fleetcast_cli.shell.recurrences import recurrence
from fleetcast_cli.shell.references import identifier, image_reference, resource, short_image
from fleetcast_cli.shell.text import fields, output, table

if TYPE_CHECKING:
    from fleetcast.catalog.v1.catalog_service_pb2_grpc import CatalogServiceAsyncStub
    from fleetcast.scheduler.v1.session_service_pb2_grpc import SessionServiceAsyncStub

group = typer.Typer(no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="SESSION", help="The session's name.", show_default=False)]


@command(group, "create", span="fleetcast session create", epilog=SESSION_HELP)
async def create(
    context: typer.Context,
    *,
    image: Annotated[
        str, typer.Option("--image", metavar="NAME[@DIGEST]", help="The image; pinned to its newest version.")
    ],
    collection: Annotated[
        str,
        typer.Option(
            "--collection",
            metavar="NAME",
            help="The machines that are awaited; no others are admitted.",
            show_default=False,
        ),
    ] = "",
    as_file: Annotated[
        bool,
        typer.Option("--as-file", help="Also for a WIM or ESD: machines receive the file as it is."),
    ] = False,
    flags: SessionFlags,
    repeat: Repeat = "",
    repeat_zone: RepeatZone = "",
    as_json: Json = False,
) -> None:
    """Open a session on an image. Without start rules it starts with the first machine."""
    reference = image_reference(image)
    request = session_service_pb2.CreateSessionRequest(
        collection=resource("collections", collection) if collection else "",
        recurrence=recurrence(repeat),
        recurrence_time_zone=recurrence_zone(repeat, repeat_zone),
        request_id=str(uuid.uuid4()),
    )
    flags.apply(request, Clock())
    opened = connection(context)
    async with opened.dial_catalog() as channel:
        catalog = CatalogServiceStub(channel)
        request.image = await find_image(catalog, reference)
        if not as_file:
            await _refuse_windows_images(catalog, request.image)
    async with opened.dial() as channel:
        session = (await SessionServiceStub(channel).CreateSession(request, timeout=UNARY_SECONDS)).session
    print_change(session, as_json=as_json, rules=True)


async def _refuse_windows_images(catalog: CatalogServiceAsyncStub, name: str) -> None:
    """Makes sure that the machines of a session can use an image as it is.

    Raises:
        FailedPreconditionError: it is a WIM or ESD, which a task sequence applies to a volume.
    """
    image = (await catalog.GetImage(catalog_service_pb2.GetImageRequest(name=name), timeout=UNARY_SECONDS)).image
    if image.format in (image_pb2.IMAGE_FORMAT_WIM, image_pb2.IMAGE_FORMAT_ESD):
        raise FailedPreconditionError(
            f"{short_image(image.name)} is a WIM or ESD file: machines of a session would get the file and no system; "
            "deploy a task sequence that applies it (fleetcast task-sequence create --ready bare-metal-windows), or "
            "give --as-file if they are to get the file",
            reason="IMAGE_UNFIT",
        )


@command(group, "list", span="fleetcast session list")
async def list_sessions(context: typer.Context, as_json: Json = False) -> None:
    """List sessions, newest first."""
    sessions: list[session_pb2.Session] = []
    async with connection(context).dial() as channel:
        request = session_service_pb2.ListSessionsRequest()
        async for answer in every_page(SessionServiceStub(channel).ListSessions, request):
            sessions += answer.sessions
    if as_json:
        write_json({"sessions": [to_plain(session) for session in sessions]})
        return
    if not sessions:
        output().print("no sessions; open one with: fleetcast session create --image NAME")
        return
    numbers = ("done", "failed")
    rows = table("session", "image", "state", *numbers, "starts with", right=numbers)
    for session in sessions:
        rows.add_row(
            identifier(session.name),
            short_image(session.image),
            short_name(session, "state"),
            f"{session.succeeded_count} of {session.participant_count}",
            str(session.failed_count),
            format_start_rules(session.start_rules, short=True),
        )
    output().print(rows)


@command(group, "show", span="fleetcast session show")
async def show(context: typer.Context, session: Name, as_json: Json = False) -> None:
    """Show one session with every machine in it."""
    name = resource("sessions", session)
    async with connection(context).dial() as channel:
        sessions = SessionServiceStub(channel)
        request = session_service_pb2.GetSessionRequest(name=name)
        found = (await sessions.GetSession(request, timeout=UNARY_SECONDS)).session
        participants = await list_participants(sessions, name)
    if as_json:
        write_json(to_plain(found) | {"participants": [to_plain(participant) for participant in participants]})
        return
    output().print(fields(session_fields(found) + unicast_fields(participants)))
    if participants:
        output().print()
        output().print(machine_table(participants))


@command(group, "start", span="fleetcast session start")
async def start(context: typer.Context, session: Name, as_json: Json = False) -> None:
    """Start a waiting session now, whatever its start rules say."""
    request = session_service_pb2.StartSessionRequest(name=resource("sessions", session), request_id=str(uuid.uuid4()))
    async with connection(context).dial() as channel:
        answer = await SessionServiceStub(channel).StartSession(request, timeout=UNARY_SECONDS)
    print_change(answer.session, as_json=as_json)


@command(group, "cancel", span="fleetcast session cancel")
async def cancel(
    context: typer.Context,
    *,
    session: Name,
    series: Annotated[bool, typer.Option("--series", help="If it repeats: none follows.")] = False,
    as_json: Json = False,
) -> None:
    """End a session: its machines are told, its sender stops."""
    request = session_service_pb2.CancelSessionRequest(
        name=resource("sessions", session), series=series, request_id=str(uuid.uuid4())
    )
    async with connection(context).dial() as channel:
        answer = await SessionServiceStub(channel).CancelSession(request, timeout=UNARY_SECONDS)
    print_change(answer.session, as_json=as_json)


async def list_participants(sessions: SessionServiceAsyncStub, name: str) -> list[session_pb2.Participant]:
    """Returns every participant of a session."""
    found: list[session_pb2.Participant] = []
    request = session_service_pb2.ListParticipantsRequest(parent=name)
    async for answer in every_page(sessions.ListParticipants, request):
        found += answer.participants
    return found


def print_change(session: session_pb2.Session, *, as_json: bool, rules: bool = False) -> None:
    """Prints what a command did to a session; with `rules` also those that it goes by, times in full."""
    if as_json:
        write_json(to_plain(session))
        return
    waiting = f": {session.waiting_reason}" if session.waiting_reason else ""
    output().print(
        f"session {identifier(session.name)} on {short_image(session.image)} is "
        f"{short_name(session, 'state')}{waiting}",
        soft_wrap=True,
    )
    if rules:
        output().print(fields(rule_fields(session)))
