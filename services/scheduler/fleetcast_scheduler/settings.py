"""What an administrator may set."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from fleetcast_kit.process.settings import CommaSeparated, ServiceSettings, default_data_directory
from pydantic import Field

from fleetcast_scheduler.deployments.domain.deployment import DEFAULT_CONFIRMATION_LIMIT


class SchedulerSettings(ServiceSettings):
    """The settings of `fleetcast-scheduler`: table `scheduler` of the file."""

    table: ClassVar[str] = "scheduler"

    data_dir: Path = Field(default_factory=default_data_directory)
    """The authority, and the database unless `database_url` names another."""
    database_url: str = ""
    """`sqlite:///PATH` or `postgresql://USER:PASSWORD@HOST/NAME`; empty means scheduler.db in the data directory."""
    advertise: CommaSeparated = ()
    """Names and addresses by which administrators, machines and senders reach this scheduler."""
    catalog: str
    """HOST:PORT of the catalog."""
    deployment_confirmation_limit: int = Field(default=DEFAULT_CONFIRMATION_LIMIT, ge=0)
    """Deployments to more machines need their number confirmed."""
    time_zone: str = "UTC"
    """Of machines that do not say theirs: a name in the IANA time zone database."""
