"""The table of the audit."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Index
from sqlmodel import SQLModel

from fleetcast_scheduler.columns import instant, json_, text


class AuditRow(SQLModel, table=True):
    """What somebody did."""

    __tablename__ = "audit"
    __table_args__ = (Index("audit_by_time", "time", "name"),)

    name: str = text(primary_key=True)
    time: float = instant()
    caller: str = text()
    action: str = text()
    resource: str = text(index=True)
    detail: dict[str, Any] = json_()
    request_id: str = text(index=True)
    traceparent: str = text()
    address: str = text()
