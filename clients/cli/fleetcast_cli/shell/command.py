"""How a command runs: its flags, its span, its event loop, its end."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Coroutine
from dataclasses import MISSING, fields
from typing import Annotated, Any, ParamSpec, get_type_hints

import typer
from fleetcast_kit.errors import FleetcastError
from fleetcast_kit.process import telemetry
from opentelemetry.trace import Status, StatusCode

P = ParamSpec("P")

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
"""The flag of every command that prints data."""


class Flags:
    """Base of frozen dataclasses whose fields are flags of several commands.

    A command that takes one as a parameter has all its flags.
    """


def command(
    group: typer.Typer, name: str, *, span: str, epilog: str | None = None
) -> Callable[[Callable[P, Coroutine[None, None, None]]], None]:
    """Returns a decorator that adds a coroutine function to `group` as the command `name`; `epilog` ends its help.

    The command runs in a span of its own, the root of the trace; everything recorded is exported before it returns.
    """

    def register(function: Callable[P, Coroutine[None, None, None]]) -> None:
        signature, bundles = _flattened(function)

        @functools.wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> None:
            for parameter, kind in bundles.items():
                kwargs[parameter] = kind(**{field.name: kwargs.pop(field.name) for field in fields(kind)})
            telemetry.start("fleetcast-cli")
            try:
                asyncio.run(_traced(span, function(*args, **kwargs)))
            finally:
                telemetry.stop()

        run.__signature__ = signature  # type: ignore[attr-defined]  # what inspect looks at first
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in signature.parameters.values()}
        group.command(name, epilog=epilog)(run)

    return register


def _flattened(function: Callable[..., object]) -> tuple[inspect.Signature, dict[str, Any]]:
    """Returns the signature of a command with every flag, and the parameters that take several, with their classes."""
    hints = get_type_hints(function, include_extras=True)
    bundles: dict[str, Any] = {}
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(function).parameters.values():
        hint = hints[parameter.name]
        if not (isinstance(hint, type) and issubclass(hint, Flags)):
            parameters.append(parameter.replace(annotation=hint))
            continue
        bundles[parameter.name] = hint
        flag_hints = get_type_hints(hint, include_extras=True)
        parameters += [
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=inspect.Parameter.empty if field.default is MISSING else field.default,
                annotation=flag_hints[field.name],
            )
            for field in fields(hint)  # type: ignore[arg-type]  # its subclasses are dataclasses
        ]
    return inspect.Signature(parameters), bundles


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
