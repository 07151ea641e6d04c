"""Windows and the policy for unknown machines in the database."""

from __future__ import annotations

from fleetcast_kit.database import Database
from sqlmodel import select

from fleetcast_scheduler.boot.domain.decision import Answer
from fleetcast_scheduler.boot.domain.windows import BootWindow
from fleetcast_scheduler.boot.tables import BootWindowRow
from fleetcast_scheduler.machines.tables import SettingRow

_POLICY = "boot_policy"


class BootStore:
    """Each method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def windows(self) -> list[BootWindow]:
        """Returns every window, also those that have ended."""
        async with self._database.session(reads_only=True) as session:
            rows = list(await session.exec(select(BootWindowRow)))
        return [BootWindow(row.collection, row.end_time, row.expected_count, tuple(row.admitted)) for row in rows]

    async def put_window(self, window: BootWindow) -> None:
        """Inserts a window, or replaces the one of its collection."""
        row = BootWindowRow(
            collection=window.collection,
            end_time=window.end_time,
            expected_count=window.expected_count,
            admitted=list(window.admitted),
        )
        async with self._database.session() as session:
            await session.merge(row)

    async def remove_window(self, collection: str) -> None:
        """Forgets a window, if there is one."""
        async with self._database.session() as session:
            if row := await session.get(BootWindowRow, collection):
                await session.delete(row)

    async def unknown_machines(self) -> Answer:
        """Returns what unknown machines are answered."""
        async with self._database.session(reads_only=True) as session:
            row = await session.get(SettingRow, _POLICY)
            return Answer.KNOCK if row is None else Answer(row.value["unknown_machines"])

    async def put_unknown_machines(self, answer: Answer) -> None:
        """Sets what unknown machines are answered."""
        async with self._database.session() as session:
            await session.merge(SettingRow(name=_POLICY, value={"unknown_machines": answer.value}))
