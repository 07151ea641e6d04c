"""Reads and writes the tables of enrolment."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from fleetcast_kit.database import Database
from fleetcast_kit.identity.peer import Identity, Role
from sqlalchemy import CursorResult, func, tuple_
from sqlalchemy.exc import IntegrityError
from sqlmodel import and_, case, col, delete, select, update
from sqlmodel.ext.asyncio.session import AsyncSession

from fleetcast_scheduler.enrolment.domain import TokenPurpose, TokenRecord
from fleetcast_scheduler.enrolment.tables import EnrolmentRow, EnrolmentTokenRow


class EnrolmentStore:
    """Reads and writes both tables."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, record: TokenRecord) -> TokenRecord:
        """Returns `record`, now stored, or the token of that id that was there before."""
        try:
            async with self._database.session() as session:
                present = await session.get(EnrolmentTokenRow, record.id)
                if present is None:
                    session.add(_row(record))
                    return record
                return _record(present)
        except IntegrityError:
            async with self._database.session(reads_only=True) as session:
                return _record(await session.get_one(EnrolmentTokenRow, record.id))

    async def get(self, token_id: str) -> TokenRecord | None:
        """Returns a token, or None."""
        async with self._database.session(reads_only=True) as session:
            row = await session.get(EnrolmentTokenRow, token_id)
            return _record(row) if row else None

    async def list(self, limit: int, after: tuple[float, str] | None) -> Sequence[TokenRecord]:
        """Returns at most `limit` tokens, newest first, after the position (create time, id)."""
        position = tuple_(col(EnrolmentTokenRow.create_time), col(EnrolmentTokenRow.id))
        statement = select(EnrolmentTokenRow)
        if after is not None:
            statement = statement.where(position < after)
        statement = statement.order_by(col(EnrolmentTokenRow.create_time).desc(), col(EnrolmentTokenRow.id).desc())
        async with self._database.session(reads_only=True) as session:
            return [_record(row) for row in await session.exec(statement.limit(limit))]

    async def list_trusted(self, now: datetime, remembered: timedelta, limit: int) -> Sequence[TokenRecord]:
        """Returns at most `limit` tokens whose holders are let in: working ones, then those that ended lately."""
        statement = (
            select(EnrolmentTokenRow)
            .where(col(EnrolmentTokenRow.expire_time) > (now - remembered).timestamp())
            .order_by(case((_is_active(now), 0), else_=1), col(EnrolmentTokenRow.create_time).desc())
            .limit(limit)
        )
        async with self._database.session(reads_only=True) as session:
            return [_record(row) for row in await session.exec(statement)]

    async def count_active(self, now: datetime) -> int:
        """Returns how many tokens can still be used."""
        statement = select(func.count()).select_from(EnrolmentTokenRow).where(_is_active(now))
        async with self._database.session(reads_only=True) as session:
            return (await session.exec(statement)).one()

    async def revoke(self, token_id: str, now: datetime) -> TokenRecord | None:
        """Returns the token, revoked now unless it was before; None if there is none."""
        async with self._database.session() as session:
            row = await session.get(EnrolmentTokenRow, token_id, with_for_update=True)
            if row is None:
                return None
            if row.revoke_time is None:
                row.revoke_time = now.timestamp()
            return _record(row)

    async def code_of(self, name: str) -> str:
        """Returns the code of an identity that knocked; empty for others."""
        statement = select(EnrolmentRow.code).where(col(EnrolmentRow.name) == name)
        async with self._database.session(reads_only=True) as session:
            return (await session.exec(statement)).first() or ""

    async def pass_on(self, *, public_key_digest: str, identity: Identity, display_name: str, now: datetime) -> None:
        """Gives an identity to another key, in place of the one that has it."""
        row = EnrolmentRow(
            public_key_digest=public_key_digest,
            role=identity.role.value,
            name=identity.name,
            display_name=display_name,
            token_id="",
            enrol_time=now.timestamp(),
        )
        async with self._database.session() as session:
            await session.exec(delete(EnrolmentRow).where(col(EnrolmentRow.name) == identity.name))
            await session.merge(row)

    async def enrol(
        self,
        token_id: str,
        *,
        public_key_digest: str,
        identity: Identity,
        display_name: str,
        now: datetime,
        code: str = "",
    ) -> str | None:
        """Returns the name that the key has in the role of `identity`: the present one, or `identity` for one use.

        None if the token does not work now, or has no use left. `code` is kept with the identity.
        """
        enrolment = EnrolmentRow(
            public_key_digest=public_key_digest,
            role=identity.role.value,
            name=identity.name,
            display_name=display_name,
            token_id=token_id,
            code=code,
            enrol_time=now.timestamp(),
        )
        try:
            return await self._enrol(enrolment, now)
        except IntegrityError:
            # The same key enrolled at the same moment over another connection; its row is there now.
            return await self._enrol(enrolment.model_copy(), now)

    async def _enrol(self, enrolment: EnrolmentRow, now: datetime) -> str | None:
        async with self._database.session() as session:
            token = await session.get(EnrolmentTokenRow, enrolment.token_id)
            if token is None or token.revoke_time is not None or token.expire_time <= now.timestamp():
                return None
            present = await session.get(EnrolmentRow, (enrolment.public_key_digest, enrolment.role))
            if present is not None:
                return present.name
            if not await _use_once(session, enrolment.token_id, now):
                return None
            session.add(enrolment)
            return enrolment.name


async def _use_once(session: AsyncSession, token_id: str, now: datetime) -> bool:
    """Counts one use, unless none is left: in one statement, so that no two callers get the last one."""
    statement = (
        update(EnrolmentTokenRow)
        .where(col(EnrolmentTokenRow.id) == token_id, _is_active(now))
        .values(used_count=EnrolmentTokenRow.used_count + 1)
        .execution_options(synchronize_session=False)
    )
    result: CursorResult[Any] = await session.exec(statement)
    return result.rowcount == 1


def _is_active(now: datetime) -> Any:
    return and_(
        col(EnrolmentTokenRow.revoke_time).is_(None),
        col(EnrolmentTokenRow.expire_time) > now.timestamp(),
        col(EnrolmentTokenRow.used_count) < col(EnrolmentTokenRow.uses),
    )


def _row(record: TokenRecord) -> EnrolmentTokenRow:
    return EnrolmentTokenRow(
        id=record.id,
        role=record.role.value,
        uses=record.uses,
        used_count=record.used_count,
        create_time=record.create_time.timestamp(),
        expire_time=record.expire_time.timestamp(),
        revoke_time=record.revoke_time.timestamp() if record.revoke_time else None,
        creator=record.creator,
        root_pem=record.root_pem.decode(),
        purpose=record.purpose.value,
    )


def _record(row: EnrolmentTokenRow) -> TokenRecord:
    return TokenRecord(
        id=row.id,
        role=Role(row.role),
        uses=row.uses,
        used_count=row.used_count,
        create_time=datetime.fromtimestamp(row.create_time, UTC),
        expire_time=datetime.fromtimestamp(row.expire_time, UTC),
        revoke_time=datetime.fromtimestamp(row.revoke_time, UTC) if row.revoke_time is not None else None,
        creator=row.creator,
        root_pem=row.root_pem.encode(),
        purpose=TokenPurpose(row.purpose),
    )
