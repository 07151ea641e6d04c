"""What an administrator may set."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from fleetcast_kit.process.settings import CommaSeparated, ServiceSettings, default_data_directory
from fleetcast_scheduler.deployments.domain.deployment import DEFAULT_CONFIRMATION_LIMIT
from pydantic import Field, field_validator


class ServerSettings(ServiceSettings):
    """The settings of `fleetcast-server`: table `server` of the file."""

    table: ClassVar[str] = "server"

    data_dir: Path = Field(default_factory=default_data_directory)
    """Images, databases, the authority."""
    database_url: str = ""
    """`postgresql://USER:PASSWORD@HOST/NAME` for catalog and scheduler together; empty means SQLite in the data
    directory."""
    advertise: CommaSeparated = ()
    """Names and addresses by which others reach this server; the first is the one that they are told."""
    multicast_interface: str = ""
    """Name or address of the interface that multicast leaves by; empty means that with the address in `advertise` or
    `listen`, else the only one that there is."""
    deployment_confirmation_limit: int = Field(default=DEFAULT_CONFIRMATION_LIMIT, ge=0)
    """Deployments to more machines need their number confirmed."""
    time_zone: str = "UTC"
    """Of machines that do not say theirs: a name in the IANA time zone database."""

    @field_validator("database_url")
    @classmethod
    def _may_be_shared(cls, value: str) -> str:
        if value.startswith("sqlite"):
            raise ValueError("catalog and scheduler cannot share a file of SQLite: name a PostgreSQL")
        return value
