"""Deployments and runs in the database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from fleetcast_kit.database import Database
from sqlalchemy import tuple_, update
from sqlmodel import col, delete, select
from sqlmodel.ext.asyncio.session import AsyncSession

from fleetcast_scheduler.audit.tables import AuditRow
from fleetcast_scheduler.deployments.domain.deployment import Deployment
from fleetcast_scheduler.deployments.domain.run import Run, StepRun
from fleetcast_scheduler.deployments.rows import content_of, deployment_of, run_of, step_of
from fleetcast_scheduler.deployments.tables import (
    DeploymentContentRow,
    DeploymentRow,
    MachineContactRow,
    RunLogRow,
    RunRow,
    RunStepRow,
)
from fleetcast_scheduler.sessions.rows import Row
from fleetcast_scheduler.sessions.store import upsert


@dataclass(slots=True)
class RunBatch:
    """Rows to be written together."""

    deployments: list[Row] = field(default_factory=list)
    contents: list[Row] = field(default_factory=list)
    runs: list[Row] = field(default_factory=list)
    steps: list[Row] = field(default_factory=list)
    attendances: list[Row] = field(default_factory=list)
    audit: list[Row] = field(default_factory=list)

    def __bool__(self) -> bool:
        return any((self.deployments, self.contents, self.runs, self.steps, self.attendances, self.audit))


class DeploymentStore:
    """The tables of deployments."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def write(self, batch: RunBatch) -> None:
        """Makes a batch durable, all of it or nothing."""
        async with self._database.session() as session:
            await upsert(session, DeploymentRow, batch.deployments)
            await upsert(session, DeploymentContentRow, batch.contents)
            await upsert(session, RunRow, batch.runs)
            await upsert(session, RunStepRow, batch.steps)
            await upsert(session, MachineContactRow, batch.attendances)
            await upsert(session, AuditRow, batch.audit)

    async def load_open(self) -> list[Deployment]:
        """Returns the deployments that are not settled, with the last runs of their machines."""
        async with self._database.session(reads_only=True) as session:
            rows = await session.exec(select(DeploymentRow).where(col(DeploymentRow.settled).is_(False)))
            return [await _complete(session, deployment_of(row)) for row in list(rows)]

    async def find(self, name: str) -> Deployment | None:
        """Returns a deployment with the last runs of its machines, or None."""
        async with self._database.session(reads_only=True) as session:
            row = await session.get(DeploymentRow, name)
            return None if row is None else await _complete(session, deployment_of(row))

    async def find_request(self, request_id: str) -> str | None:
        """Returns the name of the deployment that a request made, or None."""
        async with self._database.session(reads_only=True) as session:
            statement = select(DeploymentRow.name).where(col(DeploymentRow.request_id) == request_id)
            return (await session.exec(statement)).first()

    async def content(self, name: str) -> str:
        """Returns what a deployment deploys; empty if there is none of that name."""
        async with self._database.session(reads_only=True) as session:
            statement = select(DeploymentRow.content).where(col(DeploymentRow.name) == name)
            return (await session.exec(statement)).first() or ""

    async def list_deployments(self, after: tuple[float, str] | None, limit: int) -> list[Deployment]:
        """Returns deployments without runs, newest first, after a creation time and name in that order."""
        key = (col(DeploymentRow.create_time), col(DeploymentRow.name))
        statement = select(DeploymentRow).order_by(*(column.desc() for column in key)).limit(limit)
        if after is not None:
            statement = statement.where(tuple_(*key) < after)
        async with self._database.session(reads_only=True) as session:
            return [deployment_of(row) for row in await session.exec(statement)]

    async def list_runs(
        self, after: tuple[float, str] | None, limit: int, *, deployment: str = "", machine: str = ""
    ) -> list[Run]:
        """Returns runs, newest first, after a creation time and name in that order."""
        key = (col(RunRow.create_time), col(RunRow.name))
        statement = select(RunRow).order_by(*(column.desc() for column in key)).limit(limit)
        if after is not None:
            statement = statement.where(tuple_(*key) < after)
        if deployment:
            statement = statement.where(col(RunRow.deployment) == deployment)
        if machine:
            statement = statement.where(col(RunRow.machine) == machine)
        async with self._database.session(reads_only=True) as session:
            return [run_of(row) for row in await session.exec(statement)]

    async def find_run(self, name: str) -> Run | None:
        """Returns a run, or None."""
        async with self._database.session(reads_only=True) as session:
            row = await session.get(RunRow, name)
            return None if row is None else run_of(row)

    async def list_steps(self, run: str) -> list[StepRun]:
        """Returns the steps of a run, in the order in which they began."""
        async with self._database.session(reads_only=True) as session:
            return await _steps(session, run)

    async def contact_times(self) -> dict[str, float]:
        """Returns when each machine was last heard."""
        async with self._database.session(reads_only=True) as session:
            return {row.machine: row.contact_time for row in await session.exec(select(MachineContactRow))}

    # Logs

    async def put_log_piece(self, upload: str, number: int, data: bytes) -> None:
        """Stores a piece of a log that is being uploaded."""
        async with self._database.session() as session:
            session.add(RunLogRow(run=upload, number=number, data=data))

    async def finish_log(self, upload: str, run: str) -> None:
        """Makes an upload the log of a run, instead of what was its log before."""
        async with self._database.session() as session:
            await session.exec(delete(RunLogRow).where(col(RunLogRow.run) == run))
            await session.exec(update(RunLogRow).where(col(RunLogRow.run) == upload).values(run=run))
            await session.exec(update(RunRow).where(col(RunRow.name) == run).values(has_log=True))

    async def forget_log(self, upload: str) -> None:
        """Drops what was uploaded of a log."""
        async with self._database.session() as session:
            await session.exec(delete(RunLogRow).where(col(RunLogRow.run) == upload))

    async def forget_unfinished_logs(self) -> None:
        """Removes the pieces of uploads that were interrupted. Call it before an upload begins."""
        async with self._database.session() as session:
            await session.exec(delete(RunLogRow).where(col(RunLogRow.run).contains("#")))

    async def read_log(self, run: str) -> AsyncIterator[bytes]:
        """Yields the log of a run, piece by piece, as it was when each was read."""
        number = 0
        while True:
            async with self._database.session(reads_only=True) as session:
                row = await session.get(RunLogRow, (run, number))
            if row is None:
                return
            yield row.data
            number += 1


async def _complete(session: AsyncSession, deployment: Deployment) -> Deployment:
    """Returns a deployment with its content, the last runs of its machines, and the steps of those that are open."""
    content = await session.get(DeploymentContentRow, deployment.name)
    if content is not None:
        deployment.pinned = content_of(content)
    deployment.counts.clear()
    statement = (
        select(RunRow)
        .where(col(RunRow.deployment) == deployment.name)
        .order_by(col(RunRow.place), col(RunRow.machine), col(RunRow.number))
    )
    for row in await session.exec(statement):
        deployment.put(run_of(row))
    for run in deployment.open_runs:
        for step in await _steps(session, run.name):
            run.steps[step.node, step.attempt, step.start_time] = step
    return deployment


async def _steps(session: AsyncSession, run: str) -> list[StepRun]:
    statement = select(RunStepRow).where(col(RunStepRow.run) == run).order_by(col(RunStepRow.number))
    return [step_of(row) for row in await session.exec(statement)]
