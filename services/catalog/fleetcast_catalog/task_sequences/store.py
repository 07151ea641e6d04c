"""Task sequence versions in the database: every question the catalog asks of their tables."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

from fleetcast_kit.database import Database
from fleetcast_kit.errors import FailedPreconditionError, NotFoundError
from fleetcast_sequence import from_canonical
from sqlmodel import col, delete, func, select
from sqlmodel.ext.asyncio.session import AsyncSession

from fleetcast_catalog.deletions import reclaimed_by, remember_deletion
from fleetcast_catalog.images.domain import Hold, Image, ImageName
from fleetcast_catalog.images.store import deployable_image
from fleetcast_catalog.images.tables import HoldRow
from fleetcast_catalog.task_sequences.domain import (
    ResolvedSequence,
    StoredSequence,
    TaskSequenceName,
    TaskSequenceVersion,
)
from fleetcast_catalog.task_sequences.resolution import resolve
from fleetcast_catalog.task_sequences.tables import (
    TaskSequenceContentRow,
    TaskSequenceHoldRow,
    TaskSequenceRow,
    version_of,
)


@dataclass(frozen=True)
class NewSequence:
    """A checked file, to become a version."""

    version: TaskSequenceVersion
    source: str
    canonical_form: bytes


class SessionLookup:
    """What there is, as the transaction of a session sees it."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def image(self, name: ImageName) -> Image:
        """Returns a version that may be deployed; see `Lookup`."""
        return await deployable_image(self._session, name)

    async def task_sequence(self, name: TaskSequenceName) -> StoredSequence:
        """Returns a version; see `Lookup`."""
        row = await _get(self._session, name)
        content = await self._session.get_one(TaskSequenceContentRow, row.id)
        return StoredSequence(await _with_holders(self._session, row), from_canonical(content.canonical_form))


class SequenceStore:
    """Task sequence versions in the database. Rules that read and then write hold `deciding`, which images share."""

    def __init__(self, database: Database, deciding: asyncio.Lock) -> None:
        self._database = database
        self._deciding = deciding

    @asynccontextmanager
    async def looking(self) -> AsyncIterator[SessionLookup]:
        """Yields what there is, in one state."""
        async with self._database.session(reads_only=True) as session:
            yield SessionLookup(session)

    async def add(self, new: NewSequence, now: datetime) -> tuple[TaskSequenceVersion, bool]:
        """Stores a version unless the series has its digest; returns it, and whether it is new."""
        version = new.version
        async with self._deciding, self._database.session() as session:
            row = await _find(session, TaskSequenceName(version.task_sequence, version.digest))
            if row is not None:
                return await _with_holders(session, row), False
            row = TaskSequenceRow(
                task_sequence=version.task_sequence,
                digest=version.digest,
                description=version.description,
                step_count=version.step_count,
                source_file=version.source_file,
                create_time=now,
            )
            session.add(row)
            await session.flush()
            added = version_of(row)
            session.add(
                TaskSequenceContentRow(task_sequence_id=added.id, source=new.source, canonical_form=new.canonical_form)
            )
            return added, True

    async def source(self, name: TaskSequenceName) -> tuple[TaskSequenceVersion, str]:
        """Returns a version with the text it was made of.

        Raises:
            NotFoundError: there is no such version.
        """
        async with self._database.session(reads_only=True) as session:
            row = await _get(session, name)
            content = await session.get_one(TaskSequenceContentRow, row.id)
            return await _with_holders(session, row), content.source

    async def page(
        self, series: str, before_id: int | None, limit: int, *, newest_only: bool
    ) -> list[TaskSequenceVersion]:
        """Returns up to `limit` versions, newest first, of one series if `series` is not empty."""
        query = select(TaskSequenceRow).order_by(col(TaskSequenceRow.id).desc()).limit(limit)
        if series:
            query = query.where(col(TaskSequenceRow.task_sequence) == series)
        if newest_only:
            newest = select(func.max(TaskSequenceRow.id)).group_by(col(TaskSequenceRow.task_sequence))
            query = query.where(col(TaskSequenceRow.id).in_(newest))
        if before_id is not None:
            query = query.where(col(TaskSequenceRow.id) < before_id)
        async with self._database.session(reads_only=True) as session:
            rows = (await session.exec(query)).all()
            holders = await _holders(session, [row.id for row in rows])
            return [version_of(row, holders.get(row.id, ())) for row in rows]

    async def delete(self, name: TaskSequenceName, request_id: str, now: datetime) -> TaskSequenceVersion | None:
        """Deletes a version, without a digest the only one, and returns it; None if this request deleted it before.

        Raises:
            NotFoundError: there is no such version.
            FailedPreconditionError: somebody needs it, or it is one of several that `name` means.
        """
        async with self._deciding, self._database.session() as session:
            if request_id and await reclaimed_by(session, request_id) is not None:
                return None
            row = await _get(session, name)
            if not name.digest:
                series = select(TaskSequenceRow.id).where(col(TaskSequenceRow.task_sequence) == name.task_sequence)
                if len((await session.exec(series.limit(2))).all()) > 1:
                    raise FailedPreconditionError(
                        f"task sequence {name.task_sequence} has several versions: say which one, as "
                        "NAME@sha256:DIGEST",
                        reason="TASK_SEQUENCE_AMBIGUOUS",
                    )
            version = await _with_holders(session, row)
            version.check_deletable()
            await session.exec(
                delete(TaskSequenceContentRow).where(col(TaskSequenceContentRow.task_sequence_id) == version.id)
            )
            await session.delete(row)
            await remember_deletion(session, request_id, 0, now)
            return version

    async def hold(self, name: TaskSequenceName, holder: str) -> ResolvedSequence:
        """Resolves a version, and records that `holder` needs it and all that it needs, and nothing else from now on.

        Raises:
            NotFoundError: there is no such version.
            FailedPreconditionError: references are broken.
        """
        async with self._deciding, self._database.session() as session:
            lookup = SessionLookup(session)
            resolved = await resolve(await lookup.task_sequence(name), lookup)
            await _release(session, holder)
            held = {version.id for version in (resolved.version, *resolved.children)}
            session.add_all(TaskSequenceHoldRow(task_sequence_id=version_id, holder=holder) for version_id in held)
            session.add_all(HoldRow(image_id=image.id, holder=holder) for image in resolved.images)
            return resolved

    async def release(self, holder: str) -> None:
        """Removes all holds of `holder`, of task sequences and of images."""
        async with self._deciding, self._database.session() as session:
            await _release(session, holder)

    async def holds(self, holder_prefix: str) -> list[Hold]:
        """Returns the holds of task sequences whose holder starts with `holder_prefix`."""
        async with self._database.session(reads_only=True) as session:
            query = (
                select(TaskSequenceRow, TaskSequenceHoldRow)
                .where(TaskSequenceRow.id == TaskSequenceHoldRow.task_sequence_id)
                .where(col(TaskSequenceHoldRow.holder).startswith(holder_prefix, autoescape=True))
                .order_by(col(TaskSequenceHoldRow.holder), col(TaskSequenceRow.id))
            )
            return [Hold(version_of(row).name, hold.holder) for row, hold in (await session.exec(query)).all()]


