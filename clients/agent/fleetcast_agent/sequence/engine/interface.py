"""What the run of a task sequence takes from the agent, and what it tells the agent."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fleetcast_agent.sequence.content.content import ContentSource
from fleetcast_agent.sequence.context import StepFunction
from fleetcast_agent.sequence.engine.records import Outcome, Record, Remark
from fleetcast_agent.sequence.machine.disks import Disks


@dataclass(frozen=True)
class SequenceProgress:
    """How far a run is."""

    step: int
    """Number of the step that runs or ran last, from 1; 0 before the first."""
    step_count: int
    """Number of steps that are not disabled."""
    name: str
    """Name of that step."""
    step_fraction: float
    """Part of that step that is done, from 0 to 1."""
    fraction: float
    """Part of the whole sequence, from 0 to 1; steps count alike."""


@dataclass(frozen=True)
class SequenceOutcome:
    """How a run ended, or why it waits."""

    outcome: Outcome | None
    """None when the machine must restart first."""
    restart: Literal["boot", "installed"] | None = None
    """What must be started; then run the same sequence in the same directory again."""
    step: str = ""
    """Name of the step or group that failed."""
    message: str = ""
    """Why it failed."""
    final: bool = False
    """Nothing is left to do after the restart."""
    output_tail: str = ""
    """End of that step's output, secrets hidden."""
    remarks: tuple[Remark, ...] = ()
    """What does not change the worth of the result, but must be known."""


@dataclass(frozen=True)
class RunResources:
    """What a run needs from the machine and the agent."""

    content: ContentSource
    disks: Disks
    steps: Mapping[str, StepFunction]
    """What runs each step type."""
    environment: Literal["boot", "installed"]
    boot_id: str
    """Changes whenever the machine starts."""
    gather: Callable[[], Awaitable[dict[str, Any]]]
    """Reads the inventory: what conditions see as `machine`."""
    report: Callable[[SequenceProgress], None] = lambda progress: None
    """Receives progress; must not block."""
    noted: Callable[[Record], None] = lambda record: None
    """Receives each record once it is in the journal; must not block."""
    identity: Path | None = None
    """Directory with this machine's identity, for the agent of the system to which a restart carries the run."""
