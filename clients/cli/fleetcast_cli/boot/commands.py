"""`fleetcast boot`: open, close, status, policy, show."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer
from fleetcast.scheduler.v1 import boot_service_pb2
from fleetcast.scheduler.v1.boot_service_pb2 import BootAnswer, BootReport, BootWindow
from fleetcast.scheduler.v1.boot_service_pb2_grpc import BootServiceStub
from fleetcast_kit.errors import InvalidArgumentError
from fleetcast_kit.values.durations import parse_duration

from fleetcast_cli.boot.site_dhcp import dhcp_options, dnsmasq_configuration, isc_configuration
from fleetcast_cli.shell.command import Json, command
from fleetcast_cli.shell.connection import UNARY_SECONDS, connection, every_page
from fleetcast_cli.shell.plain import to_plain, write_json
from fleetcast_cli.shell.references import identifier, resource
from fleetcast_cli.shell.text import ABSENT, format_time, output, plural, table

group = typer.Typer(no_args_is_help=True)

Collection = Annotated[
    str, typer.Option("--collection", metavar="NAME", help="The collection's name.", show_default=False)
]


class Unknown(StrEnum):
    """What unknown machines are answered."""

    KNOCK = "knock"
    LOCAL = "local"
    SILENT = "silent"


@command(group, "open", span="fleetcast boot open")
async def open_boot(
    context: typer.Context,
    *,
    collection: Collection,
    duration: Annotated[
        str, typer.Option("--for", metavar="DURATION", help="For how long, such as 2h.", show_default="2h")
    ] = "2h",
    expect: Annotated[
        int, typer.Option("--expect", metavar="NUMBER", help="How many machines come; no more are admitted.")
    ] = 0,
    as_json: Json = False,
) -> None:
    """Admit machines of a collection that start from the network, for a time.

    They must agree with an imported row in two of SMBIOS UUID, serial number and MAC address. Others wait for approval.
    """
    request = boot_service_pb2.OpenBootRequest(collection=resource("collections", collection), expected_count=expect)
    request.duration.FromTimedelta(parse_duration(duration, field="--for"))
    async with connection(context).dial() as channel:
        window = (await BootServiceStub(channel).OpenBoot(request, timeout=UNARY_SECONDS)).window
    if as_json:
        write_json(to_plain(window))
        return
    output().print(_window_line(window), soft_wrap=True)


@command(group, "close", span="fleetcast boot close")
async def close(context: typer.Context, *, collection: Collection, as_json: Json = False) -> None:
    """Admit no more machines of a collection without approval."""
    request = boot_service_pb2.CloseBootRequest(collection=resource("collections", collection))
    async with connection(context).dial() as channel:
        answer = await BootServiceStub(channel).CloseBoot(request, timeout=UNARY_SECONDS)
    if as_json:
        write_json({"window": to_plain(answer.window) if answer.HasField("window") else None})
        return
    came = len(answer.window.admitted_machines)
    output().print(
        f"closed for {collection}: {plural(came, 'machine')} came" if answer.HasField("window") else "it was not open"
    )


@command(group, "status", span="fleetcast boot status")
async def status(context: typer.Context, *, as_json: Json = False) -> None:
    """Show what is open, which machines asked to start from the network, how far they got, and why they stopped."""
    boots: list[BootReport] = []
    async with connection(context).dial() as channel:
        stub = BootServiceStub(channel)
        state = await stub.GetBootState(boot_service_pb2.GetBootStateRequest(), timeout=UNARY_SECONDS)
        async for answer in every_page(stub.ListBoots, boot_service_pb2.ListBootsRequest()):
            boots += answer.boots
    if as_json:
        write_json(
            {
                "windows": [to_plain(window) for window in state.windows],
                "unknown_machines": _word(state.unknown_machines),
                "boots": [to_plain(boot) for boot in boots],
            }
        )
        return
    for window in state.windows:
        output().print(_window_line(window), soft_wrap=True)
    output().print(f"unknown machines: {_word(state.unknown_machines)}")
    if not boots:
        output().print("no machine has asked to start from the network")
        return
    rows = table("machine", "address", "firmware", "answer", "got to", "when")
    for boot in boots:
        rows.add_row(
            boot.display_name or (identifier(boot.machine) if boot.machine else ABSENT),
            boot.asker.mac_address,
            f"{boot.asker.firmware}, {boot.asker.way}",
            _word(boot.answer),
            boot.stage,
            format_time(boot.heard_time),
        )
    output().print(rows)
    for boot in boots:
        if said := boot.likely_reason or boot.reason:
            output().print(f"{boot.display_name or boot.asker.mac_address}: {said}", soft_wrap=True)


@command(group, "policy", span="fleetcast boot policy")
async def policy(
    context: typer.Context,
    *,
    unknown: Annotated[Unknown | None, typer.Argument(help="Without it, the policy is only shown.")] = None,
    as_json: Json = False,
) -> None:
    """Show or set what unknown machines are answered that start from the network.

    knock: they start the boot image and wait for approval. local: they start their disk. silent: they hear nothing.
    """
    async with connection(context).dial() as channel:
        stub = BootServiceStub(channel)
        if unknown is None:
            answer = (
                await stub.GetBootState(boot_service_pb2.GetBootStateRequest(), timeout=UNARY_SECONDS)
            ).unknown_machines
        else:
            request = boot_service_pb2.SetBootPolicyRequest(
                unknown_machines=BootAnswer.Value(f"BOOT_ANSWER_{unknown.name}")
            )
            answer = (await stub.SetBootPolicy(request, timeout=UNARY_SECONDS)).unknown_machines
    if as_json:
        write_json({"unknown_machines": _word(answer)})
        return
    output().print(f"unknown machines: {_word(answer)}")


@group.command("show")
def show(
    *,
    server: Annotated[str, typer.Option("--boot-server", metavar="ADDRESS", help="IPv4 address of the boot service.")],
    http_port: Annotated[int, typer.Option("--http-port", metavar="PORT", help="Its port of HTTP.")] = 7480,
    options: Annotated[bool, typer.Option("--dhcp-options", help="The options, for any DHCP server.")] = False,
    isc: Annotated[bool, typer.Option("--isc", help="For the configuration of ISC's or Kea's DHCP server.")] = False,
    dnsmasq: Annotated[bool, typer.Option("--dnsmasq", help="For the configuration of dnsmasq.")] = False,
) -> None:
    """Print what to enter in a site's own DHCP server, where the boot service's answers do not reach the machines."""
    writers = ((options, dhcp_options), (isc, isc_configuration), (dnsmasq, dnsmasq_configuration))
    wanted = [write for asked, write in writers if asked]
    if len(wanted) != 1:
        raise InvalidArgumentError("say for which server: --dhcp-options, --isc or --dnsmasq")
    print(wanted[0](server, http_port))


def _window_line(window: BootWindow) -> str:
    came = len(window.admitted_machines)
    of = f" of {window.expected_count}" if window.expected_count else ""
    return f"open for {identifier(window.collection)} until {format_time(window.end_time)}: {came}{of} came"


def _word(answer: int) -> str:
    return BootAnswer.Name(answer).removeprefix("BOOT_ANSWER_").lower()  # type: ignore[arg-type]
