"""Builds the sender: the only place that does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace

import grpc
from fleetcast.scheduler.v1 import sender_registry_service_pb2
from fleetcast_kit.chunks.store import ChunkStore
from fleetcast_kit.errors import InvalidArgumentError
from fleetcast_kit.identity.credentials import Credentials
from fleetcast_kit.rpc.channel import open_channel
from fleetcast_kit.values.addresses import join_address, split_address

from fleetcast_sender import convert
from fleetcast_sender.chunks.cache import ChunkCache
from fleetcast_sender.chunks.catalog import Catalog, RemoteChunks
from fleetcast_sender.chunks.source import ChunkSource, ChunkTable, LocalChunks
from fleetcast_sender.control import Control
from fleetcast_sender.engine.geometry_choice import GeometryOverrides
from fleetcast_sender.engine.policy import SlowPolicy, TransmissionPolicy
from fleetcast_sender.sending.groups import SpareGroups, parse_group, split_range
from fleetcast_sender.sending.interfaces import Interface, IPAddress, find_interface
from fleetcast_sender.sending.lane import Egress
from fleetcast_sender.sending.link import Link
from fleetcast_sender.sending.transmission import Transmission
from fleetcast_sender.servicer import Transmissions, transmission_service
from fleetcast_sender.settings import SenderSettings
from fleetcast_sender.unicast import UnicastReader

_logger = logging.getLogger(__name__)

_IPV4_GROUPS = ("239.192.64.0", "239.192.79.255")
_IPV6_GROUPS = ("ff05::f1ee:4000", "ff05::f1ee:7fff")


class SenderApp:
    """The sender: its services, and the loops behind them."""

    def __init__(self, settings: SenderSettings, interface: Interface) -> None:
        self._settings = settings
        self._interface = interface
        self._transmissions = Transmissions()
        self._unicast = UnicastReader()
        self.services = [transmission_service(self._transmissions, self._unicast)]
        """What a server serves. They answer once the server listens."""
        first, last = _group_range(settings, interface)
        border, spare = split_range(first, last)
        self._groups = str(first), str(border)
        self._egress = _egress(settings, interface, spare)
        self._channels: list[grpc.aio.Channel] = []
        self._catalog: Catalog | None = None
        self._catalog_address = self._scheduler_address = ""
        self._credentials: Credentials | None = None
        self._cache: ChunkCache | None = None
        self._control: Control | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def interface(self) -> Interface:
        """The interface that multicast leaves by."""
        return self._interface

    @property
    def transmissions(self) -> Transmissions:
        """Those that run."""
        return self._transmissions

    async def start(self, *, scheduler: str, catalog: str = "", address: str, credentials: Credentials) -> None:
        """Register at `scheduler` (HOST:PORT) and take orders; neither it nor `catalog` need be there yet.

        Without `catalog` it is where the scheduler says. `address` is the HOST:PORT by which machines reach the server
        of `services`; `credentials` are a sender's.

        Raises:
            InvalidArgumentError: an address cannot be used.
        """
        control_channel = open_channel(scheduler, credentials)
        self._scheduler_address, self._credentials = scheduler, credentials
        self._channels = [control_channel]
        self._use_catalog(catalog or scheduler, credentials)
        if self._settings.chunk_store is None:
            self._cache = ChunkCache(self._settings.cache_dir, self._settings.cache_bytes)
        settings = self._settings
        registration = sender_registry_service_pb2.SenderRegistration(
            address=join_address(*split_address(address)),
            interface=self._interface.name,
            link_bits_per_second=self._egress.link.bits_per_second,
            first_group=self._groups[0],
            last_group=self._groups[1],
            first_port=settings.first_port,
            last_port=settings.last_port,
            max_concurrent=settings.max_concurrent,
            site=settings.site,
            subnets=self._interface.subnets,
        )
        self._control = Control(
            control_channel, registration, self._transmissions, start=self._open, release=self._unicast.forget
        )
        if not catalog:
            self._control.catalog_named = self._use_named_catalog
        self._task = asyncio.create_task(self._control.run(), name="sender control")
        _logger.info("multicast leaves by %s, groups %s to %s", self._interface.name, *self._groups)

    def renewed(self, credentials: Credentials) -> None:
        """Dials with a renewed certificate from now on; streams that are open go on with the one they began with."""
        channel = open_channel(self._scheduler_address, credentials)
        self._channels.append(channel)
        if self._control is not None:
            self._control.use(channel)
        self._credentials, address, self._catalog_address = credentials, self._catalog_address, ""
        self._use_catalog(address, credentials)

    def _use_named_catalog(self, address: str) -> None:
        """Read from the catalog that the scheduler names; empty means that it is where the scheduler is."""
        assert self._credentials  # noqa: S101 - named after start
        self._use_catalog(address or self._scheduler_address, self._credentials)

    def _use_catalog(self, address: str, credentials: Credentials) -> None:
        """Read from the catalog at an address from now on; what is being sent goes on with the one it began with."""
        if address != self._catalog_address:
            channel = open_channel(address, credentials)
            self._channels.append(channel)
            self._catalog, self._catalog_address = Catalog(channel), address

    async def registered(self) -> None:
        """Returns when the scheduler has taken the sender in."""
        if self._control:
            await self._control.registered.wait()

    async def stop(self) -> None:
        """End every transmission and release everything."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for name in list(self._transmissions.running):
            if transmission := self._transmissions.remove(name):
                await transmission.stop("the sender is stopping")
        for channel in self._channels:
            await channel.close()

    async def _open(self, command: sender_registry_service_pb2.StartTransmission) -> Transmission:
        """Returns a transmission that machines can join.

        Raises:
            FleetcastError: it cannot be: no image, no such group.
        """
        assert self._catalog  # noqa: S101 - commands come after start
        group = parse_group(command.group)
        if not 0 < command.port < 65536:
            raise InvalidArgumentError(f"port {command.port} is not a UDP port", field="port")
        rate = convert.rate_policy_of(command.rate)
        table = await self._catalog.chunk_table(command.image)
        return Transmission(
            command.transmission,
            table=table,
            source=self._source(command.image, table),
            egress=replace(self._egress, slow=convert.slow_policy_of(command.slow_policy, self._egress.slow)),
            group=group,
            port=command.port,
            rate=rate,
            machines=list(command.machines),
            traceparent=command.traceparent,
        )

    def _source(self, image: str, table: ChunkTable) -> ChunkSource:
        if self._settings.chunk_store is not None:
            return LocalChunks(ChunkStore(self._settings.chunk_store), table)
        assert self._catalog is not None  # noqa: S101 - made in start
        assert self._cache is not None  # noqa: S101 - made in start
        return RemoteChunks(self._catalog, self._cache, image, table)


