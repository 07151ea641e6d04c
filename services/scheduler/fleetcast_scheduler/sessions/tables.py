"""The scheduler's tables. Instants are seconds since the epoch, UTC; structures that no query looks into are JSON."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, BigInteger, Column, Double, Index, LargeBinary, Text
from sqlmodel import Field, SQLModel


def _text(**options: Any) -> Any:
    return Field(sa_column=Column(Text, nullable=False, **options))


def _integer(**options: Any) -> Any:
    return Field(sa_column=Column(BigInteger, nullable=False, **options))


def _time(*, nullable: bool = False) -> Any:
    return Field(sa_column=Column(Double, nullable=nullable))


def _json(*, nullable: bool = False) -> Any:
    return Field(sa_column=Column(JSON(none_as_null=True), nullable=nullable))


def _bytes() -> Any:
    return Field(sa_column=Column(LargeBinary, nullable=False))


class SessionRow(SQLModel, table=True):
    """A session, without its participants."""

    __tablename__ = "session"
    __table_args__ = (Index("session_by_create_time", "create_time", "name"),)

    name: str = _text(primary_key=True)
    image: str = _text()
    image_size_bytes: int = _integer()
    mode: str = _text()
    state: str = _text(index=True)
    rules: dict[str, Any] = _json()
    rate: dict[str, Any] = _json()
    create_time: float = _time()
    start_time: float | None = _time(nullable=True)
    end_time: float | None = _time(nullable=True)
    first_join_time: float | None = _time(nullable=True)
    last_join_time: float | None = _time(nullable=True)
    lost_time: float | None = _time(nullable=True)
    idle_time: float | None = _time(nullable=True)
    retry_time: float | None = _time(nullable=True)
    waiting_reason: str = _text()
    error: str = _text()
    traceparent: str = _text()
    request_id: str = _text(index=True)
    transmission: str = _text()
    transmission_count: int = _integer()
    failure_count: int = _integer()
    start_requested: bool
    hold_released: bool = Field(index=True)
    counts: dict[str, int] = _json()
    admission: dict[str, Any] = _json()
    slow_policy: dict[str, Any] = _json()
    priority: int = _integer()
    site: str = _text()
    deployment: str = _text()
    collection: str = _text()
    series: dict[str, Any] | None = _json(nullable=True)
    closed: bool
    run: int = _integer()
    revision: int = _integer()
    edit_count: int = _integer()


class ParticipantRow(SQLModel, table=True):
    """One machine in one session."""

    __tablename__ = "participant"
    __table_args__ = (Index("participant_by_number", "session", "number"),)

    session: str = _text(primary_key=True)
    machine: str = _text(primary_key=True)
    number: int = _integer()
    state: str = _text()
    display_name: str = _text()
    unicast_only: bool
    no_multicast_reason: str = _text()
    apart: bool
    join_time: float = _time()
    contact_time: float = _time()
    end_time: float | None = _time(nullable=True)
    error: str = _text()
    totals: dict[str, Any] = _json()
    run: int = _integer()
    revision: int = _integer()


class SenderRow(SQLModel, table=True):
    """A sender that has registered at some time."""

    __tablename__ = "sender"

    name: str = _text(primary_key=True)
    registration: dict[str, Any] = _json()
    register_time: float = _time()
    contact_time: float = _time()
    draining: bool


class TransmissionRow(SQLModel, table=True):
    """What one sender did or does for one session."""

    __tablename__ = "transmission"

    name: str = _text(primary_key=True)
    session: str = _text(index=True)
    sender: str = _text()
    group: str = _text()
    port: int = _integer()
    state: str = _text(index=True)
    create_time: float = _time()
    release_time: float | None = _time(nullable=True)
    totals: dict[str, Any] = _json()


class AuditRow(SQLModel, table=True):
    """What somebody did."""

    __tablename__ = "audit"
    __table_args__ = (Index("audit_by_time", "time", "name"),)

    name: str = _text(primary_key=True)
    time: float = _time()
    caller: str = _text()
    action: str = _text()
    resource: str = _text(index=True)
    detail: dict[str, Any] = _json()
    request_id: str = _text(index=True)
    traceparent: str = _text()
    address: str = _text()


class MachineRow(SQLModel, table=True):
    """A machine."""

    __tablename__ = "machine"

    name: str = _text(primary_key=True)
    display_name: str = _text()
    state: str = _text()
    held_reason: str = _text()
    resembles: str = _text()
    inventory: dict[str, Any] = _json()
    variables: dict[str, str] = _json()
    protected: bool
    time_zone: str = _text()
    create_time: float = _time()
    register_time: float | None = _time(nullable=True)
    edit_count: int = _integer()


class MachineIdentifierRow(SQLModel, table=True):
    """What can tell a machine from others."""

    __tablename__ = "machine_identifier"

    machine: str = _text(primary_key=True)
    kind: str = _text(primary_key=True)
    value: str = _text(primary_key=True, index=True)


class CollectionRow(SQLModel, table=True):
    """A collection, without its members."""

    __tablename__ = "collection"

    name: str = _text(primary_key=True)
    description: str = _text()
    rule: str = _text()
    variables: dict[str, str] = _json()
    protected: bool
    maintenance_windows: list[dict[str, Any]] = _json()
    create_time: float = _time()
    edit_count: int = _integer()


class MembershipRow(SQLModel, table=True):
    """A member of a collection by name."""

    __tablename__ = "membership"

    collection: str = _text(primary_key=True)
    machine: str = _text(primary_key=True, index=True)


class SettingRow(SQLModel, table=True):
    """What an operator set for the whole installation."""

    __tablename__ = "setting"

    name: str = _text(primary_key=True)
    value: dict[str, Any] = _json()


class AttendanceRow(SQLModel, table=True):
    """When a machine's agent was last heard."""

    __tablename__ = "attendance"

    machine: str = _text(primary_key=True)
    contact_time: float = _time()


