"""The command line: one group of commands for each kind of resource."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from fleetcast_kit.commandline import EXIT_CODES_HELP

from fleetcast_cli import enrolment_token, image, image_import, session, session_watch
from fleetcast_cli.connection import Connection

_WITH_COMMANDS = (image_import, session_watch)
"""Modules whose import adds commands to a group of another module."""

app = typer.Typer(
    name="fleetcast",
    help="Install operating systems on many machines at once.",
    epilog=EXIT_CODES_HELP,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(image.group, name="image")
app.add_typer(enrolment_token.group, name="enrolment-token")
app.add_typer(session.group, name="session")


@app.callback()
def configure(
    context: typer.Context,
    server: Annotated[
        str | None,
        typer.Option(
            "--server",
            envvar="FLEETCAST_SERVER",
            metavar="HOST:PORT",
            help="The server; without it, the address beside the credential.",
        ),
    ] = None,
    credentials: Annotated[
        Path | None,
        typer.Option(
            "--credentials",
            envvar="FLEETCAST_CREDENTIALS",
            metavar="DIR",
            help="Directory of the administrator's credential; without it, ~/.config/fleetcast.",
        ),
    ] = None,
) -> None:
    """Install operating systems on many machines at once."""
    context.obj = Connection(server, credentials)
