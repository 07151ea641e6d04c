"""`fleetcast session`: update, set-rate, extend, close, drain, stop, kick, retry."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from fleetcast.scheduler.v1 import session_pb2, session_service_pb2
from fleetcast.scheduler.v1.session_service_pb2_grpc import SessionServiceStub
from fleetcast_kit.errors import InvalidArgumentError, NotFoundError
from fleetcast_kit.values.durations import parse_duration

from fleetcast_cli.machines.lookup import Known, choose, find_machines, mac_address
from fleetcast_cli.sessions.commands import Name, group, list_participants, print_change
from fleetcast_cli.sessions.flags import SESSION_HELP, Repeat, RepeatZone, SessionFlags, recurrence_zone
from fleetcast_cli.shell.command import Json, command
from fleetcast_cli.shell.connection import UNARY_SECONDS, connection
from fleetcast_cli.shell.instants import Clock
from fleetcast_cli.shell.plain import short_name, to_plain, write_json
from fleetcast_cli.shell.recurrences import recurrence
from fleetcast_cli.shell.references import identifier, resource
from fleetcast_cli.shell.text import output

if TYPE_CHECKING:
    import grpc

Machines = Annotated[
    list[str], typer.Argument(metavar="MACHINE...", help="Names, ids or MAC addresses.", show_default=False)
]


@command(group, "update", span="fleetcast session update", epilog=SESSION_HELP)
async def update(
    context: typer.Context,
    *,
    session: Name,
    flags: SessionFlags,
    repeat: Repeat = "",
    repeat_zone: RepeatZone = "",
    as_json: Json = False,
) -> None:
    """Change a session: everything while it waits; rates, limits, priority and end also while it runs."""
    request = session_service_pb2.UpdateSessionRequest(request_id=str(uuid.uuid4()))
    paths = flags.apply(request.session, Clock())
    if repeat:
        request.session.recurrence = "" if repeat.lower() == "none" else recurrence(repeat)
        request.session.recurrence_time_zone = recurrence_zone(request.session.recurrence, repeat_zone)
        paths += ["recurrence", "recurrence_time_zone"]
    if not paths:
        raise InvalidArgumentError("nothing to change: give some of the flags in `fleetcast session update --help`")
    await _update(context, session, request, paths, as_json=as_json)


@command(group, "set-rate", span="fleetcast session set-rate")
async def set_rate(
    context: typer.Context,
    *,
    session: Name,
    rate: Annotated[str, typer.Argument(metavar="RATE", help="Such as 500M, or auto.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Change how fast a session sends, at once. Its ceilings stay."""
    request = session_service_pb2.UpdateSessionRequest(request_id=str(uuid.uuid4()))
    paths = SessionFlags(rate=rate).apply(request.session, Clock())
    await _update(context, session, request, paths, as_json=as_json)