class DeploymentRow(SQLModel, table=True):
    """A deployment, without its runs."""

    __tablename__ = "deployment"
    __table_args__ = (Index("deployment_by_create_time", "create_time", "name"),)

    name: str = _text(primary_key=True)
    description: str = _text()
    collection: str = _text()
    content: str = _text()
    purpose: str = _text()
    available_time: str = _text()
    deadline_time: str = _text()
    expiry_time: str = _text()
    rerun: str = _text()
    max_run_seconds: float = _time()
    ignore_maintenance_windows: bool
    wake: bool
    phases: list[dict[str, Any]] = _json()
    current_phase: int = _integer()
    phase_success_time: float | None = _time(nullable=True)
    variables: dict[str, str] = _json()
    session: dict[str, Any] = _json()
    state: str = _text(index=True)
    waiting_reason: str = _text()
    create_time: float = _time()
    end_time: float | None = _time(nullable=True)
    counts: dict[str, int] = _json()
    settled: bool = Field(index=True)
    traceparent: str = _text()
    request_id: str = _text(index=True)
    revision: int = _integer()
    edit_count: int = _integer()


class DeploymentContentRow(SQLModel, table=True):
    """What a deployment has machines run: written once."""

    __tablename__ = "deployment_content"

    deployment: str = _text(primary_key=True)
    task_sequence: bytes = _bytes()
    digest: str = _text()
    images: list[dict[str, Any]] = _json()
    uploads: list[str] = _json()


class RunRow(SQLModel, table=True):
    """One machine's part in a deployment, once."""

    __tablename__ = "run"
    __table_args__ = (
        Index("run_by_deployment", "deployment", "create_time", "name"),
        Index("run_by_machine", "machine", "create_time", "name"),
    )

    name: str = _text(primary_key=True)
    deployment: str = _text()
    machine: str = _text()
    display_name: str = _text()
    number: int = _integer()
    place: int = _integer()
    attempt: int = _integer()
    state: str = _text()
    reason: str = _text()
    wanted: bool
    excepted: bool
    variables: dict[str, Any] | None = _json(nullable=True)
    progress: dict[str, Any] = _json()
    error: str = _text()
    output_tail: str = _text()
    create_time: float = _time()
    start_time: float | None = _time(nullable=True)
    limit_time: float | None = _time(nullable=True)
    pause_time: float | None = _time(nullable=True)
    restart_time: float | None = _time(nullable=True)
    end_time: float | None = _time(nullable=True)
    contact_time: float | None = _time(nullable=True)
    ending: dict[str, Any] | None = _json(nullable=True)
    wake_time: float | None = _time(nullable=True)
    wake_count: int = _integer()
    has_log: bool
    revision: int = _integer()


class RunStepRow(SQLModel, table=True):
    """One attempt of one step of a run."""

    __tablename__ = "run_step"

    run: str = _text(primary_key=True)
    number: int = _integer(primary_key=True)
    node: str = _text()
    step_name: str = _text()
    attempt: int = _integer()
    outcome: str = _text()
    message: str = _text()
    start_time: float | None = _time(nullable=True)
    end_time: float | None = _time(nullable=True)


class RunLogRow(SQLModel, table=True):
    """A piece of the log of a run."""

    __tablename__ = "run_log"

    run: str = _text(primary_key=True)
    number: int = _integer(primary_key=True)
    data: bytes = _bytes()
