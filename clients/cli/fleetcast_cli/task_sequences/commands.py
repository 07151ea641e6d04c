"""`fleetcast task-sequence`: list, show, export, delete."""

from __future__ import annotations

import sys
import uuid
from pathlib import Path
from typing import Annotated

import typer
from fleetcast.catalog.v1 import task_sequence_pb2, task_sequence_service_pb2
from fleetcast.catalog.v1.task_sequence_service_pb2_grpc import TaskSequenceServiceStub
from fleetcast_kit.errors import InvalidArgumentError

from fleetcast_cli.shell.command import Json, command
from fleetcast_cli.shell.connection import UNARY_SECONDS, connection, every_page
from fleetcast_cli.shell.plain import to_plain, write_json
from fleetcast_cli.shell.references import short_image
from fleetcast_cli.shell.text import ABSENT, fields, format_time, output, plural, progress, table
from fleetcast_cli.task_sequences.lookup import find_task_sequence, sequence_reference, sequence_series, short_sequence

group = typer.Typer(no_args_is_help=True)

Reference = Annotated[
    str,
    typer.Argument(
        metavar="NAME[@DIGEST]",
        help="A task sequence, in its newest version unless a digest follows. Its first digits are enough.",
        show_default=False,
    ),
]


@command(group, "list", span="fleetcast task-sequence list")
async def list_sequences(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="All versions of this task sequence.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All versions of every task sequence.")] = False,
    as_json: Json = False,
) -> None:
    """List task sequences in their newest version, or all versions, newest first."""
    series = "" if name is None else sequence_series(name)
    found: list[task_sequence_pb2.TaskSequence] = []
    async with connection(context).dial_catalog() as channel:
        request = task_sequence_service_pb2.ListTaskSequencesRequest(
            task_sequence=series, newest_only=not series and not every
        )
        async for answer in every_page(TaskSequenceServiceStub(channel).ListTaskSequences, request):
            found += answer.task_sequences
    if as_json:
        write_json({"task_sequences": [to_plain(each) for each in found]})
        return
    if not found:
        of = f" {series}" if series else "s"
        output().print(f"no task sequence{of}; make one with: fleetcast task-sequence create FILE, or --ready NAME")
        return
    rows = table("task sequence", "steps", "created", "used by", "description", right=("steps",))
    for each in found:
        rows.add_row(
            short_sequence(each.name),
            str(each.step_count),
            format_time(each.create_time),
            str(len(each.holders) or ABSENT),
            each.description or ABSENT,
        )
    output().print(rows)


@command(group, "show", span="fleetcast task-sequence show")
async def show(context: typer.Context, name: Reference, as_json: Json = False) -> None:
    """Show one version: its steps, its variables, and where its references lead now."""
    reference = sequence_reference(name)
    async with connection(context).dial_catalog() as channel:
        service = TaskSequenceServiceStub(channel)
        request = task_sequence_service_pb2.GetTaskSequenceRequest(name=await find_task_sequence(service, reference))
        found = (await service.GetTaskSequence(request, timeout=UNARY_SECONDS)).task_sequence
    if as_json:
        write_json(to_plain(found))
        return
    _print(found)


@command(group, "export", span="fleetcast task-sequence export")
async def export(
    context: typer.Context,
    name: Reference,
    target: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write to this file, which must not exist.")
    ] = None,
) -> None:
    """Print the text that a version was made of, comments included, or write it to a file."""
    reference = sequence_reference(name)
    async with connection(context).dial_catalog() as channel:
        service = TaskSequenceServiceStub(channel)
        request = task_sequence_service_pb2.GetTaskSequenceSourceRequest(
            name=await find_task_sequence(service, reference)
        )
        found = await service.GetTaskSequenceSource(request, timeout=UNARY_SECONDS)
    content = found.source.encode()
    if target is None:
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
        return
    try:
        with target.open("xb") as file:
            file.write(content)
    except FileExistsError as error:
        raise InvalidArgumentError(f"{target} exists: give another name", field="output") from error
    except OSError as error:
        raise InvalidArgumentError(f"cannot write {target}: {error.strerror}", field="output") from error
    progress().print(f"wrote {short_sequence(found.name)} to {target}", soft_wrap=True)


@command(group, "delete", span="fleetcast task-sequence delete")
async def delete(context: typer.Context, name: Reference, as_json: Json = False) -> None:
    """Delete one version; refused while a deployment uses it."""
    reference = sequence_reference(name)
    async with connection(context).dial_catalog() as channel:
        service = TaskSequenceServiceStub(channel)
        full_name = await find_task_sequence(service, reference)
        request = task_sequence_service_pb2.DeleteTaskSequenceRequest(name=full_name, request_id=str(uuid.uuid4()))
        answer = await service.DeleteTaskSequence(request, timeout=UNARY_SECONDS)
    if as_json:
        write_json(to_plain(answer))
        return
    output().print(f"deleted {short_sequence(answer.name)}")


def _print(found: task_sequence_pb2.TaskSequence) -> None:
    """Prints everything about one version for people."""
    console = output()
    console.print(
        fields(
            [
                ("task sequence", found.name.removeprefix("taskSequences/")),
                ("description", found.description),
                ("file", found.source_file),
                ("created", format_time(found.create_time)),
                ("used by", ", ".join(found.holders)),
            ]
        )
    )
    console.print()
    rows = table("step", "name", "type", "when", "")
    for node in found.nodes:
        marks = ["disabled"] * node.disabled + ["continues on error"] * node.continue_on_error
        indent = "  " * node.place.count(".")
        rows.add_row(
            node.place,
            indent + node.display_name,
            node.type or "group",
            node.condition or ABSENT,
            ", ".join(marks),
        )
    console.print(rows)
    if found.variables:
        console.print()
        rows = table("variable", "type", "default", "", "description")
        for variable in found.variables:
            marks = ["required"] * variable.required + ["secret"] * variable.secret
            hidden = variable.has_default and variable.secret
            default = "***" if hidden else variable.default_text or ("''" if variable.has_default else ABSENT)
            rows.add_row(variable.variable, variable.type, default, ", ".join(marks), variable.description or ABSENT)
        console.print(rows)
    if found.references:
        console.print()
        rows = table("refers to", "in step", "now")
        for reference in found.references:
            rows.add_row(_short(reference.name), reference.step, reference.problem or "there")
        console.print(rows)
        broken = sum(bool(reference.problem) for reference in found.references)
        if broken:
            console.print(f"{plural(broken, 'reference')} of {len(found.references)} broken: it cannot be deployed yet")


def _short(name: str) -> str:
    return short_image(name) if name.startswith("images/") else short_sequence(name)
