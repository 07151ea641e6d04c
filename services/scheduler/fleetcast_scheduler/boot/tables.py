"""The table of starting from the network."""

from __future__ import annotations

from sqlmodel import SQLModel

from fleetcast_scheduler.columns import instant, integer, json_, text


class BootWindowRow(SQLModel, table=True):
    """A time in which the machines of a collection are admitted."""

    __tablename__ = "boot_window"

    collection: str = text(primary_key=True)
    end_time: float = instant()
    expected_count: int = integer()
    admitted: list[str] = json_()
