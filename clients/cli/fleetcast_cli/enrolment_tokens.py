"""`fleetcast enrolment-token`: create, list, revoke."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

import typer
from fleetcast.scheduler.v1 import enrolment_service_pb2
from fleetcast.scheduler.v1.enrolment_service_pb2_grpc import EnrolmentServiceStub
from fleetcast_kit.errors import InvalidArgumentError
from fleetcast_kit.values.durations import parse_duration

from fleetcast_cli.shell.command import Json, command
from fleetcast_cli.shell.connection import UNARY_SECONDS, connection, every_page
from fleetcast_cli.shell.plain import short_name, to_plain, write_json
from fleetcast_cli.shell.references import identifier, resource
from fleetcast_cli.shell.text import format_time, output, plural, progress, table

group = typer.Typer(no_args_is_help=True)


class HolderRole(StrEnum):
    """What the holders of a token become."""

    MACHINE = "machine"
    SENDER = "sender"
    SERVICE = "service"


_HOLDERS = {
    HolderRole.MACHINE: "machine: fleetcast-agent enrol --server",
    HolderRole.SENDER: "sender's host: fleetcast-sender run --scheduler",
    HolderRole.SERVICE: "catalog's host: fleetcast-catalog run --scheduler",
}
"""How a token is used, by what its holders become."""


@command(group, "create", span="fleetcast enrolment-token create")
async def create(
    context: typer.Context,
    role: Annotated[
        HolderRole,
        typer.Option(help="What its holders become: machines, senders, or services on hosts of their own."),
    ] = HolderRole.MACHINE,
    uses: Annotated[int, typer.Option(min=1, max=1_000_000, help="How many may enrol with it.")] = 1,
    expires: Annotated[str, typer.Option(metavar="DURATION", help="How long it works, such as 90m, 2h or 7d.")] = "24h",
    as_json: Json = False,
) -> None:
    """Create a token. Its text is a secret, printed once: alone on standard output."""
    lifetime = parse_duration(expires, field="expires")
    if not lifetime:
        raise InvalidArgumentError(f"--expires {expires} would end the token at once: give more", field="expires")
    request = enrolment_service_pb2.CreateEnrolmentTokenRequest(
        role=enrolment_service_pb2.EnrolmentRole.Value(f"ENROLMENT_ROLE_{role.name}"),
        uses=uses,
        request_id=str(uuid.uuid4()),
    )
    request.lifetime.FromTimedelta(lifetime)
    opened = connection(context)
    async with opened.dial() as channel:
        answer = await EnrolmentServiceStub(channel).CreateEnrolmentToken(request, timeout=UNARY_SECONDS)
    if as_json:
        write_json(to_plain(answer))
        return
    output().print(answer.token, soft_wrap=True)
    token = answer.enrolment_token
    progress().print(
        f"token {identifier(token.name)}: {plural(token.uses, 'use')}, until {format_time(token.expire_time)}; on the "
        f"{_HOLDERS[role]} {opened.resolve()[0]} --token TOKEN",
        soft_wrap=True,
    )


@command(group, "list", span="fleetcast enrolment-token list")
async def list_tokens(context: typer.Context, as_json: Json = False) -> None:
    """List tokens, newest first, without their texts."""
    tokens: list[enrolment_service_pb2.EnrolmentToken] = []
    async with connection(context).dial() as channel:
        request = enrolment_service_pb2.ListEnrolmentTokensRequest()
        async for answer in every_page(EnrolmentServiceStub(channel).ListEnrolmentTokens, request):
            tokens += answer.enrolment_tokens
    if as_json:
        write_json({"enrolment_tokens": [to_plain(token) for token in tokens]})
        return
    if not tokens:
        output().print("no enrolment tokens; create one with: fleetcast enrolment-token create")
        return
    now = datetime.now(UTC)
    rows = table("token", "role", "used", "state", "created", "expires", right=("used",))
    for token in tokens:
        rows.add_row(
            identifier(token.name),
            short_name(token, "role"),
            f"{token.used_count} of {token.uses}",
            token_state(token, now),
            format_time(token.create_time),
            format_time(token.expire_time),
        )
    output().print(rows)


@command(group, "revoke", span="fleetcast enrolment-token revoke")
async def revoke(
    context: typer.Context,
    token: Annotated[
        str, typer.Argument(metavar="TOKEN", help="The token's name in the list, not its text.", show_default=False)
    ],
    as_json: Json = False,
) -> None:
    """End a token at once. Machines that enrolled with it stay enrolled."""
    if token.startswith("fct1-"):
        raise InvalidArgumentError(
            "that is the text of a token; name it as `fleetcast enrolment-token list` does", field="token"
        )
    request = enrolment_service_pb2.RevokeEnrolmentTokenRequest(name=resource("enrolmentTokens", token))
    async with connection(context).dial() as channel:
        answer = await EnrolmentServiceStub(channel).RevokeEnrolmentToken(request, timeout=UNARY_SECONDS)
    if as_json:
        write_json(to_plain(answer.enrolment_token))
        return
    used = plural(answer.enrolment_token.used_count, "machine")
    output().print(f"revoked token {token}; {used} had enrolled with it")


def token_state(token: enrolment_service_pb2.EnrolmentToken, now: datetime) -> str:
    """Returns what a token is worth at `now`: `usable`, `used up`, `expired` or `revoked`."""
    if token.HasField("revoke_time"):
        return "revoked"
    if token.used_count >= token.uses:
        return "used up"
    return "usable" if now < token.expire_time.ToDatetime(UTC) else "expired"
