"""What the steps of a task sequence add to the catalog: captured images and user states."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from fleetcast_sequence.errors import ExpressionError, VariableError
from fleetcast_sequence.expression import text_of
from fleetcast_sequence.model import Group, Node, Step, TaskSequence, Uploads
from fleetcast_sequence.registry import step_types
from fleetcast_sequence.variables import Variables


def uploads(sequence: TaskSequence, variables: Variables | None = None) -> list[str]:
    """Returns the images that the steps of `sequence` add versions to, each once, in order; disabled steps add none.

    As written they may be templates. With the `variables` of a machine they are what they come to there, without those
    that cannot be computed before the run.
    """
    known = step_types()
    found: dict[str, None] = {}
    for step in _enabled_steps(sequence.steps):
        fields = known[step.type].arguments.model_fields if step.type in known else {}
        for name, field in fields.items():
            image = step.arguments.get(name)
            if isinstance(image, str) and any(isinstance(item, Uploads) for item in field.metadata):
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
