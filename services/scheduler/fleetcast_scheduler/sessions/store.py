"""Reads and writes the tables of sessions, senders and transmissions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from fleetcast_kit.database import Database
from sqlalchemy import Table, tuple_
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import SQLModel, col, or_, select
from sqlmodel.ext.asyncio.session import AsyncSession

from fleetcast_scheduler.audit.tables import AuditRow
from fleetcast_scheduler.senders.domain.sender import Sender
from fleetcast_scheduler.senders.domain.transmission import Transmission, TransmissionState
from fleetcast_scheduler.sessions.domain.session import Session, SessionState
from fleetcast_scheduler.sessions.rows import Row, participant_of, sender_of, session_of, transmission_of
from fleetcast_scheduler.sessions.tables import ParticipantRow, SenderRow, SessionRow, TransmissionRow

MIGRATIONS = "fleetcast_scheduler.migrations"

_FINAL_STATES = [state.value for state in SessionState if state.final]


@dataclass(slots=True)
class Batch:
    """Rows to be written together."""

    sessions: list[Row] = field(default_factory=list)
    participants: list[Row] = field(default_factory=list)
    senders: list[Row] = field(default_factory=list)
    transmissions: list[Row] = field(default_factory=list)
    audit: list[Row] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.sessions or self.participants or self.senders or self.transmissions or self.audit)


class Store:
    """The scheduler's tables."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def write(self, batch: Batch) -> None:
        """Makes a batch durable, all of it or nothing."""
        async with self._database.session() as session:
            await upsert(session, SenderRow, batch.senders)
            await upsert(session, SessionRow, batch.sessions)
            await upsert(session, ParticipantRow, batch.participants)
            await upsert(session, TransmissionRow, batch.transmissions)
            await upsert(session, AuditRow, batch.audit)

    async def load_open_sessions(self) -> list[Session]:
        """Returns the sessions that have not ended or still hold their image, with their participants."""
        unfinished = or_(col(SessionRow.state).not_in(_FINAL_STATES), col(SessionRow.hold_released).is_(False))
        async with self._database.session(reads_only=True) as session:
            sessions = {row.name: session_of(row) for row in await session.exec(select(SessionRow).where(unfinished))}
            for found in sessions.values():
                found.counts.clear()
            statement = (
                select(ParticipantRow)
                .join(SessionRow, col(SessionRow.name) == col(ParticipantRow.session))
                .where(unfinished)
                .order_by(col(ParticipantRow.session), col(ParticipantRow.number))
            )
            for row in await session.exec(statement):
                sessions[row.session].restore(participant_of(row))
        return list(sessions.values())

    async def load_senders(self) -> list[Sender]:
        """Returns every sender that has registered at some time."""
        async with self._database.session(reads_only=True) as session:
            return [sender_of(row) for row in await session.exec(select(SenderRow))]

    async def load_leases(self, now: float) -> list[Transmission]:
        """Returns the transmissions whose group and port nobody else may have yet."""
        leased = or_(
            col(TransmissionRow.state) != TransmissionState.ENDED.value, col(TransmissionRow.release_time) > now
        )
        async with self._database.session(reads_only=True) as session:
            return [transmission_of(row) for row in await session.exec(select(TransmissionRow).where(leased))]

    async def find_session(self, name: str) -> Session | None:
        """Returns a stored session with its participants, or None."""
        async with self._database.session(reads_only=True) as session:
            row = await session.get(SessionRow, name)
            if row is None:
                return None
            found = session_of(row)
            found.counts.clear()
            statement = (
                select(ParticipantRow).where(col(ParticipantRow.session) == name).order_by(col(ParticipantRow.number))
            )
            for participant in await session.exec(statement):
                found.restore(participant_of(participant))
            return found

    async def find_request(self, request_id: str) -> str | None:
        """Returns the name of the session that a request created, or None."""
        async with self._database.session(reads_only=True) as session:
            statement = select(SessionRow.name).where(col(SessionRow.request_id) == request_id)
            return (await session.exec(statement)).first()

    async def last_transmission(self, session_name: str) -> Transmission | None:
        """Returns the latest transmission of a session, or None."""
        statement = (
            select(TransmissionRow)
            .where(col(TransmissionRow.session) == session_name)
            .order_by(col(TransmissionRow.create_time).desc())
            .limit(1)
        )
        async with self._database.session(reads_only=True) as session:
            row = (await session.exec(statement)).first()
            return None if row is None else transmission_of(row)

    async def list_sessions(self, after: tuple[float, str] | None, limit: int) -> list[Session]:
        """Returns sessions without participants, newest first, after a creation time and name in that order."""
        key = (col(SessionRow.create_time), col(SessionRow.name))
        statement = select(SessionRow).order_by(*(column.desc() for column in key)).limit(limit)
        if after is not None:
            statement = statement.where(tuple_(*key) < after)
        async with self._database.session(reads_only=True) as session:
            return [session_of(row) for row in await session.exec(statement)]


async def upsert(session: AsyncSession, model: type[SQLModel], rows: Sequence[Row]) -> None:
    """Inserts rows, or replaces those with the same primary key."""
    if not rows:
        return
    table: Table = model.__table__  # type: ignore[attr-defined]
    dialect = session.get_bind().dialect.name
    insert = sqlite.insert(table) if dialect == "sqlite" else postgresql.insert(table)
    keys = [column.name for column in table.primary_key]
    replaced = {column.name: insert.excluded[column.name] for column in table.columns if column.name not in keys}
    await (await session.connection()).execute(
        insert.on_conflict_do_update(index_elements=keys, set_=replaced), list(rows)
    )
