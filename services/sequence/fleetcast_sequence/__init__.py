"""The format of task sequences: what the catalog checks and the agent runs."""

from fleetcast_sequence.errors import (
    BrokenReferenceError,
    ExpressionError,
    Problem,
    SequenceError,
    SequenceFileError,
    VariableError,
)
from fleetcast_sequence.model import Group, InterruptionRule, Node, Retry, Step, TaskSequence, Variable
from fleetcast_sequence.references import Reference, expand, pin, references
from fleetcast_sequence.registry import StepType, step_types
from fleetcast_sequence.text.canonical import canonical, digest, from_canonical
from fleetcast_sequence.text.document import renamed
from fleetcast_sequence.text.schema import schema
from fleetcast_sequence.uploads import owned_uploads, restored, uploads
from fleetcast_sequence.validation import parse, parse_located
from fleetcast_sequence.variables import HIDDEN, SHORTEST_MASK, Redactor, Scope, Variables

__all__ = [
    "HIDDEN",
    "SHORTEST_MASK",
    "BrokenReferenceError",
    "ExpressionError",
    "Group",
    "InterruptionRule",
    "Node",
    "Problem",
    "Redactor",
    "Reference",
    "Retry",
    "Scope",
    "SequenceError",
    "SequenceFileError",
    "Step",
    "StepType",
    "TaskSequence",
    "Variable",
    "VariableError",
    "Variables",
    "canonical",
    "digest",
    "expand",
    "from_canonical",
    "owned_uploads",
    "parse",
    "parse_located",
    "pin",
    "references",
    "renamed",
    "restored",
    "schema",
    "step_types",
    "uploads",
]
