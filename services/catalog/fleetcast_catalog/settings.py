"""What an administrator may set."""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar

from fleetcast_kit.process.logs import LogFormat
from fleetcast_kit.process.settings import CommaSeparated, Settings
from fleetcast_kit.values.addresses import DEFAULT_PORT
from pydantic import Field


def default_data_directory() -> Path:
    """Returns where the catalog keeps its data: the system's place for root, the user's own for others."""
    return Path("/var/lib/fleetcast") if os.geteuid() == 0 else Path.home() / ".local" / "share" / "fleetcast"


class CatalogSettings(Settings):
    """The settings of `fleetcast-catalog`: table `catalog` of the file."""

    table: ClassVar[str] = "catalog"

    data_dir: Path = Field(default_factory=default_data_directory)
    """The chunks, and the database unless `database_url` names another."""
    database_url: str = ""
    """`sqlite:///PATH` or `postgresql://USER:PASSWORD@HOST/NAME`; empty means catalog.db in the data directory."""
    listen: str = f"[::]:{DEFAULT_PORT}"
    """HOST:PORT of the port; port 0 takes a free one."""
    advertise: CommaSeparated = ()
    """Names and addresses by which others reach this catalog."""
    scheduler: str = ""
    """HOST:PORT of the scheduler, which certifies the catalog; empty if `credentials` are made elsewhere."""
    token: str = ""
    """Enrolment token of the role service, for the first start."""
    credentials: Path | None = None
    """Directory with the catalog's own certificate, of a service, for the names it is reached by: ca.pem, cert.pem and
    key.pem. By default `server` in the data directory."""
    log_format: LogFormat = "human"
    """Form of the log on standard error."""
