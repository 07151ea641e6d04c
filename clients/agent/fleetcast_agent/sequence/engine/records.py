"""What happens in the run of a task sequence: the records its journal is made of."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, TypeAdapter

NodeId = str
"""Place of a node in the tree: indices from 1, such as `2.1.3`."""


class Outcome(StrEnum):
    """How a step or a sequence ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Remark(BaseModel):
    """Something that does not change the worth of a run's result, but that somebody must know."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    step: str
    """Name of the step that says it."""
    text: str
    """One sentence, secrets hidden."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    time: float = 0.0
    """When it was noted, in seconds since 1970; 0 in journals of older agents."""


class Started(_Record):
    """The run of the task sequence with this digest began."""

    kind: Literal["started"] = "started"
    digest: str


class Evaluated(_Record):
    """The condition of a node was evaluated."""

    kind: Literal["evaluated"] = "evaluated"
    node: NodeId
    holds: bool
    problem: str = ""
    """Why it could not be evaluated; then the node fails."""


class StepStarted(_Record):
    """An attempt of a step began."""

    kind: Literal["step-started"] = "step-started"
    node: NodeId
    attempt: int
    """From 1."""


class StepSaved(_Record):
    """A step noted how far it surely came."""

    kind: Literal["step-saved"] = "step-saved"
    node: NodeId
    checkpoint: dict[str, Any]


class Remarked(_Record):
    """A step said something that does not change the worth of its result, but that somebody must know."""

    kind: Literal["remarked"] = "remarked"
    node: NodeId
    text: str
    """One sentence, secrets hidden."""


class StepInterrupted(_Record):
    """The agent found, when it started, that it had died during this step."""

    kind: Literal["step-interrupted"] = "step-interrupted"
    node: NodeId


class StepEnded(_Record):
    """An attempt of a step ended."""

    kind: Literal["step-ended"] = "step-ended"
    node: NodeId
    outcome: Outcome
    message: str = ""
    exit_code: int | None = None
    output_tail: str = ""
    """End of what it printed, secrets hidden."""
    variables: dict[str, Any] = {}
    """Variables that it set."""
    volumes: dict[str, dict[str, Any]] = {}
    """Volumes that it named."""
    restart: Literal["boot", "installed"] | None = None
    """What must be started before anything else runs."""
    rerun: bool = False
    """The step runs again after that restart."""
    carry_state_to: str | None = None
    """Volume that takes this journal along."""
    boot_id: str = ""
    """Identity of the system's run that asked for the restart."""


class Restarted(_Record):
    """The machine has restarted."""

    kind: Literal["restarted"] = "restarted"


class Ended(_Record):
    """The run is over."""

    kind: Literal["ended"] = "ended"
    outcome: Outcome
    node: NodeId = ""
    """The step or group that failed it."""
    message: str = ""


Record = Annotated[
    Started | Evaluated | StepStarted | StepSaved | Remarked | StepInterrupted | StepEnded | Restarted | Ended,
    Discriminator("kind"),
]
"""Something that happened."""
RECORD: TypeAdapter[Record] = TypeAdapter(Record)
"""Reads and writes records as JSON."""
