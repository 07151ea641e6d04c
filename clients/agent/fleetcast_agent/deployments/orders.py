"""What the scheduler wants of this machine, and what the machine says of it, free of protobuf."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import Enum
from typing import Literal

from fleetcast_kit.errors import DataLossError, FailedPreconditionError
from fleetcast_sequence import Scope, Step, TaskSequence, from_canonical
from pydantic import BaseModel, ConfigDict, ValidationError

from fleetcast_agent.sequence.content.content import ImageDescription
from fleetcast_agent.sequence.engine.records import Outcome, Remark

Environment = Literal["boot", "installed"]
"""What a machine has started: the boot environment or the installed system."""


class _Kept(BaseModel):
    """Something that is kept in the state directory."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class PinnedImage(_Kept):
    """What is known of an image that a task sequence names."""

    image: str
    """`images/{image}@sha256:{hex}`."""
    size_bytes: int
    is_wim: bool


class RunOrder(_Kept):
    """What to run."""

    run: str
    """`deployments/{deployment}/runs/{id}`."""
    attempt: int = 1
    image: str = ""
    """The pinned image to write to the disk; empty for a task sequence."""
    task_sequence: str = ""
    """Its canonical form."""
    task_sequence_digest: str = ""
    images: tuple[PinnedImage, ...] = ()
    collection_variables: dict[str, str] = {}
    machine_variables: dict[str, str] = {}
    deployment_variables: dict[str, str] = {}
    traceparent: str = ""
    upload_grant: str = ""
    catalog_address: str = ""
    """Where the uploads go; empty for the server's own address."""
    display_name: str = ""

    @property
    def deployment(self) -> str:
        """`deployments/{id}`."""
        return self.run.partition("/runs/")[0]

    @property
    def title(self) -> str:
        """The order for people."""
        return f"{self.run.replace('deployments/', 'deployment ').replace('/runs/', ', run ')}"

    def is_same_as(self, other: RunOrder) -> bool:
        """Returns whether this is the same attempt of the same run."""
        return (self.run, self.attempt) == (other.run, other.attempt)

    def image_descriptions(self) -> dict[str, ImageDescription]:
        """Returns what is known of the pinned images, by their names without the collection."""
        return {
            pinned.image.removeprefix("images/"): ImageDescription(pinned.size_bytes, pinned.is_wim)
            for pinned in self.images
        }

    @property
    def values(self) -> dict[Scope, dict[str, str]]:
        """The variables from outside the task sequence."""
        return {
            Scope.COLLECTION: self.collection_variables,
            Scope.MACHINE: self.machine_variables,
            Scope.DEPLOYMENT: self.deployment_variables,
        }

    @property
    def as_deployment(self) -> dict[str, str | int]:
        """What expressions see as `deployment`."""
        return {"name": self.deployment, "run": self.run, "attempt": self.attempt}

    def sequence(self) -> TaskSequence:
        """Returns the task sequence; for an image one with the single step that writes it.

        Raises:
            DataLossError: the task sequence is not the one that was pinned.
            FailedPreconditionError: this agent does not understand it.
        """
        if self.image:
            arguments = {"image": self.image, "disk": "system", "grow": False}
            step = Step.model_validate({"name": "Write the image", "type": "apply-operating-system", "with": arguments})
            return TaskSequence(name="image", steps=[step])
        content = self.task_sequence.encode()
        found = f"sha256:{hashlib.sha256(content).hexdigest()}"
        if self.task_sequence_digest not in ("", found):
            raise DataLossError(
                f"the task sequence has the digest {found}, not {self.task_sequence_digest} as deployed: deploy it anew"
            )
        try:
            return from_canonical(content)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(map(str, first["loc"]))
            raise FailedPreconditionError(
                f"this agent does not understand the task sequence ({place}: {first['msg']}): update the agent",
                reason="TASK_SEQUENCE_NOT_UNDERSTOOD",
            ) from error


class RunEnd(_Kept):
    """How a run ended."""

    outcome: Outcome
    step: str = ""
    """The step that failed it."""
    error: str = ""
    output_tail: str = ""
    restart: Environment | None = None
    """What is to be started once the scheduler knows."""
    boot_id: str = ""
    """Identity of the system's run that ended it."""
    remarks: tuple[Remark, ...] = ()
    """What does not change the worth of the result, but must be known."""


@dataclass(frozen=True)
class OfferedDeployment:
    """An available deployment."""

    name: str
    """`deployments/{id}`."""
    description: str


@dataclass(frozen=True)
class Standby:
    """Nothing to run now."""

    reason: str
    offered: tuple[OfferedDeployment, ...] = ()


class ControlAction(Enum):
    """What to do with a run."""

    PAUSE = "pause"
    RESUME = "resume"
    CANCEL = "cancel"


@dataclass(frozen=True)
class RunControl:
    """An operator pauses, resumes or cancels a run."""

    run: str
    action: ControlAction
    reason: str


@dataclass(frozen=True)
class RunClosed:
    """The scheduler knows how a run ended."""

    run: str


@dataclass(frozen=True)
class Arrival:
    """What the machine says first."""

    run: str
    """The run that it has begun and not reported as ended; empty if none."""
    environment: Environment


@dataclass(frozen=True)
class RunProgress:
    """How far the run is."""

    step: int
    step_count: int
    step_name: str
    step_fraction: float
    session: str
    """`sessions/{id}`; empty if it receives from none."""
    paused: bool


class StepOutcome(Enum):
    """How an attempt of a step ended."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class StepRun:
    """One attempt of one step."""

    node: str
    """Its place in the tree, such as `2.1`."""
    name: str
    attempt: int
    outcome: StepOutcome
    message: str = ""
    start_time: float = 0.0
    """Seconds since 1970."""
    end_time: float = 0.0
    """Seconds since 1970; 0 while it runs."""
    remarks: tuple[str, ...] = ()
    """What it remarked: sentences that somebody must know."""
