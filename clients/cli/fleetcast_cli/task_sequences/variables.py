"""Variables for task sequences, as flags and as text."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer
from fleetcast_kit.errors import InvalidArgumentError

_VARIABLE = re.compile(r"([A-Za-z_][A-Za-z0-9_]{0,63})([=@])(.*)", re.DOTALL)

Variable = Annotated[
    list[str] | None,
    typer.Option(
        "--variable",
        metavar="NAME=VALUE",
        help="A value for task sequences; can be repeated. NAME@FILE takes it from a file, or from standard input (-), "
        "and keeps a secret out of the list of processes.",
        show_default=False,
    ),
]
Unset = Annotated[
    list[str] | None,
    typer.Option("--unset", metavar="NAME", help="A variable to remove; can be repeated.", show_default=False),
]


def parse_variables(texts: Sequence[str] | None) -> dict[str, str]:
    """Returns the variables that `NAME=VALUE` texts say, or `NAME@FILE`: what is in the file but for its last line end.

    Raises:
        InvalidArgumentError: one says none, a name comes twice, or a file cannot be read.
    """
    variables: dict[str, str] = {}
    for text in texts or ():
        found = _VARIABLE.fullmatch(text)
        if found is None:
            raise InvalidArgumentError(
                f"{text!r} is not a variable: write NAME=VALUE, or NAME@FILE for what is in a file, the name of "
                "at most 64 letters, digits and _",
                field="variable",
            )
        name, separator, value = found.groups()
        if name in variables:
            raise InvalidArgumentError(f"the variable {name!r} is given twice: give it once", field="variable")
        variables[name] = value if separator == "=" else _content(value)
    return variables


def _content(file: str) -> str:
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgumentError(f"the variable's file {file!r} cannot be read: {error}", field="variable") from error
    return text.removesuffix("\n")


def change_variables(
    present: Mapping[str, str], texts: Sequence[str] | None, unset: Sequence[str] | None
) -> dict[str, str]:
    """Returns `present` with the variables of `texts` set and those named by `unset` removed.

    Raises:
        InvalidArgumentError: one says none, is not there to be removed, or is both set and removed.
    """
    changed = parse_variables(texts)
    for name in unset or ():
        if name in changed:
            raise InvalidArgumentError(f"the variable {name!r} is both set and unset: choose one", field="unset")
        if name not in present:
            few = ", ".join(sorted(present)) or "none"
            raise InvalidArgumentError(f"there is no variable {name!r} to unset; there are: {few}", field="unset")
    return {name: value for name, value in {**present, **changed}.items() if name not in (unset or ())}


def format_variables(variables: Mapping[str, str]) -> str:
    """Returns variables one a line, by name."""
    return "\n".join(f"{name}={variables[name]}" for name in sorted(variables))
