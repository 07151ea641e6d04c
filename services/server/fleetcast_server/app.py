"""Builds the three services on one port and connects them as if they were strangers."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

from fleetcast_catalog.app import CatalogApp, open_catalog
from fleetcast_kit.bootstrap import Installation, open_installation
from fleetcast_kit.server import GrpcServer
from fleetcast_scheduler.app import SchedulerApp, open_scheduler

from fleetcast_server.reach import own_address, reachable_address
from fleetcast_server.settings import ServerSettings


class ServerApp:
    """Catalog, scheduler and sender; the last two dial the port like anybody else."""

    def __init__(
        self,
        settings: ServerSettings,
        installation: Installation,
        catalog: CatalogApp,
        scheduler: SchedulerApp,
    ) -> None:
        self._settings = settings
        self._installation = installation
        self._catalog = catalog
        self._scheduler = scheduler
        self._server = GrpcServer(
            settings.listen,
            installation.server,
            [*catalog.services, *scheduler.services],
        )

    @classmethod
    async def open(cls, settings: ServerSettings, directory: Path) -> ServerApp:
        """Returns the server on the data in `directory`, which is this process's alone.

        Raises:
            FleetcastError: the settings or the data cannot be used; the sentence says why.
        """
        installation = open_installation(directory, listen=settings.listen, advertise=settings.advertise)
        async with AsyncExitStack() as opened:
            catalog = await open_catalog(directory)
            opened.push_async_callback(catalog.stop)
            scheduler = await open_scheduler(
                f"sqlite:///{directory / 'scheduler.db'}", authority=installation.authority, trust=installation.trust
            )
            opened.push_async_callback(scheduler.stop)
            app = cls(settings, installation, catalog, scheduler)
            opened.pop_all()
        return app

    @property
    def address(self) -> str:
        """HOST:PORT by which others reach it; known once it listens."""
        return reachable_address(self._settings.listen, self._server.port, self._settings.advertise)

    async def start(self) -> None:
        """Opens the port and starts the parts.

        Raises:
            FleetcastError: the port cannot be opened.
        """
        await self._catalog.start()
        await self._server.start()
        own = own_address(self._settings.listen, self._server.port)
        await self._scheduler.start(own, self._installation.service)
        self._installation.publish_administrator(self.address, Path.home() / ".config" / "fleetcast")

    async def stop(self) -> None:
        """Ends everything: calls in flight finish, machines and senders come back to the next start."""
        await self._server.stop()
        await self._scheduler.stop()
        await self._catalog.stop()

    def ready_line(self) -> str:
        """Returns the sentence that says where the server is, whom to trust and where the credential lies."""
        return (
            f"fleetcast-server is ready on {self.address}; authority SHA-256 "
            f"{self._installation.authority.fingerprint.hex()}; administrator's credential in "
            f"{self._installation.directory / 'administrator'}"
        )
