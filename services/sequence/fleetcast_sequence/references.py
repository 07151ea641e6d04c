"""What a task sequence refers to; how that is pinned when it is deployed; and child sequences put in their places."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel

from fleetcast_sequence.errors import BrokenReferenceError
from fleetcast_sequence.model import Group, Node, RefersTo, Step, TaskSequence, Variable
from fleetcast_sequence.registry import step_types

MAX_CHILD_DEPTH = 8
"""Sequences inside each other."""


@dataclass(frozen=True)
class Reference:
    """A name in a step that must lead to something when the sequence is deployed."""

    kind: Literal["image", "task-sequence"]
    name: str
    """As written, without the collection: `debian-12` or `debian-12@sha256:...`."""
    step: str
    """Name of the step."""
    path: tuple[str | int, ...] = field(default=(), compare=False)
    """Where it stands: keys and indices from the root."""


def references(sequence: TaskSequence) -> list[Reference]:
    """Returns what the steps of `sequence` refer to, in their order."""
    found: list[Reference] = []

    def note(reference: Reference) -> str:
        found.append(reference)
        return reference.name

    pin(sequence, note)
    return found


def pin(sequence: TaskSequence, resolve: Callable[[Reference], str]) -> TaskSequence:
    """Returns `sequence` with what `resolve` says in the place of every reference."""
    known = step_types()

    def pinned(nodes: list[Node], path: tuple[str | int, ...]) -> list[Node]:
        return [pinned_node(node, (*path, "steps", index)) for index, node in enumerate(nodes)]

    def pinned_node(node: Node, path: tuple[str | int, ...]) -> Node:
        if isinstance(node, Group):
            return node.model_copy(update={"steps": pinned(node.steps, path)})
        if node.type not in known:
            return node

        def found(kind: Literal["image", "task-sequence"], name: str, inner: tuple[str | int, ...]) -> str:
            return resolve(Reference(kind, name.rpartition("/")[2], node.name, (*path, *inner)))

        arguments = _replaced(known[node.type].arguments, node.arguments, ("with",), found)
        return node.model_copy(update={"arguments": arguments})

    return sequence.model_copy(update={"steps": pinned(sequence.steps, ())})


_Found = Callable[[Literal["image", "task-sequence"], str, tuple[str | int, ...]], str]


def _replaced(model: type[BaseModel], data: Any, path: tuple[str | int, ...], found: _Found) -> Any:
    if not isinstance(data, Mapping):
        return data
    result = dict(data)
    for name, about in model.model_fields.items():
        if name not in data:
            continue
        marker = next((item for item in about.metadata if isinstance(item, RefersTo)), None)
        if marker is not None and isinstance(data[name], str):
            result[name] = found(marker.kind, data[name], (*path, name))
        for inner in _models_in(about.annotation):
            items = data[name]
            if isinstance(items, list):
                result[name] = [_replaced(inner, item, (*path, name, index), found) for index, item in enumerate(items)]
            else:
                result[name] = _replaced(inner, items, (*path, name), found)
    return result


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        if issubclass(annotation, BaseModel):
            yield annotation
        return
    for argument in typing.get_args(annotation):
        yield from _models_in(argument)


def is_reference(model: type[BaseModel], path: tuple[str | int, ...]) -> bool:
    """Returns whether the argument at `path` of `model` names something that is pinned."""
    models = [model]
    for position, part in enumerate(path):
        if isinstance(part, int):
            continue
        fields = [each.model_fields[part] for each in models if part in each.model_fields]
        if position == len(path) - 1:
            return any(isinstance(item, RefersTo) for field in fields for item in field.metadata)
        models = [inner for field in fields for inner in _models_in(field.annotation)]
    return False


def expand(sequence: TaskSequence, find: Callable[[str], TaskSequence]) -> TaskSequence:
    """Returns `sequence` with every child sequence in its place, as a group; `find` returns a child by its name.

    A child's variables are declared too, where this sequence does not declare the same name; a variable is secret when
    either says so.

    Raises:
        BrokenReferenceError: sequences contain each other, or are nested too deep.
    """
    variables: dict[str, Variable] = dict(sequence.variables)

    def expanded(node: Node, above: tuple[str, ...]) -> Node:
        if isinstance(node, Group):
            return node.model_copy(update={"steps": [expanded(child, above) for child in node.steps]})
        if node.type != "run-task-sequence":
            return node
        name = str(node.arguments.get("sequence", "")).rpartition("/")[2]
        plain_name = name.partition("@")[0]
        if plain_name in above:
            raise BrokenReferenceError(f"task sequences contain each other: {' -> '.join([*above, plain_name])}")
        if len(above) > MAX_CHILD_DEPTH:
            raise BrokenReferenceError(
                f"more than {MAX_CHILD_DEPTH} task sequences inside each other: {' -> '.join(above)}"
            )
        child = find(name)
        for key, variable in child.variables.items():
            mine = variables.get(key, variable)
            variables[key] = mine.model_copy(update={"secret": mine.secret or variable.secret})
        steps = [expanded(inner, (*above, plain_name)) for inner in child.steps]
        if given := node.arguments.get("variables"):
            first = {"name": "Set variables", "type": "set-variables", "with": {"variables": given}}
            steps = [Step.model_validate(first), *steps]
        return Group(
            name=node.name,
            description=node.description or child.description[:256],
            when=node.when,
            disabled=node.disabled,
            continue_on_error=node.continue_on_error,
            steps=steps,
        )

    steps = [expanded(node, (sequence.name,)) for node in sequence.steps]
    return sequence.model_copy(update={"steps": steps, "variables": variables})
