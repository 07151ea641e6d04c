"""The boot service: DHCP, TFTP and HTTP on one segment, with one plan of what each machine starts."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from ipaddress import IPv4Address
from pathlib import Path

import psutil
from aiohttp import web
from fleetcast_kit.errors import FailedPreconditionError, InvalidArgumentError

from fleetcast_boot import menus
from fleetcast_boot.deciding import Decisions
from fleetcast_boot.dhcp.answer import PXE_PORT, SERVER_PORT, Loaders
from fleetcast_boot.domain import Answer, Asker, Firmware, mac_text
from fleetcast_boot.images import LOADERS, BootImage, BootImages
from fleetcast_boot.progress import BootProgress, Stage
from fleetcast_boot.pump import BootPorts, DhcpPort, TftpPort, cannot_open, open_dhcp_socket
from fleetcast_boot.web.server import MAX_CONNECTIONS, make_app

_logger = logging.getLogger(__name__)

FIRST_MENU = "grub/grub.cfg"
"""What GRUB asks for at the server that it came from, by whichever way it came."""

LOADER_OF = {
    Firmware.BIOS: "fleetcast.0",
    Firmware.UEFI_AMD64: "shimx64.efi",
    Firmware.UEFI_ARM64: "shimaa64.efi",
}
"""The first file of each kind of machine. shim fetches GRUB (`grubx64.efi`) from the folder that it came from."""


class BootService:
    """Answers machines that start from the network on one interface."""

    def __init__(
        self,
        *,
        interface: str,
        http_port: int,
        images: BootImages,
        decisions: Decisions,
        server: str,
        delay_seconds: float = 0.0,
        ports: BootPorts | None = None,
    ) -> None:
        """`server` is HOST:PORT at which agents find the scheduler.

        Raises:
            InvalidArgumentError: there is no such interface, or it has no IPv4 address.
        """
        self._interface = interface
        self._address = ipv4_address(interface)
        self._http_port = http_port
        self._images = images
        self._decisions = decisions
        self._server = server
        self._delay_seconds = delay_seconds
        self._ports = ports or BootPorts()
        self._loaders: tuple[str, dict[str, bytes]] = ("", {})
        self._transports: list[asyncio.BaseTransport] = []
        self._tftp: TftpPort | None = None
        self._web: web.AppRunner | None = None
        self.progress = BootProgress()

    @property
    def address(self) -> IPv4Address:
        """Where machines of the segment reach this service."""
        return self._address

    async def start(self) -> None:
        """Opens the ports.

        Raises:
            FailedPreconditionError: one cannot be opened, or there is no boot image.
        """
        if self._images.active() is None:
            raise FailedPreconditionError(
                "there is no boot image that machines could start: make one with `fleetcast boot-image build`",
                reason="NO_BOOT_IMAGE",
            )
        loop = asyncio.get_running_loop()
        runner = web.AppRunner(make_app(self), access_log=None, handler_cancellation=True)
        await runner.setup()
        self._web = runner
        try:
            site = web.TCPSite(runner, str(self._address), self._http_port, backlog=MAX_CONNECTIONS)
            await site.start()
        except OSError as error:
            raise cannot_open(self._http_port, error) from error
        for port, well_known, host in (
            (self._ports.dhcp, SERVER_PORT, ""),
            (self._ports.pxe, PXE_PORT, str(self._address)),
        ):
            sock = open_dhcp_socket(port, host, self._interface)
            dhcp = DhcpPort(well_known, self._loader_files, self._decide, self._delay_seconds)
            transport, _ = await loop.create_datagram_endpoint(lambda dhcp=dhcp: dhcp, sock=sock)  # type: ignore[misc]
            self._transports.append(transport)
        tftp = self._tftp = TftpPort(str(self._address), self.loader, self._fetched_by_tftp)
        try:
            await loop.create_datagram_endpoint(lambda: tftp, local_addr=(str(self._address), self._ports.tftp))
        except OSError as error:
            raise cannot_open(self._ports.tftp, error) from error
        _logger.info("machines on %s are answered from %s", self._interface, self._address)

    async def stop(self) -> None:
        """Ends everything; machines that load ask again at the next start."""
        for transport in self._transports:
            transport.close()
        self._transports.clear()
        if self._tftp is not None:
            self._tftp.close()
        if self._web is not None:
            await self._web.cleanup()

    def loader(self, path: str) -> bytes | None:
        """Returns the content of a boot loader or of its first menu; None if there is none of that name."""
        if path == FIRST_MENU:
            return menus.first_menu(f"{self._address}:{self._http_port}").encode()
        return self._loader_contents().get(path)

    def image_file(self, digest: str, name: str) -> Path | None:
        """Returns where a file of a boot image is; None if there is none of that name."""
        path = self._images.folder(digest) / name
        return path if path.is_file() else None

    async def menu(self, asker: Asker, came_from: str) -> str:
        """Returns what a machine is told to start, that asks from an address."""
        decision = await self._decisions.for_menu(asker)
        self.progress.decided(asker.mac_address, decision.answer, decision.reason)
        self.progress.reached(asker.mac_address, Stage.MENU, time.time())
        _logger.info(
            "%s%s at %s: %s%s",
            asker.mac_address,
            f" ({decision.display_name})" if decision.display_name else "",
            came_from,
            decision.answer,
            f": {decision.reason}" if decision.reason else "",
        )
        return menus.machine_menu(decision, asker.mac_address, self._boot_files())

    def fetched(self, came_from: str, stage: Stage) -> None:
        """Notes that a machine, known by its address, came to a stage."""
        if mac_address := neighbour(came_from):
            self.progress.reached(mac_address, stage, time.time())

    def _fetched_by_tftp(self, came_from: str, path: str) -> None:
        if path != FIRST_MENU:
            self.fetched(came_from, Stage.LOADER)

    async def _decide(self, asker: Asker) -> Answer:
        decision = await self._decisions.for_offer(asker)
        self.progress.asked(asker, decision.answer, decision.reason, time.time())
        return decision.answer

    def _boot_files(self) -> menus.BootFiles | None:
        image = self._images.active()
        if image is None:
            return None
        base = f"http://{self._address}:{self._http_port}/image/{image.digest}"
        return menus.BootFiles(base, image.files["root.squashfs"], self._server)

    def _loader_files(self) -> Loaders:
        names = self._loader_contents()
        return Loaders(
            self._address, self._http_port, {kind: name for kind, name in LOADER_OF.items() if name in names}
        )

    def _loader_contents(self) -> dict[str, bytes]:
        """Returns the boot loaders of the active image, which are in memory: a few megabytes."""
        image = self._images.active()
        digest = image.digest if image else ""
        if self._loaders[0] != digest:
            self._loaders = (digest, _read_loaders(self._images, image) if image else {})
        return self._loaders[1]


def _read_loaders(images: BootImages, image: BootImage) -> dict[str, bytes]:
    folder = images.folder(image.digest) / LOADERS
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def ipv4_address(interface: str) -> IPv4Address:
    """Returns the first IPv4 address of an interface.

    Raises:
        InvalidArgumentError: there is no such interface, or it has none.
    """
    interfaces = psutil.net_if_addrs()
    known = ", ".join(sorted(name for name in interfaces if name != "lo"))
    if interface not in interfaces:
        raise InvalidArgumentError(
            f"there is no network interface {interface!r}; there are: {known}", field="interface"
        )
    for address in interfaces[interface]:
        if address.family is socket.AF_INET:
            return IPv4Address(address.address)
    raise InvalidArgumentError(f"the network interface {interface} has no IPv4 address", field="interface")


def neighbour(address: str) -> str:
    """Returns the MAC address of a machine on the segment, as the kernel knows it; empty if it does not."""
    try:
        lines = Path("/proc/net/arp").read_text().splitlines()[1:]
    except OSError:
        return ""
    for line in lines:
        ip, _, _, mac, *_ = line.split()
        if ip == address:
            return mac_text(bytes.fromhex(mac.replace(":", "")))
    return ""
