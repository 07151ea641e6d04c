"""The agent's command `run`."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer
from fleetcast_kit.errors import FailedPreconditionError, NotFoundError, UnavailableError
from fleetcast_kit.identity.credentials import Credentials
from fleetcast_kit.joining.enrolment import enrol
from fleetcast_kit.joining.tokens import token_of
from fleetcast_kit.process.commandline import ExitCode

from fleetcast_agent.deployments.agent import ANY_DEPLOYMENT, Agent, RunDisplay
from fleetcast_agent.deployments.display import JsonDisplay, PlainDisplay
from fleetcast_agent.deployments.executing import LocalMachine
from fleetcast_agent.deployments.hardware import Hardware, on_files, open_hardware
from fleetcast_agent.deployments.orders import RunEnd
from fleetcast_agent.deployments.own_hardware import OwnHardware
from fleetcast_agent.deployments.registering import describe
from fleetcast_agent.deployments.restarting import Computer, Rehearsal
from fleetcast_agent.retrying import backoff_seconds
from fleetcast_agent.sequence.engine.records import Outcome
from fleetcast_agent.settings import AgentSettings, save_server_address


def register(app: typer.Typer) -> None:
    """Adds the command `run` to the agent's."""
    app.command("run")(run)


def run(  # noqa: PLR0917 - typer makes options of them
    server: Annotated[str | None, typer.Option(help="HOST:PORT; default: where this machine enrolled.")] = None,
    state_dir: Annotated[Path | None, typer.Option(help="Where identity, journals and runs are kept.")] = None,
    disk: Annotated[
        list[Path] | None,
        typer.Option(
            help="The machine's disk, or a file that stands for it; may be repeated, the first is the system's. "
            "Default: this computer's only disk that is not in use."
        ),
    ] = None,
    accept: Annotated[
        list[str] | None,
        typer.Option(metavar="DEPLOYMENT", help=f"Run this available deployment, or {ANY_DEPLOYMENT!r}; repeatable."),
    ] = None,
    once: Annotated[
        bool,
        typer.Option("--once", help="End after the first run: with 0, 1 if it failed, 8 if it succeeded with remarks."),
    ] = False,
    token: Annotated[
        str,
        typer.Option(
            help="Enrolment token, for a machine that has no identity yet; here others can see it in the list of "
            "processes.",
            envvar="FLEETCAST_TOKEN",
            show_envvar=True,
        ),
    ] = "",
    token_file: Annotated[Path | None, typer.Option(help="File with the token, or - for standard input.")] = None,
    inventory: Annotated[Path | None, typer.Option(help="Hardware as JSON, in place of what was found.")] = None,
    environment: Annotated[
        str | None, typer.Option(help="What has started: `boot` or `installed`; default: what it looks like.")
    ] = None,
    multicast_interface: Annotated[
        str | None, typer.Option(help="Name or address of the interface; default: the one towards the sender.")
    ] = None,
    memory: Annotated[str | None, typer.Option(help="About how much to use, such as 128MiB.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print what happens as JSON, an object a line.")] = False,
    config: Annotated[Path | None, typer.Option(help="TOML file with a table \\[agent].")] = None,
) -> None:
    """Register this machine, wait for deployments, run them, report. What was begun goes on after any interruption."""
    settings = AgentSettings.load(
        config=config,
        server=server,
        state_dir=state_dir,
        disk=disk,
        environment=environment,
        accept=accept,
        multicast_interface=multicast_interface,
        memory=memory,
    )
    display: RunDisplay = JsonDisplay() if json else PlainDisplay()
    end = asyncio.run(_run(settings, inventory, token_of(token, token_file), display, once))
    if once and end is None:
        raise typer.Exit(ExitCode.INTERRUPTED)
    if end is not None and end.outcome is not Outcome.SUCCEEDED:
        raise typer.Exit(ExitCode.FAILED)
    if end is not None and end.remarks:
        raise typer.Exit(ExitCode.DONE_WITH_REMARKS)


async def _run(
    settings: AgentSettings, inventory: Path | None, token: str, display: RunDisplay, once: bool
) -> RunEnd | None:
    stop = asyncio.Event()
    if sys.platform != "win32":
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
    hardware = open_hardware(settings.disk, inventory, settings.state_dir)
    await asyncio.to_thread(_leave_other_machine, settings, hardware, token, display)
    enrolment = asyncio.create_task(_enrol(settings, token, display))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({enrolment, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not enrolment.done():
        enrolment.cancel()
        return None
    enrolment.result()
    agent = Agent(_local_machine(settings, hardware), display, accepted=settings.accept, once=once)
    return await agent.run(stop)


def _leave_other_machine(settings: AgentSettings, hardware: Hardware, token: str, display: RunDisplay) -> None:
    """Sees whether the state directory came from another machine: nothing that was begun there goes on here.

    With a token this machine gets an identity of its own. Without one it shows itself to the scheduler with that of
    the other machine, and is held there: its hardware may have been replaced.
    """
    own = OwnHardware(settings.state_dir, rehearsed=hardware.stated)
    difference = own.difference(describe(hardware.gather(), settings.display_name))
    if not difference:
        return
    if token:
        own.forget_identity()
        display.noticed(f"{difference}: its identity is removed, this machine enrols anew")
        return
    own.forget_runs()
    display.noticed(
        f"{difference}: it came with an image or a disk. To enrol this machine anew, run fleetcast-agent with --token; "
        "until then it waits for an operator's approval"
    )


def _local_machine(settings: AgentSettings, hardware: Hardware) -> LocalMachine:
    environment = settings.environment or None
    rehearsed = on_files(settings.disk)
    return LocalMachine(
        server=settings.server_address(),
        state_dir=settings.state_dir,
        hardware=hardware,
        starter=Rehearsal(settings.state_dir, environment) if rehearsed else Computer(environment),
        display_name=settings.display_name,
        multicast_interface=settings.multicast_interface,
        memory_bytes=settings.memory,
    )


async def _enrol(settings: AgentSettings, token: str, display: RunDisplay) -> None:
    """Makes sure that this machine has an identity; waits for a server that is away.

    Raises:
        NotFoundError: it has none, and there is no token to get one with.
    """
    try:
        Credentials.load(settings.state_dir)
        return
    except NotFoundError as error:
        if not token:
            raise NotFoundError(
                f"this machine is not enrolled ({error.message}): give it --token, or run fleetcast-agent enrol first",
                reason="NOT_ENROLLED",
            ) from error
    address, attempt, ticket = settings.server_address(), 0, settings.ticket
    while True:
        try:
            credentials = await enrol(address, token, settings.state_dir, settings.display_name, ticket=ticket)
            break
        except FailedPreconditionError as error:
            if not ticket or error.reason != "TICKET_ENDED":
                raise
            display.noticed(f"{error.message}; asking to be admitted instead")
            ticket = ""
        except UnavailableError as error:
            if not attempt:
                display.noticed(f"waiting for the server at {address}: {error.message}")
            await asyncio.sleep(backoff_seconds(attempt))
            attempt += 1
    save_server_address(settings.state_dir, address)
    display.noticed(f"enrolled as {credentials.identity} with {address}")
