"""A run: one machine's part in a deployment, once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum


class RunState(StrEnum):
    """Where a machine is in a deployment."""

    WAITING = "WAITING"
    RUNNING = "RUNNING"
    RESTARTING = "RESTARTING"
    PAUSED = "PAUSED"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    LOST = "LOST"
    CANCELLED = "CANCELLED"
    SKIPPED = "SKIPPED"

    @property
    def final(self) -> bool:
        """True when it has ended."""
        return self in _FINAL

    @property
    def begun(self) -> bool:
        """True when the machine was told to begin and has not ended."""
        return self is not RunState.WAITING and self not in _FINAL


_FINAL = frozenset({RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED, RunState.SKIPPED})

RUN_COUNTS = {
    RunState.WAITING: "waiting",
    RunState.RUNNING: "running",
    RunState.RESTARTING: "running",
    RunState.PAUSED: "running",
    RunState.SUCCEEDED: "succeeded",
    RunState.FAILED: "failed",
    RunState.CANCELLED: "failed",
    RunState.LOST: "unknown",
}
"""How a machine is counted in a summary; one that an operator excluded is not counted as a target."""


class StepOutcome(StrEnum):
    """How a step, or a run, ended."""

    UNSPECIFIED = "UNSPECIFIED"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    INTERRUPTED = "INTERRUPTED"
    SKIPPED = "SKIPPED"


@dataclass(frozen=True, slots=True)
class RunProgress:
    """How far a run is."""

    step: int = 0
    step_count: int = 0
    step_name: str = ""
    step_fraction: float = 0.0
    session: str = ""
    paused: bool = False


@dataclass(frozen=True, slots=True)
class Remark:
    """Something about a run that does not change the worth of its result, but must be known."""

    step_name: str
    """Empty if it is about the run as a whole."""
    text: str


MAX_REMARKS = 50
"""Remarks that are kept of one run."""


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """How a run ended, as its machine says."""

    outcome: StepOutcome
    step_name: str = ""
    error: str = ""
    output_tail: str = ""
    remarks: tuple[Remark, ...] = ()


@dataclass(frozen=True, slots=True)
class Ending:
    """The decision to end a run that has begun; it takes effect when the machine confirms it, or after a time limit."""

    state: RunState
    error: str
    give_up_time: float
    """The machine's confirmation is awaited no longer than this."""


@dataclass(slots=True, kw_only=True)
class StepRun:
    """One attempt of one step of a run."""

    run: str
    number: int
    """In the order in which they began, from 1."""
    node: str
    step_name: str
    attempt: int
    outcome: StepOutcome = StepOutcome.UNSPECIFIED
    message: str = ""
    start_time: float | None = None
    end_time: float | None = None
    remarks: tuple[str, ...] = ()


@dataclass(slots=True, kw_only=True)
class Run:
    """One machine's part in a deployment, once."""

    name: str
    """`deployments/{deployment}/runs/{id}`."""
    deployment: str
    machine: str
    display_name: str
    number: int
    """Of this machine's runs of the deployment, from 1."""
    place: int
    """The machine's place in the deployment, from 1: phases begin with the first."""
    create_time: float
    attempt: int = 0
    """`number`, once it has begun."""
    state: RunState = RunState.WAITING
    reason: str = ""
    """What it waits for."""
    wanted: bool = False
    """Somebody asked for it: it begins independently of purpose and phase."""
    excepted: bool = False
    """An operator excluded the machine, until an operator has it run again."""
    variables: dict[str, dict[str, str]] | None = None
    """Of its machine and of that one's collections, by `machine` and `collection`, as they were when it began; None
    before and after, for they may be secret."""
    progress: RunProgress = field(default_factory=RunProgress)
    error: str = ""
    output_tail: str = ""
    remarks: tuple[Remark, ...] = ()
    start_time: float | None = None
    limit_time: float | None = None
    """When it has taken too long."""
    pause_time: float | None = None
    """Since when an operator holds it: that time does not count."""
    restart_time: float | None = None
    """When the machine said that it restarts."""
    restart_environment: str = ""
    """What it means to start then: `boot` or `installed`."""
    end_time: float | None = None
    contact_time: float | None = None
    ending: Ending | None = None
    wake_time: float | None = None
    """When the machine was last sent a wake-up."""
    wake_count: int = 0
    has_log: bool = False
    revision: int = 0
    steps: dict[tuple[str, int, float | None], StepRun] = field(default_factory=dict)
    """Recorded steps by node, attempt and when they began. Kept apart from the run in the store."""

    def note(self, remarks: Iterable[Remark]) -> None:
        """Keeps remarks that it does not have yet."""
        self.remarks = tuple(dict.fromkeys((*self.remarks, *remarks)))[:MAX_REMARKS]
