"""The tables of machines."""

from __future__ import annotations

from typing import Any

from sqlmodel import SQLModel

from fleetcast_scheduler.columns import instant, integer, json_, text


class MachineRow(SQLModel, table=True):
    """A machine."""

    __tablename__ = "machine"

    name: str = text(primary_key=True)
    display_name: str = text()
    state: str = text()
    held_reason: str = text()
    resembles: str = text()
    inventory: dict[str, Any] = json_()
    claimed: dict[str, Any] | None = json_(nullable=True)
    variables: dict[str, str] = json_()
    protected: bool
    time_zone: str = text()
    create_time: float = instant()
    register_time: float | None = instant(nullable=True)
    edit_count: int = integer()
    code: str = text(server_default="")


class RemovedMachineRow(SQLModel, table=True):
    """A machine that an operator removed and that has not registered again."""

    __tablename__ = "removed_machine"

    name: str = text(primary_key=True)
    remove_time: float = instant()


class MachineIdentifierRow(SQLModel, table=True):
    """What can tell a machine from others."""

    __tablename__ = "machine_identifier"

    machine: str = text(primary_key=True)
    kind: str = text(primary_key=True)
    value: str = text(primary_key=True, index=True)


class CollectionRow(SQLModel, table=True):
    """A collection, without its members."""

    __tablename__ = "collection"

    name: str = text(primary_key=True)
    description: str = text()
    rule: str = text()
    variables: dict[str, str] = json_()
    protected: bool
    maintenance_windows: list[dict[str, Any]] = json_()
    create_time: float = instant()
    edit_count: int = integer()


class MembershipRow(SQLModel, table=True):
    """A member of a collection by name."""

    __tablename__ = "membership"

    collection: str = text(primary_key=True)
    machine: str = text(primary_key=True, index=True)


class SettingRow(SQLModel, table=True):
    """What an operator set for the whole installation."""

    __tablename__ = "setting"

    name: str = text(primary_key=True)
    value: dict[str, Any] = json_()
