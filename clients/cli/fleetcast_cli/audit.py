"""`fleetcast audit`: who did what."""

from __future__ import annotations

import re
from datetime import UTC
from typing import Annotated

import typer
from fleetcast.scheduler.v1 import audit_service_pb2
from fleetcast.scheduler.v1.audit_service_pb2_grpc import AuditServiceStub
from fleetcast_kit.values.times import TIME_HELP

from fleetcast_cli.shell.command import Json, command
from fleetcast_cli.shell.connection import connection, every_page
from fleetcast_cli.shell.instants import Clock
from fleetcast_cli.shell.plain import to_plain, write_json
from fleetcast_cli.shell.text import DIGEST_DIGITS, format_time, output, progress, table

group = typer.Typer(no_args_is_help=True)

DEFAULT_COUNT = 100
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@command(group, "list", span="fleetcast audit list", epilog=TIME_HELP)
async def list_entries(
    context: typer.Context,
    *,
    resource: Annotated[
        str,
        typer.Option("--resource", metavar="NAME", help="Only what was done to this, such as sessions/20261201-k3."),
    ] = "",
    caller: Annotated[
        str, typer.Option("--caller", metavar="NAME", help="Only what was done by this, such as administrators/ada.")
    ] = "",
    since: Annotated[
        str | None,
        typer.Option(
            "--since",
            metavar="TIME",
            help="Only what was done after, such as -2h or 'yesterday 8:00'.",
            show_default=False,
        ),
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", min=1, max=1_000_000, metavar="N", help="Most entries, the newest.")
    ] = DEFAULT_COUNT,
    as_json: Json = False,
) -> None:
    """List what people and machines did, newest first."""
    earliest = Clock().past("--since", since).astimezone(UTC) if since is not None else None
    entries: list[audit_service_pb2.AuditEntry] = []
    async with connection(context).dial() as channel:
        request = audit_service_pb2.ListAuditEntriesRequest(
            page_size=min(limit + 1, 1000), resource=resource, caller=caller
        )
        async for answer in every_page(AuditServiceStub(channel).ListAuditEntries, request):
            fresh = [
                entry for entry in answer.audit_entries if earliest is None or entry.time.ToDatetime(UTC) >= earliest
            ]
            entries += fresh
            if len(fresh) < len(answer.audit_entries) or len(entries) > limit:
                break
    if as_json:
        write_json({"audit_entries": [to_plain(entry) for entry in entries[:limit]]})
        return
    if not entries:
        output().print("no such entries" if resource or caller or since else "nothing was recorded yet")
        return
    rows = table("time", "who", "from", "did", "to, with")
    for entry in entries[:limit]:
        detail = ", ".join(f"{name} {_short(entry.detail[name])}" for name in sorted(entry.detail))
        what = f"{entry.resource} {detail}".rstrip()
        rows.add_row(format_time(entry.time), entry.caller, entry.address or "-", entry.action, what)
    output().print(rows)
    if len(entries) > limit:
        progress().print(f"these are the newest {limit}; --limit N or --since TIME shows others")


def _short(value: str) -> str:
    """Returns a value with its digests shortened."""
    return _DIGEST.sub(lambda digest: digest[0][: len("sha256:") + DIGEST_DIGITS], value)
