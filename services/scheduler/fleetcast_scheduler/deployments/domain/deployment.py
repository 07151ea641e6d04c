"""Deployments: a task sequence or an image for the machines of a collection, and each machine's runs of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum

from fleetcast_scheduler.calendar.local_time import ScheduleTime
from fleetcast_scheduler.deployments.domain.run import RUN_COUNTS, Run, RunState
from fleetcast_scheduler.images import DiskDemand
from fleetcast_scheduler.senders.domain.policies import RatePolicy, SlowPolicy
from fleetcast_scheduler.sessions.domain.admission import AdmissionRules
from fleetcast_scheduler.sessions.domain.start_rules import StartRules

DEFAULT_MAX_RUN_SECONDS = 7200.0
DEFAULT_SUCCESS_PERCENT = 95
DEFAULT_CONFIRMATION_LIMIT = 100


class Purpose(StrEnum):
    """What is expected of the machines."""

    AVAILABLE = "AVAILABLE"
    REQUIRED = "REQUIRED"


class Rerun(StrEnum):
    """Whether a machine that has run it runs it again when it registers again."""

    NEVER = "NEVER"
    ALWAYS = "ALWAYS"
    IF_FAILED = "IF_FAILED"
    IF_SUCCEEDED = "IF_SUCCEEDED"

    def after(self, last: RunState) -> bool:
        """Returns whether a machine runs it again whose last run ended so."""
        failed = last in (RunState.FAILED, RunState.CANCELLED)
        return {
            Rerun.NEVER: False,
            Rerun.ALWAYS: failed or last is RunState.SUCCEEDED,
            Rerun.IF_FAILED: failed,
            Rerun.IF_SUCCEEDED: last is RunState.SUCCEEDED,
        }[self]


class DeploymentState(StrEnum):
    """Where a deployment is in its life."""

    SCHEDULED = "SCHEDULED"
    ACTIVE = "ACTIVE"
    PAUSED = "PAUSED"
    EXPIRED = "EXPIRED"
    CANCELLED = "CANCELLED"
    COMPLETED = "COMPLETED"

    @property
    def final(self) -> bool:
        """True when nothing begins any more."""
        return self in (DeploymentState.EXPIRED, DeploymentState.CANCELLED, DeploymentState.COMPLETED)


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of the machines that begins before the next part does; one of the sizes is set."""

    percent: int = 0
    count: int = 0
    success_percent: int = DEFAULT_SUCCESS_PERCENT
    manual: bool = False
    delay_seconds: float = 0.0

    def reach(self, target_count: int) -> int:
        """Returns how many machines begin in this phase or before."""
        return min(target_count, self.count or -(-target_count * self.percent // 100))


@dataclass(frozen=True, slots=True)
class SessionTemplate:
    """How a deployment's sessions are opened."""

    rules: StartRules = field(default_factory=StartRules)
    rate: RatePolicy = field(default_factory=RatePolicy)
    admission: AdmissionRules = field(default_factory=AdmissionRules)
    priority: int = 0
    slow_policy: SlowPolicy = field(default_factory=SlowPolicy)
    site: str = ""
    any_site: bool = False


@dataclass(frozen=True, slots=True)
class DeployedImage:
    """What is known of an image that a deployment needs."""

    name: str
    """`images/{image}@sha256:{hex}`."""
    size_bytes: int
    is_wim: bool = False


@dataclass(frozen=True, slots=True)
class Content:
    """What machines run, pinned when the deployment was made."""

    images: tuple[DeployedImage, ...] = ()
    task_sequence: bytes = b""
    """Canonical form; empty for an image alone."""
    digest: str = ""
    """Of the canonical form, `sha256:{hex}`."""
    uploads: tuple[str, ...] = ()
    """Images that it uploads, as written."""
    disk_demands: tuple[DiskDemand, ...] = ()
    """What it needs of the machines' disks; known while it is made, and not stored."""


@dataclass(slots=True, kw_only=True)
class Deployment:
    """A task sequence or an image for the machines of a collection."""

    name: str
    """`deployments/{id}`."""
    collection: str
    content: str
    """The pinned version: `images/{image}@sha256:{hex}` or `taskSequences/{id}@sha256:{hex}`."""
    create_time: float
    description: str = ""
    purpose: Purpose = Purpose.AVAILABLE
    available_time: ScheduleTime | None = None
    deadline_time: ScheduleTime | None = None
    expiry_time: ScheduleTime | None = None
    rerun: Rerun = Rerun.IF_FAILED
    max_run_seconds: float = DEFAULT_MAX_RUN_SECONDS
    ignore_maintenance_windows: bool = False
    wake: bool = False
    phases: tuple[Phase, ...] = ()
    current_phase: int = 0
    """From 0; `len(phases)` means all machines that are left."""
    phase_success_time: float | None = None
    """When the present phase reached its success."""
    variables: dict[str, str] = field(default_factory=dict)
    session: SessionTemplate = field(default_factory=SessionTemplate)
    state: DeploymentState = DeploymentState.SCHEDULED
    waiting_reason: str = ""
    end_time: float | None = None
    settled: bool = False
    """True when it is over, none of its runs is open, and the catalog holds nothing for it."""
    traceparent: str = ""
    request_id: str = ""
    revision: int = 0
    edit_count: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    """Machines by where their last runs are, as RUN_COUNTS names it; `remarked` are some of the `succeeded`."""
    pinned: Content = field(default_factory=Content)
    runs: dict[str, Run] = field(default_factory=dict)
    """Last run by machine, in the order of their places. Earlier runs are in the store alone."""
    stale: bool = True
    """Its collection may have changed since its targets were last looked up. Not stored."""
    wake_time: float | None = None
    """When to look at it again, if nothing happens before. Not stored."""

    @property
    def is_image(self) -> bool:
        """True if it is an image that is written as it is."""
        return self.content.startswith("images/")

    @property
    def open_runs(self) -> list[Run]:
        """Last runs that have begun and not ended."""
        return [run for run in self.runs.values() if run.state.begun]

    def touch(self, run: Run | None = None) -> None:
        """Counts a change of the deployment, and of one run."""
        self.revision += 1
        if run is not None:
            run.revision = self.revision

    def put(self, run: Run) -> None:
        """Makes a run the last one of its machine."""
        former = self.runs.get(run.machine)
        if former is not None:
            self._count(former, -1)
        self.runs[run.machine] = run
        self._count(run, 1)

    def move(self, run: Run, state: RunState) -> None:
        """Puts a last run in a state."""
        self._count(run, -1)
        run.state = state
        self._count(run, 1)

    @property
    def target_count(self) -> int:
        """Machines that are targets, without those that an operator excluded."""
        return self.counts.total() - self.counts["remarked"]

    def _count(self, run: Run, difference: int) -> None:
        if run.state in RUN_COUNTS:
            self.counts[RUN_COUNTS[run.state]] += difference
        if run.state is RunState.SUCCEEDED and run.remarks:
            self.counts["remarked"] += difference
