"""The command `fleetcast-boot`: answers machines that start from the network, and builds what they start."""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from fleetcast_kit.identity.peer import Role
from fleetcast_kit.identity.trust import ServerCredentials
from fleetcast_kit.joining.joining import join_installation, keep_renewed
from fleetcast_kit.process.commandline import run_command_line
from fleetcast_kit.process.serving import LogFormatOption, serve, service_app
from fleetcast_kit.rpc.server import run_until_signal

from fleetcast_boot.deciding import Decisions
from fleetcast_boot.image_commands import image_app
from fleetcast_boot.images import BootImages
from fleetcast_boot.reporting import report_progress
from fleetcast_boot.scheduler import Scheduler
from fleetcast_boot.service import BootService, ipv4_address
from fleetcast_boot.settings import BootSettings

NAME = "fleetcast-boot"

app = service_app("The boot service of fleetcast: answers machines that start from the network.")
app.add_typer(image_app, name="image")


@app.command()
def run(
    *,
    interface: Annotated[
        str | None, typer.Option(metavar="NAME", help="The network interface on whose segment machines are answered.")
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="The scheduler, which decides; machines are told it."),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(
            metavar="TOKEN",
            help="Enrolment token of the role service, for the first start; unseen by others in FLEETCAST_TOKEN.",
        ),
    ] = None,
    data_dir: Annotated[Path | None, typer.Option(metavar="DIR", help="Where boot images are kept.")] = None,
    http_port: Annotated[
        int | None, typer.Option(metavar="PORT", help="Port of HTTP for boot loaders; by default 7480.")
    ] = None,
    delay_seconds: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Waits before an answer, so that another boot server comes first."),
    ] = None,
    credentials: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="This service's ca.pem, cert.pem and key.pem; by default DATA_DIR/service."),
    ] = None,
    log_format: LogFormatOption = None,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="TOML file with these settings in \\[boot].")
    ] = None,
) -> None:
    """Answer machines until SIGTERM or Ctrl-C. Every flag is also a FLEETCAST_… variable and a key of the file.

    No DHCP server has to be changed: it goes on giving the addresses, and this service says what to start.
    """
    settings = BootSettings.load(
        config=config,
        interface=interface,
        scheduler=scheduler,
        token=token,
        data_dir=data_dir,
        http_port=http_port,
        delay_seconds=delay_seconds,
        credentials=credentials,
        log_format=log_format,
    )
    serve(NAME, settings, lambda: _serve(settings))


async def _serve(settings: BootSettings) -> None:
    address = ipv4_address(settings.interface)
    directory = settings.credentials or settings.data_dir / "service"
    host_name = socket.gethostname()
    credentials = await join_installation(
        settings.scheduler,
        settings.token,
        directory,
        role=Role.SERVICE,
        display_name=f"{host_name} boot",
        names=[str(address)],
    )
    scheduler = Scheduler(settings.scheduler, credentials, f"{host_name} ({settings.interface})")
    service = BootService(
        interface=settings.interface,
        http_port=settings.http_port,
        images=BootImages(settings.data_dir),
        decisions=Decisions(scheduler, time.monotonic),
        server=settings.scheduler,
        delay_seconds=settings.delay_seconds,
    )
    tasks: list[asyncio.Task[None]] = []

    async def start() -> str:
        await service.start()
        tasks.append(asyncio.create_task(report_progress(service.progress, scheduler)))
        tasks.append(asyncio.create_task(keep_renewed(settings.scheduler, directory, ServerCredentials(credentials))))
        return f"ready on {settings.interface} ({address})"

    async def stop() -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await service.stop()
        await scheduler.close()

    await run_until_signal(start, stop)


def main() -> None:
    """Runs the command line and ends the process with its exit code."""
    sys.exit(run_command_line(app, NAME, sys.argv[1:]))


if __name__ == "__main__":
    main()