async def _release(session: AsyncSession, holder: str) -> None:
    await session.exec(delete(TaskSequenceHoldRow).where(col(TaskSequenceHoldRow.holder) == holder))
    await session.exec(delete(HoldRow).where(col(HoldRow.holder) == holder))


async def _find(session: AsyncSession, name: TaskSequenceName) -> TaskSequenceRow | None:
    query = select(TaskSequenceRow).where(col(TaskSequenceRow.task_sequence) == name.task_sequence)
    if name.digest:
        query = query.where(col(TaskSequenceRow.digest) == name.digest)
    row: TaskSequenceRow | None = (await session.exec(query.order_by(col(TaskSequenceRow.id).desc()).limit(1))).first()
    return row


async def _get(session: AsyncSession, name: TaskSequenceName) -> TaskSequenceRow:
    row = await _find(session, name)
    if row is not None:
        return row
    problem = f"there is no task sequence {name.task_sequence}"
    if name.digest and await _find(session, TaskSequenceName(name.task_sequence)) is not None:
        problem = f"task sequence {name.task_sequence} has no version {name.digest}"
    raise NotFoundError(
        f"{problem}: `fleetcast task-sequence list` shows what there is",
        reason="TASK_SEQUENCE_NOT_FOUND",
        metadata={"name": str(name)},
    )


async def _holders(session: AsyncSession, version_ids: Iterable[int | None]) -> dict[int | None, list[str]]:
    holders: dict[int | None, list[str]] = {}
    query = select(TaskSequenceHoldRow).where(col(TaskSequenceHoldRow.task_sequence_id).in_(version_ids))
    for row in (await session.exec(query.order_by(col(TaskSequenceHoldRow.holder)))).all():
        holders.setdefault(row.task_sequence_id, []).append(row.holder)
    return holders


async def _with_holders(session: AsyncSession, row: TaskSequenceRow) -> TaskSequenceVersion:
    return version_of(row, (await _holders(session, [row.id])).get(row.id, ()))
