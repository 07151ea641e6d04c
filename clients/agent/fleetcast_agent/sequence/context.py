"""What a step has to work with."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from fleetcast_sequence import Variables

from fleetcast_agent.sequence.content.content import ContentSource
from fleetcast_agent.sequence.control import Control
from fleetcast_agent.sequence.machine.disks import Disks
from fleetcast_agent.sequence.tools import Tools


@dataclass(frozen=True)
class RestartRequest:
    """A restart that must happen before the next step."""

    target: Literal["boot", "installed"]
    rerun: bool = False
    """The same step runs again after it."""
    carry_state_to: str | None = None
    """Volume that takes the journal along."""


@dataclass
class StepResults:
    """What a successful step leaves behind for those after it."""

    variables: dict[str, Any] = field(default_factory=dict)
    volumes: dict[str, dict[str, Any]] = field(default_factory=dict)
    restart: RestartRequest | None = None
    exit_code: int | None = None


@dataclass
class StepContext:
    """The surroundings of one attempt of one step. A step may use all of it, and sets the fields of `results`."""

    run_directory: Path
    """Files of the run that last until its end, such as packages. Not on the disk that is installed."""
    step_directory: Path
    """Files of this step alone; there again after an interruption, deleted when the step ends."""
    tools: Tools
    control: Control
    disks: Disks
    content: ContentSource
    variables: Variables
    environment: Literal["boot", "installed"]
    """What is running now: the boot environment or the installed system."""
    log: Callable[[str], None]
    """Writes a line to the log of the run; secrets are hidden."""
    progress: Callable[[float], None]
    """Says which part of the step is done, from 0 to 1."""
    save: Callable[[dict[str, Any]], Awaitable[None]]
    """Notes durably how far the step surely came."""
    volumes: Mapping[str, dict[str, Any]]
    """Volumes that earlier steps named."""
    gather: Callable[[], Awaitable[dict[str, Any]]]
    """Reads the machine's inventory again and returns it."""
    remark: Callable[[str], None] = lambda sentence: None
    """Says, in one sentence, what does not change the worth of the step's result but must be known: the run then
    succeeds with remarks. It is kept in the journal when this returns, and shown wherever the run is; secrets are
    hidden. To be called from the event loop's thread. What makes the result wrong or incomplete is a StepError."""
    resume: bool = False
    """This attempt goes on after an interruption."""
    checkpoint: Mapping[str, Any] | None = None
    """What `save` noted last, when going on."""
    results: StepResults = field(default_factory=StepResults)


class StepFunction(Protocol):
    """What runs a step type: an async function of the checked arguments and the context.

    It returns when the step succeeded. It may be cancelled at any await.
    """

    async def __call__(self, arguments: Any, context: StepContext, /) -> None:
        """Does the step.

        Raises:
            StepError: it could not be done; the message says why.
        """
        ...
