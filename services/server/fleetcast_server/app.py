"""Builds the three services on one port and connects them as if they were strangers."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

from fleetcast_catalog.app import CatalogApp, open_catalog
from fleetcast_kit.data_parts import SCHEDULER, DataParts
from fleetcast_kit.errors import UnavailableError
from fleetcast_kit.joining.installation import Installation, open_installation
from fleetcast_kit.network.reach import local_address, own_address, reachable_address
from fleetcast_kit.rpc.server import GrpcServer
from fleetcast_scheduler.app import SchedulerApp, open_scheduler
from fleetcast_scheduler.deployments.app import DeploymentOptions
from fleetcast_sender.app import SenderApp, open_sender
from fleetcast_sender.settings import SenderSettings

from fleetcast_server.reach import ToldAddress, advertised_hosts, multicast_interface
from fleetcast_server.settings import ServerSettings

REGISTRATION_SECONDS = 30.0
"""How long the sender may take to register: milliseconds, unless the host is busy or a firewall stops the loopback."""


class ServerApp:
    """Catalog, scheduler and sender; the last two dial the port like anybody else."""

    def __init__(
        self,
        settings: ServerSettings,
        installation: Installation,
        *,
        catalog: CatalogApp,
        scheduler: SchedulerApp,
        sender: SenderApp,
        told_address: ToldAddress,
    ) -> None:
        self._told_address = told_address
        self._settings = settings
        self._installation = installation
        self._catalog = catalog
        self._scheduler = scheduler
        self._sender = sender
        self._server = GrpcServer(
            settings.listen,
            installation.server,
            [*catalog.services, *scheduler.services, *sender.services],
        )

    @classmethod
    async def open(cls, settings: ServerSettings, directory: Path, config: Path | None = None) -> ServerApp:
        """Returns the server on the data in `directory`, which is this process's alone.

        `config` is the value of `--config`, for the sender's own table.

        Raises:
            FleetcastError: the settings or the data cannot be used; the sentence says why.
        """
        installation = open_installation(directory, listen=settings.listen, advertise=settings.advertise)
        interface = multicast_interface(settings.multicast_interface, settings.listen)
        told_address = ToldAddress(settings.listen, settings.advertise)
        async with AsyncExitStack() as opened:
            catalog = await open_catalog(directory, settings.database_url, authority=installation.authority.certificate)
            opened.push_async_callback(catalog.stop)
            parts = DataParts(directory)
            scheduler = await open_scheduler(
                settings.database_url or f"sqlite:///{directory / 'scheduler.db'}",
                authority=installation.authority,
                trust=installation.trust,
                deployment_options=DeploymentOptions(settings.deployment_confirmation_limit, settings.time_zone),
                must_exist=parts.way_out(SCHEDULER),
                told_address=told_address,
            )
            parts.note(SCHEDULER)
            opened.push_async_callback(scheduler.stop)
            sender = await open_sender(
                SenderSettings.load(config=config, interface=interface or None, chunk_store=catalog.chunk_store.root),
                advertised_hosts(settings.advertise),
                interface_flag="--multicast-interface",
            )
            app = cls(
                settings,
                installation,
                catalog=catalog,
                scheduler=scheduler,
                sender=sender,
                told_address=told_address,
            )
            opened.pop_all()
        return app

    @property
    def address(self) -> str:
        """HOST:PORT by which others reach it; known once it listens."""
        interface = self._sender.interface
        own = str(interface.ipv4 or interface.ipv6 or "")
        return reachable_address(self._settings.listen, self._server.port, self._settings.advertise, own)

    async def start(self) -> str:
        """Opens the port, starts the parts, and says where the server is, whom to trust and where the credential lies.

        Raises:
            FleetcastError: the port cannot be opened.
        """
        await self._catalog.start()
        await self._server.start()
        own = own_address(self._settings.listen, self._server.port)
        self._told_address.own = self.address
        await self._scheduler.start(own, self._installation.service)
        await self._sender.start(
            scheduler=own, catalog=own, address=self.address, credentials=self._installation.sender
        )
        try:
            await asyncio.wait_for(self._sender.registered(), REGISTRATION_SECONDS)
        except TimeoutError:
            raise UnavailableError(
                f"the sender of this process could not register at {own} within {REGISTRATION_SECONDS:.0f} s: "
                "the log says why; a firewall on the loopback would be one reason"
            ) from None
        self._installation.publish_administrator(
            self.address,
            Path.home() / ".config" / "fleetcast",
            local_address=await local_address(self.address, own),
        )
        return self._installation.ready_line("fleetcast-server", self.address)

    async def stop(self) -> None:
        """Ends everything: calls in flight finish, machines and senders come back to the next start."""
        await self._sender.stop()
        await self._server.stop()
        await self._scheduler.stop()
        await self._catalog.stop()
