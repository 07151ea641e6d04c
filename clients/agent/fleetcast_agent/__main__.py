"""The command `fleetcast-agent`."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer
from fleetcast_kit.errors import FleetcastError, InvalidArgumentError, NotFoundError
from fleetcast_kit.identity import certificates
from fleetcast_kit.identity.credentials import Credentials
from fleetcast_kit.joining.tokens import token_of
from fleetcast_kit.process import logs, telemetry
from fleetcast_kit.process.commandline import EXIT_CODES_HELP, ExitCode, run_command_line

from fleetcast_agent.deployments.registering import joining_hardware
from fleetcast_agent.receiving.display import Display, print_summary
from fleetcast_agent.receiving.errors import InterruptedReceptionError
from fleetcast_agent.receiving.receive import ReceiveRequest, ReceiveSummary, receive_image
from fleetcast_agent.settings import AgentSettings, save_server_address

_NAME = "fleetcast-agent"
_logger = logging.getLogger(__name__)
_tracer = telemetry.tracer(__name__)

app = typer.Typer(
    name=_NAME,
    help=f"One machine: enrols, receives images, runs deployments. {EXIT_CODES_HELP}.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Config = Annotated[Path | None, typer.Option(help="TOML file with a table \\[agent].")]
StateDir = Annotated[Path | None, typer.Option(help="Where this machine's identity and journals are kept.")]


@app.callback()
def main_options() -> None:
    """One machine: enrols, receives images, runs deployments."""


@app.command()
def enrol(
    server: Annotated[str, typer.Option(help="HOST:PORT of the server.")],
    token: Annotated[
        str,
        typer.Option(
            help="Enrolment token, from: fleetcast enrolment-token create; here others can see it in the list of "
            "processes.",
            envvar="FLEETCAST_TOKEN",
            show_envvar=True,
        ),
    ] = "",
    token_file: Annotated[Path | None, typer.Option(help="File with the token, or - for standard input.")] = None,
    state_dir: StateDir = None,
    config: Config = None,
) -> None:
    """Get this machine an identity from a server, once."""
    settings = AgentSettings.load(config=config, state_dir=state_dir)

    secret = token_of(token, token_file)
    if not secret:
        raise InvalidArgumentError(
            "the token is missing: give --token-file FILE, or set FLEETCAST_TOKEN", field="token"
        )
    from fleetcast_kit.joining.enrolment import enrol as enrol_machine  # noqa: PLC0415 - 50 ms that other commands save

    if (settings.state_dir / "hardware.json").exists():  # it may have come with an image, from another machine
        from fleetcast_agent.deployments.own_hardware import leave_other_machine  # noqa: PLC0415 - 0.4 s, the same

        if difference := leave_other_machine(settings.state_dir, settings.display_name):
            print(f"{difference}: its identity is removed", file=sys.stderr)

    async def run() -> Credentials:
        return await enrol_machine(server, secret, settings.state_dir, settings.display_name)

    with _tracer.start_as_current_span("enrol"):
        credentials = asyncio.run(run())
    save_server_address(settings.state_dir, server)
    print(f"enrolled as {credentials.identity} with {server}; its key is in {settings.state_dir}")


@app.command()
def receive(  # noqa: PLR0917 - typer makes options of them
    output: Annotated[Path, typer.Option(help="File or block device to write, in place.")],
    image: Annotated[str, typer.Option(help="NAME or NAME@sha256:… of the image.")] = "",
    session: Annotated[str, typer.Option(help="Session to join instead.")] = "",
    server: Annotated[str | None, typer.Option(help="HOST:PORT; default: where this machine enrolled.")] = None,
    state_dir: StateDir = None,
    multicast_interface: Annotated[
        str | None, typer.Option(help="Name or address of the interface; default: the one towards the sender.")
    ] = None,
    memory: Annotated[str | None, typer.Option(help="About how much to use, such as 128MiB.")] = None,
    as_is: Annotated[
        bool,
        typer.Option(
            "--as-is",
            help="Write the image to a block device whatever it is: also a WIM file, or one volume onto a whole disk.",
        ),
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the summary as one JSON object.")] = False,
    config: Config = None,
) -> None:
    """Receive an image. Ends well only when every chunk is verified and on the medium; run again to continue."""
    if bool(image) == bool(session):
        raise InvalidArgumentError("name what to receive, with either --image or --session", field="image")
    settings = AgentSettings.load(
        config=config, server=server, state_dir=state_dir, multicast_interface=multicast_interface, memory=memory
    )
    address = settings.server_address()
    try:
        credentials = Credentials.load(settings.state_dir)
    except NotFoundError as error:
        raise NotFoundError(
            f"this machine is not enrolled ({error.message}): run fleetcast-agent enrol first", reason="NOT_ENROLLED"
        ) from error
    credentials = _renewed(address, settings.state_dir, credentials)
    request = ReceiveRequest(
        server=address,
        credentials=credentials,
        output=output,
        image=image.removeprefix("images/"),
        session=session.removeprefix("sessions/"),
        display_name=settings.display_name,
        hardware=joining_hardware(settings.state_dir),
        state_dir=settings.state_dir,
        multicast_interface=settings.multicast_interface,
        memory_bytes=settings.memory,
        as_is=as_is,
    )
    display = Display()
    with _tracer.start_as_current_span("receive command"):
        try:
            summary = asyncio.run(_receive(request, display))
        except InterruptedReceptionError as error:
            display.noticed(error.message)
            raise typer.Exit(ExitCode.INTERRUPTED) from error
        finally:
            display.close()
    print_summary(summary, as_json=json)


def _renewed(server: str, state_dir: Path, present: Credentials) -> Credentials:
    """Returns this machine's credentials, renewed if that is due and possible."""
    if certificates.now() < present.renewal_time:
        return present
    from fleetcast_kit.joining.enrolment import renew_if_due  # noqa: PLC0415 - 50 ms that are seldom needed

    try:
        return asyncio.run(renew_if_due(server, state_dir))
    except FleetcastError as error:
        _logger.warning("the certificate is not renewed yet: %s", error.message)
        return present


async def _receive(request: ReceiveRequest, display: Display) -> ReceiveSummary:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    if sys.platform != "win32":
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
    return await receive_image(request, display, stop)


def main() -> None:
    """Run the command line."""
    logs.configure(_NAME)
    telemetry.start(_NAME)
    if sys.argv[1:2] not in (["enrol"], ["receive"]):
        from fleetcast_agent.deployments import commands as running  # noqa: PLC0415 - 0.4 s that a reception saves
        from fleetcast_agent.sequence import commands as sequences  # noqa: PLC0415 - the same

        running.register(app)
        sequences.register(app)
    gc.freeze()  # what is imported stays: to look through it again and again stops every thread for some milliseconds
    try:
        code = run_command_line(app, _NAME, sys.argv[1:])
    finally:
        telemetry.stop()
    sys.exit(code)


if __name__ == "__main__":
    main()
