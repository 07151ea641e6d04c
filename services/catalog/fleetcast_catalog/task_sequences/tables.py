"""The tables of task sequences."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from fleetcast_catalog.instants import Instant
from fleetcast_catalog.task_sequences.domain import TaskSequenceVersion


class TaskSequenceRow(SQLModel, table=True):
    """A task sequence version."""

    __tablename__ = "task_sequence"
    __table_args__ = (sa.UniqueConstraint("task_sequence", "digest"), {"sqlite_autoincrement": True})

    id: int | None = Field(default=None, primary_key=True)
    task_sequence: str
    digest: str
    description: str
    step_count: int
    source_file: str
    create_time: datetime = Field(sa_type=Instant)


class TaskSequenceContentRow(SQLModel, table=True):
    """What a version says: apart from its row, since lists do not need it."""

    __tablename__ = "task_sequence_content"

    task_sequence_id: int = Field(primary_key=True, foreign_key="task_sequence.id", ondelete="CASCADE")
    source: str = Field(sa_type=sa.Text)
    canonical_form: bytes = Field(sa_type=sa.LargeBinary)


class TaskSequenceHoldRow(SQLModel, table=True):
    """A resource that needs a version."""

    __tablename__ = "task_sequence_hold"

    task_sequence_id: int = Field(primary_key=True, foreign_key="task_sequence.id")
    holder: str = Field(primary_key=True)


def version_of(row: TaskSequenceRow, holders: Iterable[str] = ()) -> TaskSequenceVersion:
    """Returns the version in a row that has been stored."""
    if row.id is None:
        raise ValueError("a row without id was never stored")
    return TaskSequenceVersion(
        id=row.id,
        task_sequence=row.task_sequence,
        digest=row.digest,
        description=row.description,
        step_count=row.step_count,
        source_file=row.source_file,
        create_time=row.create_time,
        holders=tuple(holders),
    )
