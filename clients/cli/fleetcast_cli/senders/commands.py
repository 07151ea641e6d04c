"""`fleetcast sender`: list, show, drain, resume."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated

import typer
from fleetcast.scheduler.v1 import sender_service_pb2
from fleetcast.scheduler.v1.sender_service_pb2 import Sender
from fleetcast.scheduler.v1.sender_service_pb2_grpc import SenderServiceStub
from fleetcast_kit.values.rates import format_rate
from rich.table import Table

from fleetcast_cli.sessions.unicast import unicast_lines
from fleetcast_cli.shell.command import Json, command
from fleetcast_cli.shell.connection import UNARY_SECONDS, connection, every_page
from fleetcast_cli.shell.plain import to_plain, write_json
from fleetcast_cli.shell.references import identifier, resource
from fleetcast_cli.shell.text import ABSENT, fields, format_distance, format_time, output, plural, table

group = typer.Typer(no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="SENDER", help="The sender's name.", show_default=False)]


@command(group, "list", span="fleetcast sender list")
async def list_senders(context: typer.Context, as_json: Json = False) -> None:
    """List every sender that ever registered, and what it does now."""
    senders: list[Sender] = []
    async with connection(context).dial() as channel:
        request = sender_service_pb2.ListSendersRequest()
        async for answer in every_page(SenderServiceStub(channel).ListSenders, request):
            senders += answer.senders
    if as_json:
        write_json({"senders": [to_plain(sender) for sender in senders]})
        return
    if not senders:
        output().print("no senders; start one with: fleetcast-sender run --scheduler HOST:PORT")
        return
    output().print(sender_table(senders))
    for sender in senders:
        if sender.multicast_warning:
            output().print(f"{identifier(sender.name)}: {sender.multicast_warning}", style="yellow", soft_wrap=True)
        for line in unicast_lines(sender.unicast):
            output().print(f"{identifier(sender.name)}: {line}", soft_wrap=True)


@command(group, "show", span="fleetcast sender show")
async def show(context: typer.Context, sender: Name, as_json: Json = False) -> None:
    """Show one sender: where it is, what it may use, what it sends."""
    request = sender_service_pb2.GetSenderRequest(name=resource("senders", sender))
    async with connection(context).dial() as channel:
        found = (await SenderServiceStub(channel).GetSender(request, timeout=UNARY_SECONDS)).sender
    if as_json:
        write_json(to_plain(found))
        return
    output().print(fields(_sender_fields(found)))


@command(group, "drain", span="fleetcast sender drain")
async def drain(context: typer.Context, sender: Name, as_json: Json = False) -> None:
    """Give a sender no more sessions. Those that it has end there."""
    request = sender_service_pb2.DrainSenderRequest(name=resource("senders", sender), request_id=str(uuid.uuid4()))
    async with connection(context).dial() as channel:
        drained = (await SenderServiceStub(channel).DrainSender(request, timeout=UNARY_SECONDS)).sender
    _print_change(drained, as_json=as_json)


@command(group, "resume", span="fleetcast sender resume")
async def resume(context: typer.Context, sender: Name, as_json: Json = False) -> None:
    """Give a drained sender sessions again."""
    request = sender_service_pb2.ResumeSenderRequest(name=resource("senders", sender), request_id=str(uuid.uuid4()))
    async with connection(context).dial() as channel:
        resumed = (await SenderServiceStub(channel).ResumeSender(request, timeout=UNARY_SECONDS)).sender
    _print_change(resumed, as_json=as_json)


def sender_table(senders: Iterable[Sender]) -> Table:
    """Returns a table with one row for each sender, in the given order."""
    numbers = ("sends", "machines", "rate")
    rows = table("sender", "state", "address", "site", *numbers, right=numbers)
    for sender in senders:
        rows.add_row(
            identifier(sender.name),
            sender_state(sender, datetime.now(UTC)),
            sender.address,
            sender.site or ABSENT,
            _load(sender),
            str(sender.receiver_count),
            format_rate(sender.rate_bits_per_second) if sender.rate_bits_per_second else ABSENT,
        )
    return rows


def sender_line(sender: Sender) -> str:
    """Returns what a sender does, in a line: `a: ready, sends 2 of 4 to 31 machines, 880 Mbit/s`."""
    state = ("draining" if sender.draining else "ready") if sender.connected else "lost"
    rate = f", {format_rate(sender.rate_bits_per_second)}" if sender.rate_bits_per_second else ""
    machines = plural(sender.receiver_count, "machine")
    return f"{identifier(sender.name)}: {state}, sends {_load(sender)} to {machines}{rate}"


def sender_state(sender: Sender, now: datetime) -> str:
    """Returns whether a sender is there and takes sessions: `ready`, `draining`, `lost 3 h 10 min ago`."""
    if sender.connected:
        return "draining" if sender.draining else "ready"
    lost = f"lost {format_distance(sender.contact_time.ToDatetime(UTC) - now)}"
    return f"{lost}, draining" if sender.draining else lost


def _load(sender: Sender) -> str:
    limit = f" of {sender.max_concurrent}" if sender.max_concurrent else ""
    return f"{len(sender.transmissions)}{limit}"


def _sender_fields(sender: Sender) -> list[tuple[str, str]]:
    return [
        ("sender", identifier(sender.name)),
        ("state", sender_state(sender, datetime.now(UTC))),
        ("address", sender.address),
        ("site", sender.site),
        ("subnets", " ".join(sender.subnets)),
        ("interface", sender.interface),
        ("warning", sender.multicast_warning),
        *(("", line) for line in unicast_lines(sender.unicast)),
        ("link", format_rate(sender.link_bits_per_second) if sender.link_bits_per_second else ""),
        ("groups", f"{sender.first_group} to {sender.last_group}"),
        ("ports", f"{sender.first_port} to {sender.last_port}"),
        ("sends", f"{_load(sender)}, to {plural(sender.receiver_count, 'machine')}"),
        ("rate", format_rate(sender.rate_bits_per_second) if sender.rate_bits_per_second else ""),
        ("sessions", "\n".join(name.split("/")[1] for name in sender.transmissions)),
        ("registered", format_time(sender.register_time)),
        ("heard", format_time(sender.contact_time)),
    ]


def _print_change(sender: Sender, *, as_json: bool) -> None:
    if as_json:
        write_json(to_plain(sender))
        return
    count = len(sender.transmissions)
    left = f"; {plural(count, 'transmission')} {'goes' if count == 1 else 'go'} on" if count else ""
    state = sender_state(sender, datetime.now(UTC))
    output().print(f"sender {identifier(sender.name)} is {state}{left}", soft_wrap=True)
