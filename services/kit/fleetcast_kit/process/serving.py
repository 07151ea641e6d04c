"""What the command of every service has in common: its options, its log, its telemetry, its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Annotated, Any, Protocol

import typer

from fleetcast_kit.process import logs, telemetry
from fleetcast_kit.process.commandline import EXIT_CODES_HELP


class LoggedSettings(Protocol):
    """Settings of a process that logs."""

    @property
    def log_format(self) -> logs.LogFormat:
        """Form of the log on standard error."""


ListenOption = Annotated[
    str | None, typer.Option(metavar="HOST:PORT", help="Where to listen; by default [::]:7443, everywhere.")
]
LogFormatOption = Annotated[str | None, typer.Option(metavar="human|json", help="Form of the log on standard error.")]


def service_app(about: str) -> typer.Typer:
    """Returns the command line of a service, still without commands; `about` says in a sentence what it is."""
    app = typer.Typer(
        add_completion=False,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        help=about,
        epilog=EXIT_CODES_HELP,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)  # with it, `run` is a command that is named even while it is the only one
    return app


def serve(name: str, settings: LoggedSettings, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Runs `work` until it ends, with the log that the settings want, and with telemetry.

    Raises:
        FleetcastError: as `work` does.
    """
    logs.configure(name, settings.log_format)
    telemetry.start(name)
    try:
        asyncio.run(work())
    finally:
        telemetry.stop()


def _root() -> None:
    pass
