"""The command `fleetcast-sender`: the sender alone, on its own host."""

from __future__ import annotations

import asyncio
import socket
import sys
from pathlib import Path
from typing import Annotated

import typer
from fleetcast_kit.errors import InvalidArgumentError
from fleetcast_kit.identity.peer import Role
from fleetcast_kit.identity.trust import ServerCredentials
from fleetcast_kit.joining.joining import join_installation, keep_renewed
from fleetcast_kit.joining.tokens import token_of
from fleetcast_kit.process.commandline import run_command_line
from fleetcast_kit.process.serving import ListenOption, LogFormatOption, serve, service_app
from fleetcast_kit.rpc.server import GrpcServer, run_until_signal
from fleetcast_kit.values.addresses import is_ip_address, join_address, served_names, split_address

from fleetcast_sender.app import open_sender
from fleetcast_sender.sending.interfaces import Interface
from fleetcast_sender.settings import SenderSettings

NAME = "fleetcast-sender"

app = service_app("The sender of fleetcast: multicast transmissions and their repair.")


@app.command()
def run(
    *,
    scheduler: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="The scheduler.")] = None,
    catalog: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="The catalog; by default the scheduler says where.")
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(
            metavar="TOKEN",
            help="Enrolment token of the role sender, for the first start; here others can see it in the list of "
            "processes.",
        ),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="File with that token, or - for standard input; or set FLEETCAST_TOKEN."),
    ] = None,
    credentials: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The sender's own ca.pem, cert.pem and key.pem.")
    ] = None,
    listen: ListenOption = None,
    advertise: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="How machines reach this sender.")] = None,
    chunk_store: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The catalog's DATA_DIR/store, if it is on this host.")
    ] = None,
    interface: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|ADDRESS",
            help="Interface for multicast; by default that with the address in --advertise or --listen, "
            "else the only one.",
        ),
    ] = None,
    link_rate: Annotated[str | None, typer.Option(metavar="RATE", help="Rate of that link, such as 1G.")] = None,
    slow_policy: Annotated[
        str | None,
        typer.Option(metavar="keep|unicast|separate|disconnect", help="What becomes of slow receivers."),
    ] = None,
    site: Annotated[str | None, typer.Option(metavar="NAME", help="Where this sender stands.")] = None,
    log_format: LogFormatOption = None,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="TOML file with these and more settings in \\[sender].")
    ] = None,
) -> None:
    """Serve until SIGTERM or Ctrl-C. Every flag is also a FLEETCAST_… variable and a key of the file."""
    settings = SenderSettings.load(
        config=config,
        scheduler=scheduler,
        catalog=catalog,
        token=token,
        token_file=token_file,
        credentials=credentials,
        listen=listen,
        advertise=advertise,
        chunk_store=chunk_store,
        interface=interface,
        link_rate=link_rate,
        slow_policy=slow_policy,
        site=site,
        log_format=log_format,
    )
    serve(NAME, settings, lambda: _serve(settings))


async def _serve(settings: SenderSettings) -> None:
    if not settings.scheduler:
        raise InvalidArgumentError("the scheduler is missing: give --scheduler HOST:PORT", field="scheduler")
    advertised = [split_address(settings.advertise)[0]] if settings.advertise else []
    names = served_names(settings.listen, advertised)
    credentials = await join_installation(
        settings.scheduler,
        token_of(settings.token, settings.token_file),
        settings.credentials,
        role=Role.SENDER,
        display_name=f"{socket.gethostname()} sender",
        names=names,
    )
    interface = settings.interface or _own_host(settings)
    sender = await open_sender(settings.model_copy(update={"interface": interface}), advertised)
    shown = ServerCredentials(credentials)
    server = GrpcServer(settings.listen, shown, sender.services)
    renewal = asyncio.create_task(keep_renewed(settings.scheduler, settings.credentials, shown, sender.renewed))

    async def start() -> str:
        await server.start()
        await sender.start(
            scheduler=settings.scheduler,
            catalog=settings.catalog,
            address=settings.advertise or _address(sender.interface, settings.listen, server.port),
            credentials=credentials,
        )
        return f"ready on port {server.port}"

    async def stop() -> None:
        renewal.cancel()
        await asyncio.gather(renewal, return_exceptions=True)
        await sender.stop()
        await server.stop()

    await run_until_signal(start, stop)


def _address(interface: Interface, listen: str, port: int) -> str:
    """Returns how machines reach this sender if nobody said so: at the address it listens on, else the interface's."""
    return join_address(_named_host(listen) or str(interface.ipv4 or interface.ipv6), port)


def _own_host(settings: SenderSettings) -> str:
    """Returns the address whose interface multicast leaves by when nobody said so; empty if it is to be chosen."""
    host = _named_host(settings.listen)
    return host if is_ip_address(host) else ""


def _named_host(listen: str) -> str:
    """Returns the host of an address to listen on; empty if that is everywhere."""
    host, _ = split_address(listen)
    return "" if host in ("", "::", "0.0.0.0") else host  # noqa: S104 - compared, not bound


def main() -> None:
    """Runs the command line and ends the process with its exit code."""
    sys.exit(run_command_line(app, NAME, sys.argv[1:]))


if __name__ == "__main__":
    main()
