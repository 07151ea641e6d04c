"""Messages about task sequences as domain objects, and back; fields are checked here."""

from __future__ import annotations

from collections.abc import Iterator

from fleetcast.catalog.v1 import task_sequence_pb2, task_sequence_service_pb2
from fleetcast_kit.errors import InvalidArgumentError
from fleetcast_kit.rpc.fields import timestamp
from fleetcast_sequence import (
    Group,
    Node,
    Problem,
    Reference,
    SequenceFileError,
    TaskSequence,
    canonical,
    digest,
    references,
    uploads,
)
from fleetcast_sequence.expression import text_of
from fleetcast_sequence.text.document import path_text

from fleetcast_catalog.images.convert import file_name
from fleetcast_catalog.images.domain import Hold, Image
from fleetcast_catalog.task_sequences.domain import ResolvedSequence, TaskSequenceVersion
from fleetcast_catalog.task_sequences.resolution import collection_of
from fleetcast_catalog.task_sequences.task_sequences import CheckedSequence

_MAX_VIOLATION_BYTES = 2000
"""Of all problems in a status: it travels in trailing metadata, of which 8 kB are sure to arrive."""
_KINDS = {
    "image": task_sequence_pb2.TaskSequenceReference.KIND_IMAGE,
    "task-sequence": task_sequence_pb2.TaskSequenceReference.KIND_TASK_SEQUENCE,
}


def source_file(name: str) -> str:
    """Returns the last part of a file's name.

    Raises:
        InvalidArgumentError: it cannot be the name of a file.
    """
    return file_name(name, field="source_file")


def file_error(error: SequenceFileError) -> InvalidArgumentError:
    """Returns the error for a status: the first problems as violations, and how many there are."""
    violations: list[tuple[str, str]] = []
    room_bytes = _MAX_VIOLATION_BYTES
    for problem in error.problems:
        text = str(problem)
        room_bytes -= len(text.encode())
        if room_bytes < 0 and violations:
            break
        violations.append(("source", text[:_MAX_VIOLATION_BYTES]))
    count = len(error.problems)
    several = f"the file has {count} problems, the first one at " if count > 1 else ""
    return InvalidArgumentError(
        several + str(error.problems[0])[:500],
        reason=error.reason,
        metadata={"problem_count": str(count)},
        violations=violations,
    )


def problem_message(problem: Problem) -> task_sequence_pb2.TaskSequenceProblem:
    """Returns a problem as a message."""
    return task_sequence_pb2.TaskSequenceProblem(
        line=problem.line, column=problem.column, path=problem.path, message=problem.message
    )


def version_message(version: TaskSequenceVersion) -> task_sequence_pb2.TaskSequence:
    """Returns a version as lists show it."""
    return task_sequence_pb2.TaskSequence(
        name=version.name,
        task_sequence=version.task_sequence,
        digest=version.digest,
        description=version.description,
        create_time=timestamp(version.create_time),
        step_count=version.step_count,
        source_file=version.source_file,
        holders=version.holders,
    )


def checked_message(checked: CheckedSequence) -> task_sequence_pb2.TaskSequence:
    """Returns a version with all that it says, and where its references lead."""
    message = version_message(checked.version)
    message.variables.extend(_variable_messages(checked.sequence))
    message.nodes.extend(_node_messages(checked.sequence.steps, ""))
    problems = {broken.reference.path: broken.problem for broken in checked.broken}
    for reference in references(checked.sequence):
        line, column = (0, 0)
        if checked.document is not None:
            place = checked.document.problem(reference.path, "")
            line, column = place.line, place.column
        message.references.append(
            task_sequence_pb2.TaskSequenceReference(
                kind=_KINDS[reference.kind],
                name=_reference_name(reference),
                step=reference.step,
                path=path_text(reference.path),
                line=line,
                column=column,
                problem=problems.get(reference.path, ""),
            )
        )
    return message


def resolved_message(resolved: ResolvedSequence) -> task_sequence_pb2.ResolvedTaskSequence:
    """Returns what a machine would run as a message."""
    variables = resolved.pinned.variables
    return task_sequence_pb2.ResolvedTaskSequence(
        task_sequence=version_message(resolved.version),
        canonical_form=canonical(resolved.pinned),
        digest=digest(resolved.pinned),
        images=[_pinned_image_message(image) for image in resolved.images],
        child_task_sequences=[child.name for child in resolved.children],
        required_variables=sorted(
            name for name, variable in variables.items() if variable.required and variable.default in (None, "")
        ),
        uploads=uploads(resolved.pinned),
        disk_demands=[
            task_sequence_pb2.DiskDemand(
                step=demand.step, size_bytes=demand.size_bytes, sector_size_bytes=demand.sector_size_bytes
            )
            for demand in resolved.disk_demands
        ],
    )


def hold_message(hold: Hold) -> task_sequence_service_pb2.TaskSequenceHold:
    """Returns a hold as a message."""
    return task_sequence_service_pb2.TaskSequenceHold(name=hold.name, holder=hold.holder)


def _pinned_image_message(image: Image) -> task_sequence_pb2.PinnedImage:
    return task_sequence_pb2.PinnedImage(
        name=image.name, size_bytes=image.size_bytes, is_wim=image.format.is_windows_imaging
    )


def _reference_name(reference: Reference) -> str:
    return f"{collection_of(reference)}/{reference.name}"


def _variable_messages(sequence: TaskSequence) -> Iterator[task_sequence_pb2.TaskSequenceVariable]:
    for name, variable in sorted(sequence.variables.items()):
        default = variable.default
        text = ", ".join(default) if isinstance(default, list) else text_of(default)
        yield task_sequence_pb2.TaskSequenceVariable(
            variable=name,
            description=variable.description,
            type=variable.type,
            default_text="" if variable.secret else text,
            has_default=default is not None,
            required=variable.required,
            secret=variable.secret,
        )


def _node_messages(nodes: list[Node], above: str) -> Iterator[task_sequence_pb2.TaskSequenceNode]:
    for number, node in enumerate(nodes, 1):
        place = f"{above}{number}"
        yield task_sequence_pb2.TaskSequenceNode(
            place=place,
            display_name=node.name,
            type="" if isinstance(node, Group) else node.type,
            condition=node.when or "",
            disabled=node.disabled,
            continue_on_error=node.continue_on_error,
        )
        if isinstance(node, Group):
            yield from _node_messages(node.steps, f"{place}.")