@command(group, "extend", span="fleetcast session extend")
async def extend(
    context: typer.Context,
    *,
    session: Name,
    by: Annotated[str, typer.Argument(metavar="DURATION", help="By how much, such as 30m.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Move the end of a session, and while it waits its start time, to later."""
    length = parse_duration(by.removeprefix("+"), field="extension")
    if not length:
        raise InvalidArgumentError(f"{by!r} moves nothing: give a duration like 30m", field="extension")
    request = session_service_pb2.ExtendSessionRequest(name=resource("sessions", session), request_id=str(uuid.uuid4()))
    request.extension.FromTimedelta(length)
    async with connection(context).dial() as channel:
        answer = await SessionServiceStub(channel).ExtendSession(request, timeout=UNARY_SECONDS)
    print_change(answer.session, as_json=as_json, rules=True)


@command(group, "close", span="fleetcast session close")
async def close(context: typer.Context, session: Name, as_json: Json = False) -> None:
    """Admit no more machines. A waiting session no longer waits for a number of them."""
    request = session_service_pb2.CloseSessionRequest(name=resource("sessions", session), request_id=str(uuid.uuid4()))
    async with connection(context).dial() as channel:
        answer = await SessionServiceStub(channel).CloseSession(request, timeout=UNARY_SECONDS)
    print_change(answer.session, as_json=as_json)


@command(group, "drain", span="fleetcast session drain")
async def drain(context: typer.Context, session: Name, as_json: Json = False) -> None:
    """Admit no more machines, dismiss those that wait, let the others finish."""
    request = session_service_pb2.DrainSessionRequest(name=resource("sessions", session), request_id=str(uuid.uuid4()))
    async with connection(context).dial() as channel:
        answer = await SessionServiceStub(channel).DrainSession(request, timeout=UNARY_SECONDS)
    print_change(answer.session, as_json=as_json)


@command(group, "stop", span="fleetcast session stop")
async def stop(context: typer.Context, session: Name, as_json: Json = False) -> None:
    """Complete a session at once: machines that have not ended are dismissed."""
    request = session_service_pb2.StopSessionRequest(name=resource("sessions", session), request_id=str(uuid.uuid4()))
    async with connection(context).dial() as channel:
        answer = await SessionServiceStub(channel).StopSession(request, timeout=UNARY_SECONDS)
    print_change(answer.session, as_json=as_json)


@command(group, "kick", span="fleetcast session kick")
async def kick(
    context: typer.Context,
    *,
    session: Name,
    machine: Machines,
    unicast: Annotated[
        bool, typer.Option("--unicast", help="Not out: they get what they lack by unicast, apart from the group.")
    ] = False,
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="Why, for the machine's display and the record.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Take machines out of a session; they cannot join it again."""
    name = resource("sessions", session)
    kick_to = session_service_pb2.KickParticipantRequest
    kicked = []
    async with connection(context).dial() as channel:
        sessions = SessionServiceStub(channel)
        for participant in await _participants(channel, name, machine):
            request = kick_to(
                name=participant,
                reason=reason,
                action=kick_to.ACTION_UNICAST if unicast else kick_to.ACTION_ABORT,
                request_id=str(uuid.uuid4()),
            )
            kicked.append((await sessions.KickParticipant(request, timeout=UNARY_SECONDS)).participant)
    _print_participants(kicked, as_json=as_json)


@command(group, "retry", span="fleetcast session retry")
async def retry(
    context: typer.Context,
    *,
    session: Name,
    machine: Annotated[
        list[str] | None,
        typer.Argument(metavar="[MACHINE...]", help="Without any, all that failed.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Give machines that failed or were taken out another chance."""
    name = resource("sessions", session)
    async with connection(context).dial() as channel:
        request = session_service_pb2.RetryParticipantsRequest(
            parent=name,
            names=await _participants(channel, name, machine) if machine else [],
            request_id=str(uuid.uuid4()),
        )
        answer = await SessionServiceStub(channel).RetryParticipants(request, timeout=UNARY_SECONDS)
    if not answer.participants and not as_json:
        output().print("no machine had failed")
        return
    _print_participants(answer.participants, as_json=as_json)


async def _update(
    context: typer.Context,
    session: str,
    request: session_service_pb2.UpdateSessionRequest,
    paths: list[str],
    *,
    as_json: bool,
) -> None:
    request.session.name = resource("sessions", session)
    request.update_mask.paths.extend(paths)
    async with connection(context).dial() as channel:
        answer = await SessionServiceStub(channel).UpdateSession(request, timeout=UNARY_SECONDS)
    print_change(answer.session, as_json=as_json, rules=True)


async def _participants(channel: grpc.aio.Channel, session: str, texts: list[str]) -> list[str]:
    """Returns the names of the participants that `texts` name.

    Raises:
        NotFoundError: one takes no part.
        InvalidArgumentError: one names several.
    """
    from fleetcast.scheduler.v1.machine_service_pb2_grpc import (  # noqa: PLC0415 - few commands of the group need it
        MachineServiceStub,
    )

    present = await list_participants(SessionServiceStub(channel), session)
    named = [text for text in texts if mac_address(text)]
    addresses = {
        machine.name: machine.inventory.mac_addresses
        for machine in (await find_machines(MachineServiceStub(channel), named) if named else [])
    }
    try:
        machines = choose(
            texts, [Known(each.machine, each.display_name, addresses.get(each.machine, ())) for each in present]
        )
    except NotFoundError as error:
        raise NotFoundError(
            f"{error.message.partition(';')[0]} in session {identifier(session)}; see: fleetcast session show "
            f"{identifier(session)}",
            reason="PARTICIPANT_NOT_FOUND",
        ) from error
    by_machine = {each.machine: each.name for each in present}
    return [by_machine[machine] for machine in machines]


def _print_participants(participants: Sequence[session_pb2.Participant], *, as_json: bool) -> None:
    if as_json:
        write_json({"participants": [to_plain(participant) for participant in participants]})
        return
    for participant in participants:
        name, machine = participant.display_name, identifier(participant.machine)
        how = ", by unicast" if participant.unicast else ""
        output().print(f"{name or machine} ({machine}) is {short_name(participant, 'state')}{how}", soft_wrap=True)
