"""The catalog's tables. Only `store`, `sequence_store` and `deletions` use them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from fleetcast_catalog.images.domain import Image, ImageFormat, ImageState, WimImage
from fleetcast_catalog.images.inspection.contents import NOT_LOOKED_INTO, ImageContents
from fleetcast_catalog.instants import Instant


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
    owner: str = Field(default="", sa_column_kwargs={"server_default": ""})
    request_id: str = Field(index=True)
    create_time: datetime = Field(sa_type=Instant)
    ready_time: datetime | None = Field(default=None, sa_type=Instant)
    verify_time: datetime | None = Field(default=None, sa_type=Instant)
    size_bytes: int = Field(default=0, sa_type=sa.BigInteger)
    chunk_size_bytes: int
    chunk_count: int = Field(default=0, sa_type=sa.BigInteger)
    zero_chunk_count: int = Field(default=0, sa_type=sa.BigInteger)
    stored_bytes: int = Field(default=0, sa_type=sa.BigInteger)
    added_bytes: int = Field(default=0, sa_type=sa.BigInteger)
    damaged_chunk_count: int = Field(default=0, sa_type=sa.BigInteger)
    wim_images: str = Field(default="[]", sa_type=sa.Text)
    contents: str | None = Field(default=None, sa_type=sa.Text)
    """ImageContents as JSON; None if nobody has looked."""


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
        owner=row.owner,
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
        contents=ImageContents.of(json.loads(row.contents)) if row.contents else NOT_LOOKED_INTO,
    )
