"""The command `fleetcast-catalog`: the catalog alone, on its own host."""

from __future__ import annotations

import asyncio
import socket
import sys
from pathlib import Path
from typing import Annotated

import typer
from fleetcast_kit.identity.peer import Role
from fleetcast_kit.identity.trust import ServerCredentials
from fleetcast_kit.joining.joining import join_installation, keep_renewed
from fleetcast_kit.joining.tokens import token_of
from fleetcast_kit.process.commandline import run_command_line
from fleetcast_kit.process.serving import ListenOption, LogFormatOption, serve, service_app
from fleetcast_kit.rpc.server import GrpcServer, run_until_signal
from fleetcast_kit.values.addresses import served_names

from fleetcast_catalog.app import open_catalog
from fleetcast_catalog.settings import CatalogSettings

NAME = "fleetcast-catalog"

app = service_app("The catalog of fleetcast: image versions and their chunks, and task sequences.")


@app.command()
def run(
    *,
    data_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where chunks and the database are kept.")
    ] = None,
    database_url: Annotated[
        str | None, typer.Option(metavar="URL", help="sqlite:///PATH or postgresql://USER:PASSWORD@HOST/NAME.")
    ] = None,
    listen: ListenOption = None,
    advertise: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME|ADDRESS", help="How others reach this catalog; may be given several times."),
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="The scheduler, which certifies this catalog.")
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(
            metavar="TOKEN",
            help="Enrolment token of the role service, for the first start; here others can see it in the list of "
            "processes.",
        ),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="File with that token, or - for standard input; or set FLEETCAST_TOKEN."),
    ] = None,
    credentials: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The catalog's own ca.pem, cert.pem and key.pem; by default DATA_DIR/server."),
    ] = None,
    log_format: LogFormatOption = None,
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="TOML file with these settings in \\[catalog]."),
    ] = None,
) -> None:
    """Serve until SIGTERM or Ctrl-C. Every flag is also a FLEETCAST_… variable and a key of the file."""
    settings = CatalogSettings.load(
        config=config,
        data_dir=data_dir,
        database_url=database_url,
        listen=listen,
        advertise=advertise,
        scheduler=scheduler,
        token=token,
        token_file=token_file,
        credentials=credentials,
        log_format=log_format,
    )
    serve(NAME, settings, lambda: _serve(settings))


async def _serve(settings: CatalogSettings) -> None:
    directory = settings.credentials or settings.data_dir / "server"
    names = served_names(settings.listen, settings.advertise)
    credentials = await join_installation(
        settings.scheduler,
        token_of(settings.token, settings.token_file),
        directory,
        role=Role.SERVICE,
        display_name=f"{socket.gethostname()} catalog",
        names=names,
    )
    catalog = await open_catalog(settings.data_dir, settings.database_url, authority=credentials.authority)
    shown = ServerCredentials(credentials)
    server = GrpcServer(settings.listen, shown, catalog.services)
    tasks = [asyncio.create_task(keep_renewed(settings.scheduler, directory, shown))] if settings.scheduler else []

    async def start() -> str:
        await catalog.start()
        await server.start()
        return f"ready on port {server.port}"

    async def stop() -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.stop()
        await catalog.stop()

    await run_until_signal(start, stop)


def main() -> None:
    """Runs the command line and ends the process with its exit code."""
    sys.exit(run_command_line(app, NAME, sys.argv[1:]))


if __name__ == "__main__":
    main()
