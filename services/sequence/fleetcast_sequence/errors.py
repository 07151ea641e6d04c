"""What can be wrong with a task sequence, its expressions and its variables."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from fleetcast_kit.errors import InvalidArgumentError


@dataclass(frozen=True, order=True)
class Problem:
    """One thing that is wrong, and where."""

    line: int
    """From 1."""
    column: int
    """From 1, in characters."""
    path: str
    """Where in the structure, such as `steps[2].with.disk`; empty for the whole file."""
    message: str
    """What is wrong and what to do."""

    def __str__(self) -> str:
        place = f"{self.line}:{self.column}"
        return f"{place}: {self.path}: {self.message}" if self.path else f"{place}: {self.message}"


class SequenceError(InvalidArgumentError):
    """Something about a task sequence is wrong, whatever the state of the system."""


class SequenceFileError(SequenceError):
    """A task sequence file that cannot be used, with every problem found in it, in the order of the file."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(set(problems)))
        """At least one."""
        super().__init__("\n".join(map(str, self.problems)), reason="TASK_SEQUENCE_INVALID")


class ExpressionError(SequenceError):
    """An expression that does not parse, names what does not exist, or cannot be evaluated."""

    def __init__(self, message: str, *, offset: int = 0) -> None:
        super().__init__(message, reason="EXPRESSION_INVALID")
        self.offset = offset
        """Where in the expression's text, in characters from 0."""


class VariableError(SequenceError):
    """A variable that is not declared, has no value, or a value of the wrong type."""

    def __init__(self, message: str) -> None:
        super().__init__(message, reason="VARIABLE_INVALID")


class BrokenReferenceError(SequenceError):
    """A reference to an image, a package or another sequence that leads nowhere, or round in a circle."""

    def __init__(self, message: str) -> None:
        super().__init__(message, reason="REFERENCE_BROKEN")
