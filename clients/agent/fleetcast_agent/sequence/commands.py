"""The agent's commands about task sequences, for machines without a server and for rehearsals."""

from __future__ import annotations

import asyncio
import json
import signal
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer
from fleetcast_kit.errors import FleetcastError, InvalidArgumentError, NotFoundError
from fleetcast_kit.process.commandline import ExitCode
from fleetcast_sequence import Scope, TaskSequence, Variables, expand, parse

from fleetcast_agent.sequence.content.content import DirectoryContent
from fleetcast_agent.sequence.control import Control
from fleetcast_agent.sequence.engine.interface import SequenceOutcome, SequenceProgress
from fleetcast_agent.sequence.engine.records import Outcome
from fleetcast_agent.sequence.execution import execute
from fleetcast_agent.sequence.machine import inventory
from fleetcast_agent.sequence.machine.disks import Disks
from fleetcast_agent.sequence.machine.live_files import FUNCTIONS
from fleetcast_agent.sequence.simulation import plan
from fleetcast_agent.sequence.simulation import text as plan_text

RESTART_EXIT_CODE = 3
"""The sequence wants a restart, after which the same command goes on."""

File = Annotated[Path, typer.Argument(help="The task sequence. Children are looked for beside it.")]
Set = Annotated[list[str], typer.Option("--set", metavar="NAME=VALUE", help="Value of a variable; may be repeated.")]
DiskOption = Annotated[Path | None, typer.Option("--disk", help="The machine's disk, or a file that stands for it.")]


def register(app: typer.Typer) -> None:
    """Adds the commands `simulate` and `run-sequence` to the agent's."""
    app.command("simulate")(simulate)
    app.command("run-sequence")(run_sequence)


def simulate(
    file: File,
    values: Set = [],  # noqa: B006 - typer wants the default itself
    disk: DiskOption = None,
    machine: Annotated[Path | None, typer.Option(help="Inventory as JSON, in place of this machine's.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as one JSON object.")] = False,
) -> None:
    """Prints what a task sequence would do, with its conditions evaluated for this machine. Touches nothing.

    Exits with 1 if a step would fail, or a variable has no value.
    """
    try:
        sequence = load(file)
        about = inventory.gather(_disks(disk)) if machine is None else json.loads(machine.read_text())
        context = {"machine": inventory.with_rule_names(about), "deployment": {}, "environment": "boot", "last": {}}
        given = {Scope.DEPLOYMENT: settings(values)}
        variables = Variables(sequence.variables, given, context=context, functions=FUNCTIONS)
        planned = plan(sequence, variables)
        missing = variables.missing()
        if as_json:
            nodes = [asdict(node) for node in planned]
            typer.echo(json.dumps({"nodes": nodes, "missing_variables": missing}, ensure_ascii=False, default=str))
        else:
            typer.echo(plan_text(planned))
            if missing:
                typer.echo(f"These variables need a value: {', '.join(missing)}", err=True)
        if missing or any(node.verdict == "fails" for node in planned):
            raise typer.Exit(1)
    except (FleetcastError, OSError, ValueError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error


def run_sequence(  # noqa: PLR0917 - typer names them all
    file: File,
    state_dir: Annotated[Path, typer.Option(help="Where the run is remembered; the same one goes on.")],
    content: Annotated[Path, typer.Option(help="Directory with the images, by their names.")],
    values: Set = [],  # noqa: B006 - typer wants the default itself
    disk: DiskOption = None,
    environment: Annotated[str, typer.Option(help="What is running: `boot` or `installed`.")] = "boot",
) -> None:
    """Runs a task sequence with images from a directory.

    Exits with 0, 1 if it failed, 3 if it wants a restart, 8 if it succeeded with remarks.
    """
    try:
        given = {Scope.DEPLOYMENT: settings(values)}
        running: Literal["boot", "installed"] = "installed" if environment == "installed" else "boot"
        outcome = asyncio.run(
            _run(
                load(file), given, state_dir, content=DirectoryContent(content), disks=_disks(disk), environment=running
            )
        )
    except (FleetcastError, OSError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error
    if outcome.outcome is None:
        typer.echo(f"restart the machine ({outcome.restart}), then run this command again")
        raise typer.Exit(RESTART_EXIT_CODE)
    for remark in outcome.remarks:
        typer.echo(f"remark of {remark.step!r}: {remark.text}")
    said = " with remarks" if outcome.remarks else ""
    typer.echo(f"{outcome.outcome}{said}" + (f" in {outcome.step!r}: {outcome.message}" if outcome.step else ""))
    if outcome.outcome is not Outcome.SUCCEEDED:
        typer.echo(outcome.output_tail, err=True)
        raise typer.Exit(1)
    if outcome.remarks:
        raise typer.Exit(ExitCode.DONE_WITH_REMARKS)


def load(file: Path) -> TaskSequence:
    """Returns the sequence in `file`, with its children, from files beside it, in their places.

    Raises:
        SequenceFileError: the file, or that of a child, is not correct.
        NotFoundError: there is no file for a child.
    """

    def child(name: str) -> TaskSequence:
        path = file.with_name(f"{name.partition('@')[0]}.yaml")
        if not path.is_file():
            raise NotFoundError(f"there is no task sequence {name!r}: {path} does not exist")
        return parse(path.read_text(encoding="utf-8"))

    return expand(parse(file.read_text(encoding="utf-8")), child)


def settings(values: list[str]) -> dict[str, str]:
    """Returns the variables that `NAME=VALUE` arguments set.

    Raises:
        InvalidArgumentError: one has no `=`.
    """
    for value in values:
        if "=" not in value:
            raise InvalidArgumentError(f"{value!r} sets no variable: write it like host_name=pc1", field="set")
    return dict(value.split("=", 1) for value in values)


def _disks(disk: Path | None) -> Disks:
    """Returns the one disk that was named, or those of this computer."""
    return Disks([disk] if disk is not None else [])


async def _run(
    sequence: TaskSequence,
    values: dict[Scope, dict[str, str]],
    state_directory: Path,
    *,
    content: DirectoryContent,
    disks: Disks,
    environment: Literal["boot", "installed"],
) -> SequenceOutcome:
    control = Control()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, control.cancel, "cancelled by a signal")
    shown = ""

    def report(progress: SequenceProgress) -> None:
        nonlocal shown
        line = f"step {progress.step} of {progress.step_count} {progress.name}: {progress.step_fraction:.0%}"
        if line != shown:
            shown = line
            typer.echo(line)

    return await execute(
        sequence,
        state_directory,
        values=values,
        content=content,
        disks=disks,
        control=control,
        environment=environment,
        report=report,
    )
