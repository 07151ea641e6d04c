"""What an administrator may set."""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar

from fleetcast_kit.process.logs import LogFormat
from fleetcast_kit.process.settings import CommaSeparated, Settings
from fleetcast_kit.values.addresses import DEFAULT_PORT
from pydantic import Field

from fleetcast_scheduler.deployments.domain.deployment import DEFAULT_CONFIRMATION_LIMIT


def default_data_directory() -> Path:
    """Returns where the scheduler keeps its data: the system's place for root, the user's own for others."""
    return Path("/var/lib/fleetcast") if os.geteuid() == 0 else Path.home() / ".local" / "share" / "fleetcast"


class SchedulerSettings(Settings):
    """The settings of `fleetcast-scheduler`: table `scheduler` of the file."""

    table: ClassVar[str] = "scheduler"

    data_dir: Path = Field(default_factory=default_data_directory)
    """The authority, and the database unless `database_url` names another."""
    database_url: str = ""
    """`sqlite:///PATH` or `postgresql://USER:PASSWORD@HOST/NAME`; empty means scheduler.db in the data directory."""
    listen: str = f"[::]:{DEFAULT_PORT}"
    """HOST:PORT of the port; port 0 takes a free one."""
    advertise: CommaSeparated = ()
    """Names and addresses by which administrators, machines and senders reach this scheduler."""
    catalog: str
    """HOST:PORT of the catalog."""
    deployment_confirmation_limit: int = Field(default=DEFAULT_CONFIRMATION_LIMIT, ge=0)
    """Deployments to more machines need their number confirmed."""
    time_zone: str = "UTC"
    """Of machines that do not say theirs: a name in the IANA time zone database."""
    log_format: LogFormat = "human"
    """Form of the log on standard error."""
