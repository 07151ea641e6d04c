"""The logs that runs uploaded."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator

from fleetcast_kit.errors import NotFoundError, ResourceExhaustedError

from fleetcast_scheduler.deployments.pump import RunPump
from fleetcast_scheduler.deployments.store import DeploymentStore

MAX_LOG_BYTES = 64 << 20
_PIECE_BYTES = 1 << 20
"""Stored and read at once: one upload keeps no more than this, and a message, in memory."""


class RunLogs:
    """Logs, by run. A later upload takes the place of an earlier one when it is whole."""

    def __init__(self, pump: RunPump, store: DeploymentStore) -> None:
        self._pump = pump
        self._store = store

    async def put(self, run: str, machine: str, pieces: AsyncIterator[bytes]) -> None:
        """Keeps the log of a run of `machine`.

        Raises:
            NotFoundError: the machine has no such run.
            ResourceExhaustedError: the log is too long.
        """
        found = await self._store.find_run(run)
        if found is None or found.machine != machine:
            raise NotFoundError(f"{machine} has no run {run}", reason="RUN_NOT_FOUND")
        upload = f"{run}#{secrets.token_hex(8)}"
        total_bytes, count, gathered = 0, 0, bytearray()
        try:
            async for piece in pieces:
                total_bytes += len(piece)
                if total_bytes > MAX_LOG_BYTES:
                    raise ResourceExhaustedError(
                        f"the log of {run} has more than {MAX_LOG_BYTES >> 20} MiB: upload its end alone",
                        reason="LOG_TOO_LONG",
                    )
                gathered += piece
                while len(gathered) >= _PIECE_BYTES:
                    await self._store.put_log_piece(upload, count, bytes(gathered[:_PIECE_BYTES]))
                    count += 1
                    del gathered[:_PIECE_BYTES]
            await self._store.put_log_piece(upload, count, bytes(gathered))
            await self._store.finish_log(upload, run)
        except BaseException:
            await self._store.forget_log(upload)
            raise
        self._mark(run, machine)

    async def read(self, run: str) -> AsyncIterator[bytes]:
        """Yields the log of a run, piece by piece.

        Raises:
            NotFoundError: there is none.
        """
        empty = True
        async for piece in self._store.read_log(run):
            empty = False
            yield piece
        if empty:
            raise NotFoundError(f"{run} has uploaded no log", reason="LOG_NOT_FOUND")

    def _mark(self, run: str, machine: str) -> None:
        """Has a run that is in memory show its log; the store knows already."""
        deployment = self._pump.ledger.deployments.get(run.partition("/runs/")[0])
        last = deployment.runs.get(machine) if deployment is not None else None
        if deployment is not None and last is not None and last.name == run:
            last.has_log = True
            self._pump.ledger.record(deployment, last)
            self._pump.wake()
