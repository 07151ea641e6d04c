"""`fleetcast task-sequence`: create and validate files; their schema; those that are ready."""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from fleetcast.catalog.v1 import task_sequence_pb2, task_sequence_service_pb2
from fleetcast.catalog.v1.task_sequence_service_pb2_grpc import TaskSequenceServiceStub
from fleetcast_kit.errors import FleetcastError, InvalidArgumentError, NotFoundError, UnavailableError
from fleetcast_kit.values.printable import printable

from fleetcast_cli.shell.command import Json, command
from fleetcast_cli.shell.connection import UNARY_SECONDS, connection
from fleetcast_cli.shell.plain import Plain, to_plain, write_json
from fleetcast_cli.shell.text import output, plural, progress, table
from fleetcast_cli.task_sequences.commands import group
from fleetcast_cli.task_sequences.lookup import sequence_series, short_sequence

# The language of task sequences is imported where it is used: most commands leave it to the server, and it takes a
# third of a second.

MAX_FILE_BYTES = 4 << 20
"""What 1 Mi characters, the most that a task sequence may have, take in UTF-8."""
_STANDARD_INPUT = "-"

ready = typer.Typer(no_args_is_help=True, help="Task sequences that ship, to use or to start from.")
group.add_typer(ready, name="ready")

File = Annotated[str, typer.Argument(metavar="FILE", help="The task sequence in YAML; - reads it from standard input.")]


