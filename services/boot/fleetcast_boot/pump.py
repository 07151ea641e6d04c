"""Sockets and timers around DHCP and TFTP."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import cast

from fleetcast_kit.errors import FailedPreconditionError

from fleetcast_boot.dhcp import answer as answering
from fleetcast_boot.dhcp import message as dhcp
from fleetcast_boot.domain import Answer, Asker
from fleetcast_boot.errors import DhcpError, TftpError
from fleetcast_boot.tftp import packet as tftp
from fleetcast_boot.tftp.transfer import Timing, Transfer

_logger = logging.getLogger(__name__)

TFTP_PORT = 69
MAX_ANSWERS = 256
"""Questions of DHCP that wait for their answer; more are dropped, and firmware asks again."""

MAX_TRANSFERS = 512
MAX_TRANSFERS_OF_AN_ADDRESS = 8
"""Firmware fetches one file after the other. This bounds what a stranger makes the service send to somebody else."""

Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class BootPorts:
    """Where the service listens; others than the well-known ones serve tests alone."""

    dhcp: int = answering.SERVER_PORT
    pxe: int = answering.PXE_PORT
    tftp: int = TFTP_PORT


class DhcpPort(asyncio.DatagramProtocol):
    """Answers machines that ask on one port what to start."""

    def __init__(
        self,
        port: int,
        loaders: Callable[[], answering.Loaders],
        decide: Callable[[Asker], Awaitable[Answer]],
        delay_seconds: float = 0.0,
    ) -> None:
        """`port` is the well-known port whose rules hold, wherever the socket listens."""
        self._port = port
        self._loaders = loaders
        self._decide = decide
        self._delay_seconds = delay_seconds
        self._transport: asyncio.DatagramTransport | None = None
        self._answers: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Takes the socket."""
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: Address) -> None:
        """Answers a datagram, if it asks what to start."""
        try:
            message = dhcp.unpack(data)
        except DhcpError:
            return
        asker = answering.asker_of(message, self._port)
        if asker is None or len(self._answers) >= MAX_ANSWERS:
            return
        task = asyncio.get_running_loop().create_task(self._answer(message, asker, addr))
        self._answers.add(task)
        task.add_done_callback(self._answers.discard)

    def error_received(self, exc: Exception) -> None:
        """Passes over an answer that did not arrive: the machine asks again."""

    async def _answer(self, message: dhcp.DhcpMessage, asker: Asker, came_from: Address) -> None:
        if await self._decide(asker) is Answer.SILENT:
            return
        reply = answering.answer(message, asker, self._loaders())
        if reply is None:
            _logger.info(
                "%s (%s) is not answered: the boot image has no loader for it", asker.mac_address, asker.firmware
            )
            return
        await asyncio.sleep(self._delay_seconds)
        if self._transport is not None and not self._transport.is_closing():
            self._transport.sendto(dhcp.pack(reply), answering.destination(message, came_from, self._port))


class TftpPort(asyncio.DatagramProtocol):
    """Starts a transfer for each request."""

    def __init__(
        self,
        host: str,
        content: Callable[[str], bytes | None],
        fetched: Callable[[str, str], None],
        timing: Timing | None = None,
    ) -> None:
        """`content` returns a file by its path; `fetched` is told of each that an address has whole."""
        self._host = host
        self._content = content
        self._fetched = fetched
        self._timing = timing
        self._transport: asyncio.DatagramTransport | None = None
        self._transfers: dict[Address, _TransferPort] = {}
        self._starting: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Takes the socket."""
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: Address) -> None:
        """Starts a transfer, or says why not."""
        if addr in self._transfers:
            return  # the request came twice
        try:
            request = tftp.unpack_request(data)
            content = self._content(request.path)
            if content is None:
                raise TftpError(f"there is no file {request.path[:100]!r}", tftp.Code.FILE_NOT_FOUND)
            same = sum(other[0] == addr[0] for other in self._transfers)
            if len(self._transfers) >= MAX_TRANSFERS or same >= MAX_TRANSFERS_OF_AN_ADDRESS:
                return
        except TftpError as error:
            if self._transport is not None:
                self._transport.sendto(tftp.pack_error(error), addr)
            return
        loop = asyncio.get_running_loop()
        transfer = Transfer(content, request, loop.time(), self._timing)
        port = _TransferPort(transfer, lambda: self._ended(addr, request.path, transfer))
        self._transfers[addr] = port
        task = loop.create_task(self._start(port, addr))
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)

    def error_received(self, exc: Exception) -> None:
        """Passes over an answer that did not arrive."""

    def close(self) -> None:
        """Ends every transfer."""
        for port in list(self._transfers.values()):
            port.close()
        if self._transport is not None:
            self._transport.close()

    async def _start(self, port: _TransferPort, addr: Address) -> None:
        # A transfer has a port of its own: its number is the transfer's name (RFC 1350, section 4).
        loop = asyncio.get_running_loop()
        try:
            await loop.create_datagram_endpoint(lambda: port, local_addr=(self._host, 0), remote_addr=addr)
        except OSError as error:
            _logger.warning("no transfer to %s: %s", addr[0], os.strerror(error.errno or 0))
            self._transfers.pop(addr, None)

    def _ended(self, addr: Address, path: str, transfer: Transfer) -> None:
        self._transfers.pop(addr, None)
        if transfer.done:
            self._fetched(addr[0], path)
        else:
            _logger.info("%s did not get %s by TFTP: %s", addr[0], path, transfer.failure or "the service stopped")


class _TransferPort(asyncio.DatagramProtocol):
    """The socket and the timer of one transfer."""

    def __init__(self, transfer: Transfer, ended: Callable[[], None]) -> None:
        self._transfer = transfer
        self._ended = ended
        self._transport: asyncio.DatagramTransport | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)
        self._send(self._transfer.begin(self._now()))

    def datagram_received(self, data: bytes, addr: Address) -> None:
        self._send(self._transfer.receive(data, self._now()))

    def error_received(self, exc: Exception) -> None:
        self._transfer.failure = self._transfer.failure or f"the machine has closed its port ({exc})"
        self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._ended()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _wake(self) -> None:
        self._send(self._transfer.wake(self._now()))

    def _send(self, datagrams: list[bytes]) -> None:
        if self._transport is None:
            return
        for datagram in datagrams:
            self._transport.sendto(datagram)
        if self._timer is not None:
            self._timer.cancel()
        if self._transfer.over:
            self._transport.close()
        else:
            self._timer = asyncio.get_running_loop().call_at(self._transfer.wake_at, self._wake)

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


def open_dhcp_socket(port: int, host: str, interface: str) -> socket.socket:
    """Returns a socket of the port, on one interface, that a DHCP server of this host may share.

    Raises:
        FailedPreconditionError: it cannot be opened; the sentence says why.
    """
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode() + b"\0")
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise cannot_open(port, error) from error
    return sock


def cannot_open(port: int, error: OSError) -> FailedPreconditionError:
    """Returns the error that says why a port cannot be opened, and what to do."""
    if error.errno in (errno.EACCES, errno.EPERM):
        what = "this needs root, or the capabilities CAP_NET_BIND_SERVICE and CAP_NET_RAW"
    elif error.errno == errno.EADDRINUSE:
        what = "another process has it: a boot or DHCP server on this host? `ss -lunp` shows it"
    else:
        what = os.strerror(error.errno or 0)
    return FailedPreconditionError(f"the boot service cannot open port {port}: {what}", reason="PORT_UNUSABLE")
