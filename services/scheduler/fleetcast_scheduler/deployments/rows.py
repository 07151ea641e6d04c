"""Deployments and runs as rows, and back."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from datetime import datetime

from fleetcast_scheduler.calendar.local_time import ScheduleTime
from fleetcast_scheduler.deployments.domain.deployment import (
    Content,
    DeployedImage,
    Deployment,
    DeploymentState,
    Phase,
    Purpose,
    Rerun,
    SessionTemplate,
)
from fleetcast_scheduler.deployments.domain.run import Ending, Remark, Run, RunProgress, RunState, StepOutcome, StepRun
from fleetcast_scheduler.deployments.tables import DeploymentContentRow, DeploymentRow, RunRow, RunStepRow
from fleetcast_scheduler.sessions.rows import Row, admission_of, rate_of, rules_of, slow_policy_of

_DEPLOYMENT_COLUMNS = tuple(DeploymentRow.model_fields)
_RUN_COLUMNS = tuple(RunRow.model_fields)
_STEP_COLUMNS = tuple(RunStepRow.model_fields)
_PROGRESS = tuple(RunProgress.__dataclass_fields__)
_TIMES = ("available_time", "deadline_time", "expiry_time")


def deployment_row(deployment: Deployment) -> Row:
    """Returns the row of a deployment."""
    row = {column: getattr(deployment, column) for column in _DEPLOYMENT_COLUMNS}
    return row | {
        "phases": [asdict(phase) for phase in deployment.phases],
        "session": asdict(deployment.session),
        "counts": dict(deployment.counts),
        **{field: _time_text(getattr(deployment, field)) for field in _TIMES},
    }


def deployment_of(row: DeploymentRow) -> Deployment:
    """Returns the deployment of a row, without runs and content but with its counts."""
    values = {column: getattr(row, column) for column in _DEPLOYMENT_COLUMNS}
    session = row.session
    return Deployment(
        **values
        | {
            "purpose": Purpose(row.purpose),
            "rerun": Rerun(row.rerun),
            "state": DeploymentState(row.state),
            "phases": tuple(Phase(**phase) for phase in row.phases),
            "session": SessionTemplate(
                rules=rules_of(session["rules"]),
                rate=rate_of(session["rate"]),
                admission=admission_of(session["admission"]),
                priority=session["priority"],
                slow_policy=slow_policy_of(session["slow_policy"]),
                site=session["site"],
                any_site=session.get("any_site", False),
            ),
            "counts": Counter(row.counts),
            **{field: _time_of(getattr(row, field)) for field in _TIMES},
        }
    )


def content_row(deployment: Deployment) -> Row:
    """Returns the row of what a deployment has machines run."""
    content = deployment.pinned
    return {
        "deployment": deployment.name,
        "task_sequence": content.task_sequence,
        "digest": content.digest,
        "images": [asdict(image) for image in content.images],
        "uploads": list(content.uploads),
    }


def content_of(row: DeploymentContentRow) -> Content:
    """Returns what a deployment has machines run."""
    return Content(
        images=tuple(DeployedImage(**image) for image in row.images),
        task_sequence=row.task_sequence,
        digest=row.digest,
        uploads=tuple(row.uploads),
    )


def run_row(run: Run) -> Row:
    """Returns the row of a run."""
    row = {column: getattr(run, column) for column in _RUN_COLUMNS}
    row["progress"] = {field: getattr(run.progress, field) for field in _PROGRESS}
    row["remarks"] = [asdict(remark) for remark in run.remarks]
    row["ending"] = None if run.ending is None else asdict(run.ending)
    return row


def run_of(row: RunRow) -> Run:
    """Returns the run of a row, without its steps."""
    values = {column: getattr(row, column) for column in _RUN_COLUMNS}
    ending = None if row.ending is None else Ending(**row.ending | {"state": RunState(row.ending["state"])})
    return Run(
        **values
        | {
            "state": RunState(row.state),
            "progress": RunProgress(**row.progress),
            "remarks": tuple(Remark(**remark) for remark in row.remarks),
            "ending": ending,
        }
    )


def step_row(step: StepRun) -> Row:
    """Returns the row of a step."""
    return {column: getattr(step, column) for column in _STEP_COLUMNS} | {"remarks": list(step.remarks)}


def step_of(row: RunStepRow) -> StepRun:
    """Returns the step of a row."""
    values = {column: getattr(row, column) for column in _STEP_COLUMNS}
    return StepRun(**values | {"outcome": StepOutcome(row.outcome), "remarks": tuple(row.remarks)})


def _time_text(time: ScheduleTime | None) -> str:
    """Returns an instant as `@SECONDS`, a local time as ISO 8601, nothing as nothing."""
    if time is None:
        return ""
    return time.local.isoformat() if time.local is not None else f"@{time.utc!r}"


def _time_of(text: str) -> ScheduleTime | None:
    if not text:
        return None
    if text.startswith("@"):
        return ScheduleTime(utc=float(text[1:]))
    return ScheduleTime(local=datetime.fromisoformat(text))
