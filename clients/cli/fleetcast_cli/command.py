"""How a command runs: its span, its event loop, its end."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Annotated, ParamSpec

import typer
from fleetcast_kit import telemetry
from fleetcast_kit.errors import FleetcastError
from opentelemetry.trace import Status, StatusCode

P = ParamSpec("P")

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
"""The flag of every command that prints data."""


def command(group: typer.Typer, name: str, *, span: str) -> Callable[[Callable[P, Coroutine[None, None, None]]], None]:
    """Returns a decorator that adds a coroutine function to `group` as the command `name`.

    The command runs in a span of its own, the root of the trace; everything recorded is exported before it returns.
    """

    def register(function: Callable[P, Coroutine[None, None, None]]) -> None:
        @group.command(name)
        @functools.wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> None:
            telemetry.start("fleetcast-cli")
            try:
                asyncio.run(_traced(span, function(*args, **kwargs)))
            finally:
                telemetry.stop()

    return register


async def _traced(span_name: str, work: Coroutine[None, None, None]) -> None:
    with telemetry.tracer(__name__).start_as_current_span(
        span_name, record_exception=False, set_status_on_exception=False
    ) as span:
        try:
            await work
        except FleetcastError as error:
            span.set_status(Status(StatusCode.ERROR, error.message))
            raise
        except asyncio.CancelledError:
            span.set_status(Status(StatusCode.ERROR, "interrupted"))
            raise
