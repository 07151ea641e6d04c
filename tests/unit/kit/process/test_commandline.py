from typing import Annotated

import pytest
import typer
from fleetcast_kit import errors
from fleetcast_kit.process.commandline import ExitCode, exit_code, one_line, run_command_line

app = typer.Typer(pretty_exceptions_enable=False)


@app.callback()
def root() -> None:
    """A program."""


@app.command()
def work(
    count: Annotated[int, typer.Option(min=0)] = 0, failure: str = "", mode: Annotated[str, typer.Option()] = ""
) -> None:
    """Works or fails as told."""
    if failure == "interrupt":
        raise KeyboardInterrupt
    if failure:
        raise getattr(errors, failure)(
            f"it failed\n  with {count}", **({"field": "x"} if "Argument" in failure else {})
        )
    print("done", count, mode)


def run(*arguments: str) -> int:
    return run_command_line(app, "program", list(arguments))


def test_success_is_zero(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("work", "--count", "3") == 0
    assert capsys.readouterr().out == "done 3 \n"


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        ("InvalidArgumentError", ExitCode.BAD_INPUT),
        ("NotFoundError", ExitCode.NOT_FOUND),
        ("UnavailableError", ExitCode.UNREACHABLE),
        ("UnauthenticatedError", ExitCode.NOT_ALLOWED),
        ("PermissionDeniedError", ExitCode.NOT_ALLOWED),
        ("FailedPreconditionError", ExitCode.REFUSED),
        ("DataLossError", ExitCode.DAMAGED),
        ("InternalError", ExitCode.FAILED),
    ],
)
def test_an_error_is_one_line_and_its_exit_code(
    capsys: pytest.CaptureFixture[str], failure: str, code: ExitCode
) -> None:
    assert run("work", "--failure", failure) == code
    assert capsys.readouterr() == ("", "program: it failed with 0\n")


def test_ctrl_c_is_130(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("work", "--failure", "interrupt") == 130
    assert capsys.readouterr().err == "program: interrupted\n"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["work", "--count", "many"], "--count many: "),
        (["work", "--count", "-1"], "--count -1: "),
        (["work", "--colour"], "No such option: --colour"),
        (["play"], "No such command 'play'"),
        (["work", "extra"], "extra"),
    ],
)
def test_a_wrong_argument_is_one_line_with_its_value_and_where_help_is(
    capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    assert run(*arguments) == ExitCode.BAD_INPUT
    line = capsys.readouterr().err
    assert line.startswith("program: ")
    assert says in line
    assert line.endswith("--help\n")
    assert line.count("\n") == 1


def test_subclasses_of_an_error_share_its_exit_code_and_unknown_ones_are_failures() -> None:
    class RareError(errors.NotFoundError): ...

    assert exit_code(RareError("x")) is ExitCode.NOT_FOUND
    assert exit_code(errors.FleetcastError("x")) is ExitCode.FAILED
    assert one_line(" a\n\tb ") == "a b"
