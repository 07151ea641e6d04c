"""What an administrator may set."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from fleetcast_kit.process.logs import LogFormat
from fleetcast_kit.process.settings import Settings, default_data_directory
from pydantic import Field

DEFAULT_HTTP_PORT = 7480


class BootSettings(Settings):
    """The settings of `fleetcast-boot`: table `boot` of the file."""

    table: ClassVar[str] = "boot"

    interface: str = ""
    """Name of the network interface on whose segment machines are answered."""
    data_dir: Path = Field(default_factory=lambda: default_data_directory() / "boot")
    """Boot images, and this service's own certificate."""
    http_port: int = Field(default=DEFAULT_HTTP_PORT, ge=1, le=65_535)
    """Port of HTTP for boot loaders."""
    delay_seconds: float = Field(default=0.0, ge=0, le=10)
    """How long an answer waits, so that a boot server of the site's own comes first."""
    scheduler: str = ""
    """HOST:PORT of the scheduler, which decides what each machine is answered."""
    token: str = ""
    """Enrolment token of the role service, for the first start."""
    credentials: Path | None = None
    """Directory with this service's own certificate: ca.pem, cert.pem and key.pem. By default `service` in the data
    directory."""
    log_format: LogFormat = "human"
    """Form of the log on standard error."""
