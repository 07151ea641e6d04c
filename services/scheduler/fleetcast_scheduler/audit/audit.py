"""The record of what people did: each entry is stored in the same transaction as the change."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from fleetcast_kit.identity.peer import current_peer
from fleetcast_kit.process import telemetry

from fleetcast_scheduler.audit.store import AuditStore


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One thing that somebody did."""

    name: str
    """`auditEntries/{id}`."""
    time: float
    caller: str
    action: str
    resource: str
    detail: dict[str, str]
    request_id: str = ""
    traceparent: str = ""
    address: str = ""
    """IP address that the request came from."""


class AuditQueue(Protocol):
    """A loop that stores entries with its next turn."""

    clock: Callable[[], float]

    def audit(self, row: dict[str, Any]) -> None:
        """Stores an entry with the next turn."""


class AuditTables(Protocol):
    """A transaction that takes entries."""

    async def put_audit(self, row: dict[str, Any]) -> None:
        """Adds an entry to the record."""


class Audit:
    """Records what the caller of the present request does."""

    def __init__(self, queue: AuditQueue, store: AuditStore) -> None:
        self._queue = queue
        self._store = store

    def record(self, action: str, resource: str, request_id: str = "", **detail: object) -> None:
        """Has an entry stored with the next cycle, together with what was decided before it."""
        self._queue.audit(self.row(action, resource, request_id, **detail))

    async def record_in(
        self, tables: AuditTables, action: str, resource: str, request_id: str = "", **detail: object
    ) -> None:
        """Stores an entry in the transaction of `tables`."""
        await tables.put_audit(self.row(action, resource, request_id, **detail))

    def row(self, action: str, resource: str, request_id: str = "", **detail: object) -> dict[str, Any]:
        """Returns the row of a new entry about the caller of the present request."""
        now, caller = self._queue.clock(), current_peer()
        entry = AuditEntry(
            name=f"auditEntries/{round(now * 1e6):016x}{secrets.token_hex(4)}",
            time=now,
            caller=caller.identity.name,
            action=action,
            resource=resource,
            detail={key: str(value) for key, value in detail.items() if value not in (None, "")},
            request_id=request_id,
            traceparent=telemetry.current_traceparent(),
            address=caller.address,
        )
        return asdict(entry)

    async def recorded(self, request_id: str) -> str | None:
        """Returns the resource that a request has changed; None if the request was not carried out yet."""
        return await self._store.find_audited(request_id) if request_id else None
