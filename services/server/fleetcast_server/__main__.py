"""The command `fleetcast-server`: everything in one process."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from fleetcast_kit.process.commandline import run_command_line
from fleetcast_kit.process.serving import ListenOption, LogFormatOption, serve, service_app
from fleetcast_kit.rpc.server import run_until_signal

from fleetcast_server.app import ServerApp
from fleetcast_server.data_directory import open_data_directory
from fleetcast_server.settings import ServerSettings

NAME = "fleetcast-server"

app = service_app("Catalog, scheduler and sender of fleetcast in one process.")


@app.command()
def run(
    *,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Where images, databases and the authority are kept; by default /var/lib/fleetcast for root, "
            "~/.local/share/fleetcast for others.",
        ),
    ] = None,
    database_url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="postgresql://USER:PASSWORD@HOST/NAME; by default SQLite in the data directory.",
        ),
    ] = None,
    listen: ListenOption = None,
    advertise: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME|ADDRESS", help="How others reach this server; may be given several times."),
    ] = None,
    multicast_interface: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|ADDRESS",
            help="Interface that multicast leaves by; by default that with the address in --advertise or --listen, "
            "else the only one.",
        ),
    ] = None,
    log_format: LogFormatOption = None,
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="TOML file with these settings in \\[server]; /etc/fleetcast/fleetcast.toml."
        ),
    ] = None,
) -> None:
    """Serve until SIGTERM or Ctrl-C. Every flag is also a FLEETCAST_… variable and a key of the file."""
    settings = ServerSettings.load(
        config=config,
        data_dir=data_dir,
        database_url=database_url,
        listen=listen,
        advertise=advertise,
        multicast_interface=multicast_interface,
        log_format=log_format,
    )
    serve(NAME, settings, lambda: _serve(settings, config))


async def _serve(settings: ServerSettings, config: Path | None) -> None:
    with open_data_directory(settings.data_dir.absolute()) as directory:
        server = await ServerApp.open(settings, directory, config)
        await run_until_signal(server.start, server.stop)


def main() -> None:
    """Runs the command line and ends the process with its exit code."""
    sys.exit(run_command_line(app, NAME, sys.argv[1:]))


if __name__ == "__main__":
    main()