async def open_sender(
    settings: SenderSettings, advertised: Sequence[str] = (), *, interface_flag: str = "--interface"
) -> SenderApp:
    """Returns the sender; nothing is sent before `start`.

    Without an interface in the settings it is that with one of the `advertised` addresses, or the only one that there
    is; `interface_flag` is what an error tells to set.

    Raises:
        InvalidArgumentError: a setting cannot be used.
        FailedPreconditionError: the interface cannot be used, or is not known.
    """
    interface = await asyncio.to_thread(find_interface, settings.interface, advertised, flag=interface_flag)
    return SenderApp(settings, interface)


def _egress(settings: SenderSettings, interface: Interface, spare: SpareGroups) -> Egress:
    return Egress(
        interface,
        Link(settings.link_bits_per_second or interface.link_bits_per_second),
        ttl=settings.ttl,
        loop=interface.loopback if settings.loop is None else settings.loop,
        segmentation=settings.segmentation,
        memory_bytes=settings.memory_bytes,
        policy=TransmissionPolicy(unicast_receiver_count=settings.unicast_receivers),
        slow=SlowPolicy(settings.slow_policy, settings.slow_threshold, seconds=settings.slow_seconds),
        overrides=GeometryOverrides(settings.symbol_bytes, settings.codeword_symbols, settings.window_codewords),
        spare_groups=spare,
    )


def _group_range(settings: SenderSettings, interface: Interface) -> tuple[IPAddress, IPAddress]:
    """Returns the first and last group.

    Raises:
        InvalidArgumentError: the range is empty, reserved, or of a family that the interface lacks.
    """
    if bool(settings.first_group) != bool(settings.last_group):
        raise InvalidArgumentError("first_group and last_group belong together: set both or none", field="first_group")
    default = _IPV4_GROUPS if interface.ipv4 else _IPV6_GROUPS
    first, last = settings.first_group or default[0], settings.last_group or default[1]
    low, high = parse_group(first, field="first_group"), parse_group(last, field="last_group")
    if low.version != high.version or int(low) > int(high):
        raise InvalidArgumentError(f"{first} to {last} is no range of groups", field="last_group")
    if interface.address(low.version) is None:
        raise InvalidArgumentError(
            f"interface {interface.name} has no IPv{low.version} address, and the groups are {first} to {last}",
            field="first_group",
        )
    if settings.first_port > settings.last_port:
        raise InvalidArgumentError(f"ports {settings.first_port} to {settings.last_port} are none", field="last_port")
    return low, high
