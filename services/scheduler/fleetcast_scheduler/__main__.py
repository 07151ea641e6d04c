"""The command `fleetcast-scheduler`: the scheduler alone, on its own host."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from fleetcast_kit.data_parts import SCHEDULER, DataParts
from fleetcast_kit.joining.installation import open_installation
from fleetcast_kit.network.reach import is_loopback, local_address, own_address
from fleetcast_kit.process.commandline import run_command_line
from fleetcast_kit.process.serving import ListenOption, LogFormatOption, serve, service_app
from fleetcast_kit.rpc.server import GrpcServer, run_until_signal
from fleetcast_kit.values.addresses import is_ip_address, join_address, served_names, split_address

from fleetcast_scheduler.app import open_scheduler
from fleetcast_scheduler.deployments.app import DeploymentOptions
from fleetcast_scheduler.settings import SchedulerSettings

NAME = "fleetcast-scheduler"

app = service_app("The scheduler of fleetcast: machines, sessions, admission, senders.")


@app.command()
def run(
    *,
    data_dir: Annotated[Path | None, typer.Option(help="Directory of the authority and the database.")] = None,
    database_url: Annotated[str | None, typer.Option(help="sqlite:///PATH or postgresql://…")] = None,
    listen: ListenOption = None,
    advertise: Annotated[list[str] | None, typer.Option(help="Name or address by which others reach it.")] = None,
    catalog: Annotated[str | None, typer.Option(help="HOST:PORT of the catalog.")] = None,
    log_format: LogFormatOption = None,
    config: Annotated[Path | None, typer.Option(help="TOML file with the settings.")] = None,
) -> None:
    """Serve until SIGTERM or Ctrl-C. Every flag is also a FLEETCAST_… variable and a key of the file."""
    settings = SchedulerSettings.load(
        config=config,
        data_dir=data_dir,
        database_url=database_url,
        listen=listen,
        advertise=advertise,
        catalog=catalog,
        log_format=log_format,
    )
    serve(NAME, settings, lambda: _serve(settings))


async def _serve(settings: SchedulerSettings) -> None:
    installation = open_installation(settings.data_dir, listen=settings.listen, advertise=settings.advertise)
    url = settings.database_url or f"sqlite:///{settings.data_dir.absolute() / 'scheduler.db'}"
    parts = DataParts(settings.data_dir)
    scheduler = await open_scheduler(
        url,
        authority=installation.authority,
        trust=installation.trust,
        catalog_address=settings.catalog,
        deployment_options=DeploymentOptions(settings.deployment_confirmation_limit, settings.time_zone),
        must_exist=parts.way_out(SCHEDULER),
    )
    parts.note(SCHEDULER)
    server = GrpcServer(settings.listen, installation.server, scheduler.services)

    async def start() -> str:
        await server.start()
        await scheduler.start(settings.catalog, installation.service)
        names = settings.advertise or _addresses(settings.listen)
        host, port = split_address(names[0]) if settings.advertise else (names[0], server.port)
        address = join_address(host, port)
        home = Path.home() / ".config" / "fleetcast"
        local = await local_address(address, own_address(settings.listen, server.port))
        installation.publish_administrator(address, home, local_address=local, catalog_address=settings.catalog)
        return installation.ready_line(NAME, address)

    async def stop() -> None:
        await server.stop()
        await scheduler.stop()

    await run_until_signal(start, stop)


def _addresses(listen: str) -> list[str]:
    """Returns the names and addresses of a scheduler that listens on `listen`, those of loopback last."""
    return sorted(served_names(listen), key=lambda name: (is_loopback(name), not is_ip_address(name)))


def main() -> None:
    """Runs the command line."""
    sys.exit(run_command_line(app, NAME, sys.argv[1:]))


if __name__ == "__main__":
    main()
