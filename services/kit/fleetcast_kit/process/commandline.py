"""How a command line ends: an exit code, and for every error one line on standard error instead of a traceback."""

from __future__ import annotations

import io
import os
import sys
from enum import IntEnum

import typer
from pydantic import ValidationError
from typer.exceptions import TyperException

from fleetcast_kit import errors
from fleetcast_kit.errors import FleetcastError
from fleetcast_kit.storage_failures import storage_failure
from fleetcast_kit.values.printable import printable


class ExitCode(IntEnum):
    """What a script learns from the end of a command."""

    DONE = 0
    """It was done."""
    FAILED = 1
    """It was tried and failed, or what was watched did not end well."""
    BAD_INPUT = 2
    """A flag, an argument or a file is wrong; nothing was done."""
    NOT_FOUND = 3
    """What the command names does not exist."""
    UNREACHABLE = 4
    """The server cannot be reached, or stopped in the middle. Trying later may help."""
    NOT_ALLOWED = 5
    """The credential is missing, refused, or for another server."""
    REFUSED = 6
    """The state of things does not allow it, such as deleting an image in use."""
    DAMAGED = 7
    """Content is damaged: a corrupt file, or chunks that failed their verification."""
    DONE_WITH_REMARKS = 8
    """It was done, and there is something about it that somebody should read."""
    INTERRUPTED = 130
    """Stopped by Ctrl-C."""


_OF_ERROR: dict[type[FleetcastError], ExitCode] = {
    errors.InvalidArgumentError: ExitCode.BAD_INPUT,
    errors.NotFoundError: ExitCode.NOT_FOUND,
    errors.UnavailableError: ExitCode.UNREACHABLE,
    errors.UnauthenticatedError: ExitCode.NOT_ALLOWED,
    errors.PermissionDeniedError: ExitCode.NOT_ALLOWED,
    errors.AlreadyExistsError: ExitCode.REFUSED,
    errors.FailedPreconditionError: ExitCode.REFUSED,
    errors.ResourceExhaustedError: ExitCode.REFUSED,
    errors.AbortedError: ExitCode.REFUSED,
    errors.DataLossError: ExitCode.DAMAGED,
}

EXIT_CODES_HELP = "Exit codes: " + ", ".join(
    f"{code.value} {code.name.lower().replace('_', ' ')}" for code in ExitCode if code is not ExitCode.DONE
)
"""One sentence for a help text."""


def exit_code(error: FleetcastError) -> ExitCode:
    """Returns the exit code that stands for `error`."""
    return next((_OF_ERROR[kind] for kind in type(error).__mro__ if kind in _OF_ERROR), ExitCode.FAILED)


def run_command_line(app: typer.Typer, name: str, arguments: list[str]) -> int:
    """Returns the exit code of the command `name`; every error has been said in one line on standard error."""
    _survive_any_terminal()
    try:
        code = typer.main.get_command(app).main(arguments, prog_name=name, standalone_mode=False)
        sys.stdout.flush()
    except FleetcastError as error:
        return _fail(name, error.message, exit_code(error))
    except TyperException as error:
        return _fail(name, _usage(error), ExitCode.BAD_INPUT)
    except KeyboardInterrupt:
        return _fail(name, "interrupted", ExitCode.INTERRUPTED)
    except BrokenPipeError:
        # Who read our output has seen enough. Python must not fail again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.FAILED
    except Exception as error:
        failure = storage_failure(error)
        if failure is None:
            raise
        return _fail(name, failure.message, exit_code(failure))
    if code == ExitCode.INTERRUPTED:
        return _fail(name, "interrupted", ExitCode.INTERRUPTED)
    return int(code or ExitCode.DONE)


def one_line(message: str) -> str:
    """Returns `message` with every run of white space, line ends included, as one space, safe for a terminal."""
    return printable(" ".join(message.split()))


def _survive_any_terminal() -> None:
    """Makes what the locale's encoding cannot say appear escaped, rather than end the command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _usage(error: TyperException) -> str:
    """Returns what is wrong with the arguments, with which value, and where help is; empty if help was shown."""
    message, context = error.format_message(), getattr(error, "ctx", None)
    if isinstance(error.__cause__, ValidationError):
        first = error.__cause__.errors(include_url=False)[0]
        option = (getattr(getattr(error, "param", None), "opts", None) or ["argument"])[0]
        message = f"{option} {first['input']}: {first['msg'].removeprefix('Value error, ')}"
    if context is None or not message:
        return message
    return f"{message.rstrip('.?')}; see: {context.command_path} --help"


def _fail(name: str, message: str, code: ExitCode) -> int:
    if message:
        print(f"{name}: {one_line(message)}", file=sys.stderr)
    return int(code)