@command(group, "create", span="fleetcast task-sequence create")
async def create(
    context: typer.Context,
    file: Annotated[
        str | None, typer.Argument(metavar="[FILE]", help="The task sequence in YAML; - reads standard input.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Store it under this name, in place of the one in the file.")
    ] = None,
    ready_name: Annotated[
        str | None, typer.Option("--ready", metavar="NAME", help="In place of FILE: a task sequence that ships.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Store a task sequence as a new version. The same content again changes nothing.

    What its steps refer to need not exist before it is deployed; what does not is said.
    """
    label, source = _given(file, ready_name)
    if name is not None:
        source = _renamed(label, source, sequence_series(name))
    async with connection(context).dial_catalog() as channel:
        service = TaskSequenceServiceStub(channel)
        request = task_sequence_service_pb2.CreateTaskSequenceRequest(
            source=source,
            source_file="" if label == "<stdin>" else printable(Path(label).name),
            request_id=str(uuid.uuid4()),
        )
        # Asked first, since a status has no room for all problems of a file.
        checked = await service.ValidateTaskSequence(
            task_sequence_service_pb2.ValidateTaskSequenceRequest(source=source), timeout=UNARY_SECONDS
        )
        _refuse(label, checked.problems)
        answer = await service.CreateTaskSequence(request, timeout=UNARY_SECONDS)
        created = answer.task_sequence
        newest = created.name
        if not answer.created:
            by_name = task_sequence_service_pb2.GetTaskSequenceRequest(name=f"taskSequences/{created.task_sequence}")
            newest = (await service.GetTaskSequence(by_name, timeout=UNARY_SECONDS)).task_sequence.name
    if as_json:
        write_json({"created": answer.created, "task_sequence": to_plain(created)})
        return
    _warn(label, created.references)
    shown = short_sequence(created.name)
    if answer.created:
        output().print(f"created {shown}: {plural(created.step_count, 'step')}")
    else:
        output().print(f"{shown} exists with this content since {_day(created)}: nothing changed")
    if newest != created.name:
        progress().print(f"the newest version is still {short_sequence(newest)}", soft_wrap=True)


@command(group, "validate", span="fleetcast task-sequence validate")
async def validate(context: typer.Context, file: File, as_json: Json = False) -> None:
    """Check a task sequence without storing it: every error, and where its references lead.

    Without a server the format alone is checked.
    """
    label, source = _given(file, None)
    unchecked = ""
    try:
        async with connection(context).dial_catalog() as channel:
            checked = await TaskSequenceServiceStub(channel).ValidateTaskSequence(
                task_sequence_service_pb2.ValidateTaskSequenceRequest(source=source), timeout=UNARY_SECONDS
            )
    except FleetcastError as error:
        if not _means_no_server(error):
            raise
        unchecked = error.message
        checked = _validated_here(source)
    sequence = checked.task_sequence
    if as_json:
        problems: list[Plain] = [to_plain(problem) for problem in checked.problems]
        references: list[Plain] = [to_plain(reference) for reference in sequence.references]
        write_json(
            {
                "valid": not problems,
                "problems": problems,
                "references": references,
                "references_checked": not unchecked,
                "digest": sequence.digest,
            }
        )
    _refuse(label, checked.problems)
    if as_json:
        return
    _warn(label, sequence.references)
    output().print(f"{label}: valid, {plural(sequence.step_count, 'step')}, {sequence.digest}", soft_wrap=True)
    if unchecked:
        what = f": {plural(len(sequence.references), 'reference')}" if sequence.references else ""
        progress().print(
            f"not checked{what}, and step types that only the server has, since no server was asked: {unchecked}",
            soft_wrap=True,
        )


@group.command("schema")
def schema() -> None:
    """Print the JSON schema of task sequence files, for editors."""
    from fleetcast_sequence import schema as json_schema  # noqa: PLC0415 - see above

    print(json.dumps(json_schema(), indent=2))


@ready.command("list")
def list_ready(as_json: Json = False) -> None:
    """List the task sequences that ship."""
    from fleetcast_sequence import parse  # noqa: PLC0415 - see above

    found = {name: parse(source).description for name, source in sorted(_ready_sequences().items())}
    if as_json:
        write_json({"ready": [{"name": name, "description": text} for name, text in found.items()]})
        return
    rows = table("name", "description")
    for name, text in found.items():
        rows.add_row(name, text)
    output().print(rows)


@ready.command("show")
def show_ready(name: Annotated[str, typer.Argument(metavar="NAME", help="One of `ready list`.")]) -> None:
    """Print the text of a task sequence that ships."""
    sys.stdout.buffer.write(_ready(name).encode())
    sys.stdout.buffer.flush()


def _given(file: str | None, ready_name: str | None) -> tuple[str, str]:
    """Returns what to call the file in messages, and its text."""
    if (file is None) == (ready_name is None):
        raise InvalidArgumentError("give either a FILE or --ready NAME", field="file")
    if ready_name is not None:
        return f"{ready_name}.yaml", _ready(ready_name)
    if file is None or file == _STANDARD_INPUT:
        return "<stdin>", _text("<stdin>", sys.stdin.buffer.read(MAX_FILE_BYTES + 1))
    try:
        with open(file, "rb") as opened:
            return file, _text(file, opened.read(MAX_FILE_BYTES + 1))
    except OSError as error:
        raise InvalidArgumentError(f"cannot read {file}: {error.strerror}", field="file") from error


def _text(label: str, content: bytes) -> str:
    if len(content) > MAX_FILE_BYTES:
        raise InvalidArgumentError(f"{label} is longer than {MAX_FILE_BYTES >> 20} MiB: it is no task sequence")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        before = content[: error.start].decode()
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        problem = task_sequence_pb2.TaskSequenceProblem(line=line, column=column, message="the text is not UTF-8")
        _refuse(label, [problem])
        raise


def _ready_sequences() -> dict[str, str]:
    from fleetcast_sequence.ready import ready_sequences  # noqa: PLC0415 - see above

    return dict(ready_sequences())


def _ready(name: str) -> str:
    found = _ready_sequences()
    if name not in found:
        raise NotFoundError(f"no task sequence {name!r} ships; there are {', '.join(sorted(found))}")
    return found[name]


def _renamed(label: str, source: str, name: str) -> str:
    """Returns the text with another name. What is not YAML stays as it is: the server says what is wrong with it."""
    from fleetcast_sequence import SequenceFileError, renamed  # noqa: PLC0415 - see above

    try:
        return renamed(source, name)
    except SequenceFileError as error:
        _refuse(label, [_problem_message(each.line, each.column, each.path, each.message) for each in error.problems])
        raise


def _validated_here(source: str) -> task_sequence_service_pb2.ValidateTaskSequenceResponse:
    """Returns what this program alone can say about a file."""
    from fleetcast_sequence import SequenceFileError, Step, digest, parse_located, references  # noqa: PLC0415 - see above
    from fleetcast_sequence.model import walk  # noqa: PLC0415 - see above

    try:
        sequence, document = parse_located(source)
    except SequenceFileError as error:
        found = [_problem_message(each.line, each.column, each.path, each.message) for each in error.problems]
        return task_sequence_service_pb2.ValidateTaskSequenceResponse(problems=found)
    places = [(each, document.problem(each.path, "")) for each in references(sequence)]
    return task_sequence_service_pb2.ValidateTaskSequenceResponse(
        task_sequence=task_sequence_pb2.TaskSequence(
            task_sequence=sequence.name,
            digest=digest(sequence),
            step_count=sum(isinstance(node, Step) for _, node in walk(sequence.steps)),
            references=[
                task_sequence_pb2.TaskSequenceReference(
                    kind=(
                        task_sequence_pb2.TaskSequenceReference.KIND_IMAGE
                        if each.kind == "image"
                        else task_sequence_pb2.TaskSequenceReference.KIND_TASK_SEQUENCE
                    ),
                    name=f"{'images' if each.kind == 'image' else 'taskSequences'}/{each.name}",
                    step=each.step,
                    path=place.path,
                    line=place.line,
                    column=place.column,
                )
                for each, place in places
            ],
        )
    )


def _problem_message(line: int, column: int, path: str, message: str) -> task_sequence_pb2.TaskSequenceProblem:
    return task_sequence_pb2.TaskSequenceProblem(line=line, column=column, path=path, message=message)


def _means_no_server(error: FleetcastError) -> bool:
    """Returns whether there is no server to ask, rather than one that refused."""
    return (
        isinstance(error, UnavailableError)
        or error.reason == "NO_CREDENTIAL"
        or (isinstance(error, InvalidArgumentError) and error.field == "server")
    )


def _refuse(label: str, problems: Sequence[task_sequence_pb2.TaskSequenceProblem]) -> None:
    """Ends the command if there are problems: one line each, as compilers and editors write and read them."""
    if not problems:
        return
    for problem in problems:
        path = f"{problem.path}: " if problem.path else ""
        message = " ".join(problem.message.split())
        print(printable(f"{label}:{problem.line}:{problem.column}: {path}{message}"), file=sys.stderr)
    raise InvalidArgumentError(f"{label} has {plural(len(problems), 'problem')}: correct the file", field="file")


def _warn(label: str, references: Sequence[task_sequence_pb2.TaskSequenceReference]) -> None:
    for reference in references:
        if reference.problem:
            place = f"{label}:{reference.line}:{reference.column}"
            print(printable(f"{place}: warning: {reference.path}: {reference.problem}"), file=sys.stderr)


def _day(created: task_sequence_pb2.TaskSequence) -> str:
    return created.create_time.ToDatetime().strftime("%Y-%m-%d")
