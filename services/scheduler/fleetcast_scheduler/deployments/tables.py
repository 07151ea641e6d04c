"""The tables of deployments."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Index
from sqlmodel import Field, SQLModel

from fleetcast_scheduler.columns import bytes_, instant, integer, json_, text


class MachineContactRow(SQLModel, table=True):
    """When a machine's agent was last heard."""

    __tablename__ = "attendance"

    machine: str = text(primary_key=True)
    contact_time: float = instant()


class DeploymentRow(SQLModel, table=True):
    """A deployment, without its runs."""

    __tablename__ = "deployment"
    __table_args__ = (Index("deployment_by_create_time", "create_time", "name"),)

    name: str = text(primary_key=True)
    description: str = text()
    collection: str = text()
    content: str = text()
    purpose: str = text()
    available_time: str = text()
    deadline_time: str = text()
    expiry_time: str = text()
    rerun: str = text()
    max_run_seconds: float = instant()
    ignore_maintenance_windows: bool
    wake: bool
    phases: list[dict[str, Any]] = json_()
    current_phase: int = integer()
    phase_success_time: float | None = instant(nullable=True)
    variables: dict[str, str] = json_()
    session: dict[str, Any] = json_()
    state: str = text(index=True)
    waiting_reason: str = text()
    create_time: float = instant()
    end_time: float | None = instant(nullable=True)
    counts: dict[str, int] = json_()
    settled: bool = Field(index=True)
    traceparent: str = text()
    request_id: str = text(index=True)
    revision: int = integer()
    edit_count: int = integer()


class DeploymentContentRow(SQLModel, table=True):
    """What a deployment has machines run: written once."""

    __tablename__ = "deployment_content"

    deployment: str = text(primary_key=True)
    task_sequence: bytes = bytes_()
    digest: str = text()
    images: list[dict[str, Any]] = json_()
    uploads: list[str] = json_()


class RunRow(SQLModel, table=True):
    """One machine's part in a deployment, once."""

    __tablename__ = "run"
    __table_args__ = (
        Index("run_by_deployment", "deployment", "create_time", "name"),
        Index("run_by_machine", "machine", "create_time", "name"),
    )

    name: str = text(primary_key=True)
    deployment: str = text()
    machine: str = text()
    display_name: str = text()
    number: int = integer()
    place: int = integer()
    attempt: int = integer()
    state: str = text()
    reason: str = text()
    wanted: bool
    excepted: bool
    variables: dict[str, Any] | None = json_(nullable=True)
    progress: dict[str, Any] = json_()
    error: str = text()
    output_tail: str = text()
    remarks: list[dict[str, str]] = json_()
    create_time: float = instant()
    start_time: float | None = instant(nullable=True)
    limit_time: float | None = instant(nullable=True)
    pause_time: float | None = instant(nullable=True)
    restart_time: float | None = instant(nullable=True)
    restart_environment: str = text(server_default="")
    end_time: float | None = instant(nullable=True)
    contact_time: float | None = instant(nullable=True)
    ending: dict[str, Any] | None = json_(nullable=True)
    wake_time: float | None = instant(nullable=True)
    wake_count: int = integer()
    has_log: bool
    revision: int = integer()


class RunStepRow(SQLModel, table=True):
    """One attempt of one step of a run."""

    __tablename__ = "run_step"

    run: str = text(primary_key=True)
    number: int = integer(primary_key=True)
    node: str = text()
    step_name: str = text()
    attempt: int = integer()
    outcome: str = text()
    message: str = text()
    remarks: list[str] = json_()
    start_time: float | None = instant(nullable=True)
    end_time: float | None = instant(nullable=True)


class RunLogRow(SQLModel, table=True):
    """A piece of the log of a run."""

    __tablename__ = "run_log"

    run: str = text(primary_key=True)
    number: int = integer(primary_key=True)
    data: bytes = bytes_()
