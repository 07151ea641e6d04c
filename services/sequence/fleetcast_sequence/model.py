"""What a task sequence consists of: variables, and a tree of groups and steps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_validator,
)

from fleetcast_sequence.errors import ExpressionError
from fleetcast_sequence.expression import CONTEXT_NAMES, compile_expression
from fleetcast_sequence.quantities import Seconds

NAME_PATTERN = r"^[a-z0-9][a-z0-9-]{0,62}$"
VARIABLE_PATTERN = r"^[a-z][a-z0-9_]{0,49}$"
_RESERVED_WORDS = frozenset(
    [
        "as",
        "break",
        "const",
        "continue",
        "else",
        "false",
        "for",
        "function",
        "if",
        "import",
        "in",
        "let",
        "loop",
        "null",
        "package",
        "namespace",
        "return",
        "true",
        "var",
        "void",
        "while",
    ]
)

VariableName = Annotated[str, Field(pattern=VARIABLE_PATTERN)]
"""Lower-case letters, digits and underscores."""


def _holdable(value: Any) -> Any:
    if not (value is None or isinstance(value, str | int) or _is_texts(value)):
        raise ValueError("a variable holds text, a whole number, true or false, or a list of texts")
    return value


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


VariableValue = Annotated[str | int | bool | list[str] | None, BeforeValidator(_holdable)]
"""What a variable can hold."""


@dataclass(frozen=True)
class RefersTo:
    """Marks an argument that names something which is resolved and pinned when a sequence is deployed."""

    kind: Literal["image", "task-sequence"]


@dataclass(frozen=True)
class Uploads:
    """Marks an argument that names the image to which a step adds a version."""

    owned: bool = False
    """The version belongs to the machine that uploads it: no other one gets it, unless a run of its restores it."""


@dataclass(frozen=True)
class Restores:
    """Marks an argument that names an image whose newest version a step puts back."""


def _compiles(value: str) -> str:
    try:
        compile_expression(value)
    except ExpressionError as error:
        raise ValueError(error.message) from error
    return value


Condition = Annotated[str, Field(min_length=1), AfterValidator(_compiles)]
"""An expression that is true or false."""


class SequenceModel(BaseModel):
    """The base of everything in a task sequence file: unknown keys are errors, and nothing changes once read."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class InterruptionRule(StrEnum):
    """What happens to a step that was running when the machine or the agent died."""

    RERUN = "rerun"
    """It runs again from its beginning."""
    RESUME = "resume"
    """It goes on where it was last sure of its work."""
    FAIL = "fail"
    """It counts as failed: nobody can know how far it came."""


class Variable(SequenceModel):
    """A variable that this sequence uses."""

    description: Annotated[str, Field(max_length=256)] = ""
    type: Literal["string", "integer", "boolean", "list"] = "string"
    default: VariableValue = None
    """Its value when no collection, machine or deployment gives one. May be a template."""
    required: bool = False
    """A deployment without a value for it is refused."""
    secret: bool = False
    """Its value appears in no log, trace, progress message or process list."""


def _variable(value: Any) -> Any:
    if isinstance(value, dict | Variable):
        return value
    kind = {bool: "boolean", int: "integer", list: "list"}.get(type(value), "string")
    return {"default": value, "type": kind}


class Retry(SequenceModel):
    """How often a failed step is tried again."""

    attempts: Annotated[int, Field(ge=1, le=20)] = 3
    """Attempts in all, the first included."""
    delay: Seconds = 10.0
    """Pause before the second attempt."""
    backoff: Annotated[float, Field(ge=1, le=10)] = 2.0
    """Each further pause is this many times the one before."""
    max_delay: Seconds = 300.0
    """No pause is longer."""

    def delay_seconds(self, failed_attempts: int) -> float:
        """Returns the pause after so many failed attempts, at least one."""
        return min(self.delay * self.backoff ** (failed_attempts - 1), self.max_delay)


class _Node(SequenceModel):
    name: Annotated[str, Field(min_length=1, max_length=50)]
    description: Annotated[str, Field(max_length=256)] = ""
    when: Annotated[str, Field(min_length=1)] | None = None
    """A condition: an expression, evaluated right before. When it is false, this is skipped."""
    disabled: bool = False
    """Always skipped."""
    continue_on_error: bool = False
    """A failure here does not fail what is around: a failed group is left, and the sequence goes on after it."""

    @field_validator("when", mode="before")
    @classmethod
    def _boolean_is_an_expression(cls, value: Any) -> Any:
        return str(value).lower() if isinstance(value, bool) else value


class Step(_Node):
    """One thing to do."""

    type: str
    """Name of the step type, such as `partition-disk`."""
    arguments: Annotated[dict[str, Any], Field(alias="with")] = {}
    """What the step type needs; any text in it may be a template."""
    retry: Retry | None = None
    timeout: Seconds | None = None
    """An attempt that takes longer is ended and counts as failed."""
    on_interruption: InterruptionRule | None = None
    """In place of the step type's own rule."""

    @field_validator("retry", mode="before")
    @classmethod
    def _number_is_attempts(cls, value: Any) -> Any:
        return {"attempts": value} if isinstance(value, int) and not isinstance(value, bool) else value

    @field_validator("timeout")
    @classmethod
    def _timeout_is_positive(cls, value: float | None) -> float | None:
        if value is not None and value <= 0:
            raise ValueError("a time-out is longer than nothing")
        return value


class Group(_Node):
    """Steps and groups that belong together: they share a condition, and fail together."""

    steps: Annotated[list[Node], Field(min_length=1)]


def _kind(value: Any) -> str:
    if isinstance(value, dict):
        return "group" if "steps" in value and "type" not in value else "step"
    return "group" if isinstance(value, Group) else "step"


Node = Annotated[Annotated[Group, Tag("group")] | Annotated[Step, Tag("step")], Discriminator(_kind)]
"""A group or a step."""


class TaskSequence(SequenceModel):
    """A whole task sequence."""

    name: Annotated[str, Field(pattern=NAME_PATTERN)]
    """Lower-case letters, digits and hyphens."""
    description: Annotated[str, Field(max_length=1024)] = ""
    variables: dict[VariableName, Variable] = {}
    steps: Annotated[list[Node], Field(min_length=1)]

    @field_validator("variables", mode="before")
    @classmethod
    def _short_variables(cls, value: Any) -> Any:
        return {name: _variable(item) for name, item in value.items()} if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _names_are_free(self) -> TaskSequence:
        taken = sorted(set(self.variables) & (CONTEXT_NAMES | _RESERVED_WORDS))
        if taken:
            raise ValueError(f"these variables have the names of something else: {', '.join(taken)}")
        return self


def walk(nodes: list[Node], path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Group | Step]]:
    """Yields the path and the node of every group and step, in the order they run."""
    for index, node in enumerate(nodes):
        here = (*path, "steps", index)
        yield here, node
        if isinstance(node, Group):
            yield from walk(node.steps, here)
