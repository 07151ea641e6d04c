"""The tables of sessions, senders and transmissions: written in one transaction."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Index
from sqlmodel import Field, SQLModel

from fleetcast_scheduler.columns import instant, integer, json_, text


class SessionRow(SQLModel, table=True):
    """A session, without its participants."""

    __tablename__ = "session"
    __table_args__ = (Index("session_by_create_time", "create_time", "name"),)

    name: str = text(primary_key=True)
    image: str = text()
    image_size_bytes: int = integer()
    mode: str = text()
    state: str = text(index=True)
    rules: dict[str, Any] = json_()
    rate: dict[str, Any] = json_()
    create_time: float = instant()
    start_time: float | None = instant(nullable=True)
    end_time: float | None = instant(nullable=True)
    first_join_time: float | None = instant(nullable=True)
    last_join_time: float | None = instant(nullable=True)
    lost_time: float | None = instant(nullable=True)
    idle_time: float | None = instant(nullable=True)
    retry_time: float | None = instant(nullable=True)
    waiting_reason: str = text()
    error: str = text()
    traceparent: str = text()
    request_id: str = text(index=True)
    transmission: str = text()
    transmission_count: int = integer()
    failure_count: int = integer()
    start_requested: bool
    hold_released: bool = Field(index=True)
    counts: dict[str, int] = json_()
    admission: dict[str, Any] = json_()
    slow_policy: dict[str, Any] = json_()
    priority: int = integer()
    site: str = text()
    any_site: bool
    deployment: str = text()
    collection: str = text()
    series: dict[str, Any] | None = json_(nullable=True)
    closed: bool
    run: int = integer()
    revision: int = integer()
    edit_count: int = integer()


class ParticipantRow(SQLModel, table=True):
    """One machine in one session."""

    __tablename__ = "participant"
    __table_args__ = (Index("participant_by_number", "session", "number"),)

    session: str = text(primary_key=True)
    machine: str = text(primary_key=True)
    number: int = integer()
    state: str = text()
    display_name: str = text()
    unicast_only: bool
    no_multicast_reason: str = text()
    apart: bool
    join_time: float = instant()
    contact_time: float = instant()
    end_time: float | None = instant(nullable=True)
    error: str = text()
    totals: dict[str, Any] = json_()
    run: int = integer()
    revision: int = integer()


class SenderRow(SQLModel, table=True):
    """A sender that has registered at some time."""

    __tablename__ = "sender"

    name: str = text(primary_key=True)
    registration: dict[str, Any] = json_()
    register_time: float = instant()
    contact_time: float = instant()
    draining: bool


class TransmissionRow(SQLModel, table=True):
    """What one sender did or does for one session."""

    __tablename__ = "transmission"

    name: str = text(primary_key=True)
    session: str = text(index=True)
    sender: str = text()
    group: str = text()
    port: int = integer()
    state: str = text(index=True)
    create_time: float = instant()
    release_time: float | None = instant(nullable=True)
    totals: dict[str, Any] = json_()
