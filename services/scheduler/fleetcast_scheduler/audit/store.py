"""The record in the database."""

from __future__ import annotations

from fleetcast_kit.database import Database
from sqlalchemy import tuple_
from sqlmodel import col, select

from fleetcast_scheduler.audit.tables import AuditRow


class AuditStore:
    """The table of the audit, read; entries are written with what they tell of."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find_audited(self, request_id: str) -> str | None:
        """Returns the resource of the entry with a request id, or None."""
        statement = select(AuditRow.resource).where(col(AuditRow.request_id) == request_id).limit(1)
        async with self._database.session(reads_only=True) as session:
            return (await session.exec(statement)).first()

    async def list_audit(
        self, after: tuple[float, str] | None, limit: int, *, resource: str, caller: str
    ) -> list[AuditRow]:
        """Returns entries, newest first, after a time and name in that order; empty filters let all through."""
        key = (col(AuditRow.time), col(AuditRow.name))
        statement = select(AuditRow).order_by(*(column.desc() for column in key)).limit(limit)
        if after is not None:
            statement = statement.where(tuple_(*key) < after)
        if resource:
            statement = statement.where(col(AuditRow.resource) == resource)
        if caller:
            statement = statement.where(col(AuditRow.caller) == caller)
        async with self._database.session(reads_only=True) as session:
            return list(await session.exec(statement))
