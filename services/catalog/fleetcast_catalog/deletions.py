"""The deletions that were carried out, remembered for a day to answer their retries."""

from __future__ import annotations

from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlmodel import Field, SQLModel, col, delete
from sqlmodel.ext.asyncio.session import AsyncSession

from fleetcast_catalog.instants import Instant

_REMEMBER_DELETIONS = timedelta(days=1)


class DeletionRow(SQLModel, table=True):
    """A deletion that was carried out, to answer its retry."""

    __tablename__ = "deletion"

    request_id: str = Field(primary_key=True)
    reclaimed_bytes: int = Field(sa_type=sa.BigInteger)
    create_time: datetime = Field(sa_type=Instant)


async def remember_deletion(session: AsyncSession, request_id: str, reclaimed_bytes: int, now: datetime) -> None:
    """Records a deletion and what it gave back; without a `request_id` there is nothing to record."""
    await session.exec(delete(DeletionRow).where(col(DeletionRow.create_time) < now - _REMEMBER_DELETIONS))
    if request_id:
        await session.merge(DeletionRow(request_id=request_id, reclaimed_bytes=reclaimed_bytes, create_time=now))


async def reclaimed_by(session: AsyncSession, request_id: str) -> int | None:
    """Returns what the deletion with `request_id` gave back, if it was carried out."""
    row = await session.get(DeletionRow, request_id)
    return row.reclaimed_bytes if row else None
