"""The catalog's tables. Only `store`, `sequence_store` and `deletions` use them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from fleetcast_catalog.images.domain import Image, ImageFormat, ImageState, WimImage
from fleetcast_catalog.task_sequences.domain import TaskSequenceVersion

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class _Instant(sa.TypeDecorator[datetime]):
    """An instant as microseconds since 1970: SQLite has no type that keeps the time zone."""

    impl = sa.BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> int | None:
        return None if value is None else (value - _EPOCH) // _MICROSECOND

    def process_result_value(self, value: int | None, dialect: sa.Dialect) -> datetime | None:
        return None if value is None else _EPOCH + value * _MICROSECOND


class ImageRow(SQLModel, table=True):
    """An image version."""

    __tablename__ = "image"
    __table_args__ = (sa.UniqueConstraint("image", "version"), {"sqlite_autoincrement": True})

    id: int | None = Field(default=None, primary_key=True)
    image: str
    version: str
    state: str = Field(index=True)
    format: int
    source_file: str
    request_id: str = Field(index=True)
    create_time: datetime = Field(sa_type=_Instant)
    ready_time: datetime | None = Field(default=None, sa_type=_Instant)
    verify_time: datetime | None = Field(default=None, sa_type=_Instant)
    size_bytes: int = Field(default=0, sa_type=sa.BigInteger)
    chunk_size_bytes: int
    chunk_count: int = Field(default=0, sa_type=sa.BigInteger)
    zero_chunk_count: int = Field(default=0, sa_type=sa.BigInteger)
    stored_bytes: int = Field(default=0, sa_type=sa.BigInteger)
    added_bytes: int = Field(default=0, sa_type=sa.BigInteger)
    damaged_chunk_count: int = Field(default=0, sa_type=sa.BigInteger)
    wim_images: str = Field(default="[]", sa_type=sa.Text)


class ChunkTableRow(SQLModel, table=True):
    """The packed chunk table of a version: one value, since 50,000 rows an image would only ever be read together."""

    __tablename__ = "chunk_table"

    image_id: int = Field(primary_key=True, foreign_key="image.id", ondelete="CASCADE")
    packed: bytes = Field(sa_type=sa.LargeBinary)


class HoldRow(SQLModel, table=True):
    """A resource that needs a version."""

    __tablename__ = "hold"

    image_id: int = Field(primary_key=True, foreign_key="image.id")
    holder: str = Field(primary_key=True)


class DeletionRow(SQLModel, table=True):
    """A deletion that was carried out, to answer its retry."""

    __tablename__ = "deletion"

    request_id: str = Field(primary_key=True)
    reclaimed_bytes: int = Field(sa_type=sa.BigInteger)
    create_time: datetime = Field(sa_type=_Instant)


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
    create_time: datetime = Field(sa_type=_Instant)


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


def image_of(row: ImageRow, holders: Iterable[str] = ()) -> Image:
    """Returns the version in a row that has been stored."""
    if row.id is None:
        raise ValueError("a row without id was never stored")
    wim_images = (WimImage(**image | {"languages": tuple(image["languages"])}) for image in json.loads(row.wim_images))
    return Image(
        id=row.id,
        image=row.image,
        version=row.version,
        state=ImageState(row.state),
        format=ImageFormat(row.format),
        source_file=row.source_file,
        create_time=row.create_time,
        size_bytes=row.size_bytes,
        chunk_size_bytes=row.chunk_size_bytes,
        chunk_count=row.chunk_count,
        zero_chunk_count=row.zero_chunk_count,
        stored_bytes=row.stored_bytes,
        added_bytes=row.added_bytes,
        ready_time=row.ready_time,
        verify_time=row.verify_time,
        damaged_chunk_count=row.damaged_chunk_count,
        wim_images=tuple(wim_images),
        holders=tuple(holders),
    )


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
