"""What an administrator may set."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from fleetcast_kit.process.settings import CommaSeparated, ServiceSettings, default_data_directory
from pydantic import Field


class CatalogSettings(ServiceSettings):
    """The settings of `fleetcast-catalog`: table `catalog` of the file."""

    table: ClassVar[str] = "catalog"

    data_dir: Path = Field(default_factory=default_data_directory)
    """The chunks, and the database unless `database_url` names another."""
    database_url: str = ""
    """`sqlite:///PATH` or `postgresql://USER:PASSWORD@HOST/NAME`; empty means catalog.db in the data directory."""
    advertise: CommaSeparated = ()
    """Names and addresses by which others reach this catalog."""
    scheduler: str = ""
    """HOST:PORT of the scheduler, which certifies the catalog; empty if `credentials` are made elsewhere."""
    token: str = ""
    """Enrolment token of the role service, for the first start."""
    token_file: Path | None = None
    """File with that token; `-` for standard input."""
    credentials: Path | None = None
    """Directory with the catalog's own certificate, of a service, for the names it is reached by: ca.pem, cert.pem and
    key.pem. By default `server` in the data directory."""
