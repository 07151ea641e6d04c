"""What the steps of a task sequence add to the catalog (captured images, user states), and what they put back."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from fleetcast_sequence.errors import ExpressionError, VariableError
from fleetcast_sequence.expression import text_of
from fleetcast_sequence.model import Group, Node, Restores, Step, TaskSequence, Uploads
from fleetcast_sequence.registry import step_types
from fleetcast_sequence.variables import Variables


def uploads(sequence: TaskSequence, variables: Variables | None = None) -> list[str]:
    """Returns the images that the steps of `sequence` add versions to, each once, in order; disabled steps add none.

    As written they may be templates. With the `variables` of a machine they are what they come to there, without those
    that cannot be computed before the run.
    """
    return _named(sequence, variables, lambda marker: isinstance(marker, Uploads))


def owned_uploads(sequence: TaskSequence, variables: Variables | None = None) -> list[str]:
    """Returns those of `uploads` whose versions belong to the machine that uploads them: saved user states."""
    return _named(sequence, variables, lambda marker: isinstance(marker, Uploads) and marker.owned)


def restored(sequence: TaskSequence, variables: Variables | None = None) -> list[str]:
    """Returns the images whose newest version the steps of `sequence` put back, as `uploads` returns what they add."""
    return _named(sequence, variables, lambda marker: isinstance(marker, Restores))


def _named(sequence: TaskSequence, variables: Variables | None, marked: Callable[[object], bool]) -> list[str]:
    """Returns the images that marked arguments name."""
    known = step_types()
    found: dict[str, None] = {}
    for step in _enabled_steps(sequence.steps):
        fields = known[step.type].arguments.model_fields if step.type in known else {}
        for name, field in fields.items():
            image = step.arguments.get(name)
            if isinstance(image, str) and any(map(marked, field.metadata)):
                with contextlib.suppress(ExpressionError, VariableError):
                    found[image if variables is None else text_of(variables.render(image))] = None
    return list(found)


def _enabled_steps(nodes: list[Node]) -> Iterator[Step]:
    for node in nodes:
        if node.disabled:
            continue
        if isinstance(node, Group):
            yield from _enabled_steps(node.steps)
        else:
            yield node
