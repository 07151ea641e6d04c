"""The socket that hears the group."""

from __future__ import annotations

import logging
import socket
import struct
import sys
from collections.abc import Sequence
from functools import partial

from fleetcast_kit.process import logs
from fleetcast_wire.native import NativeRun

from fleetcast_agent.receiving.errors import MulticastError
from fleetcast_agent.receiving.multicast.sockets.interfaces import Interface
from fleetcast_agent.receiving.multicast.sockets.readers import (
    FASTEST,
    BatchReader,
    ReadingMethod,
    Received,
    SingleReader,
    TrainReader,
)

_say_once = partial(logs.once, logging.getLogger(__name__), logging.INFO)

_LINUX = sys.platform == "linux"
_SO_RCVBUFFORCE, _SO_MEMINFO, _SO_MEMINFO_DROPS = 33, 55, 8
_MCAST_JOIN_GROUP, _MCAST_JOIN_SOURCE_GROUP = 42, 46
_SHORT_TRAIN = 3
"""Trains shorter than this on average: coalescing does not happen, recvmmsg is better."""


class GroupSocket:
    """A UDP socket that is a member of one group on one interface, and reads into equal slots.

    Args:
        group: the multicast address; with its port.
        interface: where to join.
        source_address: take datagrams from there only; empty if not known.
        buffer: the slots, end to end.
        stride: bytes of a slot, the size of a sealed symbol.
        receive_buffer_bytes: what to ask the system to keep for this socket.
        method: how to read.

    Raises:
        MulticastError: the system does not let us join.
    """

    def __init__(
        self,
        group: str,
        port: int,
        *,
        interface: Interface,
        source_address: str,
        buffer: memoryview,
        stride: int,
        receive_buffer_bytes: int,
        method: ReadingMethod = FASTEST,
    ) -> None:
        family = socket.AF_INET6 if ":" in group else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            _bind(self._socket, group, port, interface)
            _join(self._socket, group, interface, source_address)
            self.receive_buffer_bytes = _enlarge(self._socket, receive_buffer_bytes)
            """What the system granted."""
        except OSError as error:
            self._socket.close()
            raise MulticastError(f"cannot join {group} on {interface.name}: {error.strerror or error}") from error
        self._socket.setblocking(False)
        self._buffer, self._stride, self._method = buffer, stride, method
        self._reader = self._best_reader()

    def fileno(self) -> int:
        """Returns the descriptor, to wait for."""
        return self._socket.fileno()

    def close(self) -> None:
        """Leave the group."""
        self._socket.close()

    def receive(self, run: NativeRun | None = None) -> Received:
        """Returns what has come, as much as fits the slots, without waiting; opens what belongs to a run by it."""
        received = self._reader.read(run)
        if isinstance(self._reader, TrainReader) and self._is_futile(self._reader):
            self._socket.setsockopt(*self._method.coalescing_option, 0)
            self._reader = self._batch_reader()
            _say_once("this network interface does not coalesce datagrams (GRO): receiving costs more time")
        return received

    @property
    def drained(self) -> bool:
        """Whether the last call of `receive` took all there was."""
        return self._reader.drained

    @property
    def overflow_count(self) -> int:
        """Datagrams that the system dropped because this socket's buffer was full; 0 where it does not say.

        The kernel counts a coalesced train as one, so the number is that of drops times the mean length of a train.
        """
        if not _LINUX:
            return 0
        info = self._socket.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 64)
        if len(info) < 4 * (_SO_MEMINFO_DROPS + 1):
            return 0
        drops: int = struct.unpack_from("=I", info, 4 * _SO_MEMINFO_DROPS)[0]
        return round(drops * self._reader.mean_train)

    def _best_reader(self) -> BatchReader | SingleReader:
        if not self._method.batched:
            _say_once("this system reads one datagram a call: receiving costs more time")
            return SingleReader(self._socket, self._buffer, self._stride)
        try:
            self._socket.setsockopt(*self._method.coalescing_option, 1)
        except OSError:
            _say_once("this kernel does not coalesce datagrams (UDP_GRO): receiving costs more time")
            return self._batch_reader()
        return TrainReader(self._socket, self._buffer, self._stride, compiled=self._method.compiled)

    def _batch_reader(self) -> BatchReader:
        return BatchReader(self._socket, self._buffer, self._stride, compiled=self._method.compiled)

    def _is_futile(self, reader: TrainReader) -> bool:
        """Returns whether trains turned out to be too short to be worth it."""
        return reader.datagram_count >= self._method.judged_after_count and reader.mean_train < _SHORT_TRAIN


def _bind(sock: socket.socket, group: str, port: int, interface: Interface) -> None:
    """Bind to the group itself where the system can: then GRO finds the socket, and other groups do not."""
    if not _LINUX:
        sock.bind(("", port))
    elif sock.family == socket.AF_INET6:
        sock.bind((group, port, 0, interface.index))
    else:
        sock.bind((group, port))


def _join(sock: socket.socket, group: str, interface: Interface, source_address: str) -> None:
    if not _LINUX:
        if sock.family == socket.AF_INET6:
            request = socket.inet_pton(socket.AF_INET6, group) + struct.pack("=I", interface.index)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, request)
        else:
            request = socket.inet_aton(group) + socket.inet_aton(interface.address)
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, request)
        return
    level = socket.IPPROTO_IPV6 if sock.family == socket.AF_INET6 else socket.IPPROTO_IP
    addresses: Sequence[str] = (group, source_address) if source_address else (group,)
    request = struct.pack("@Ixxxx", interface.index) + b"".join(_storage(sock.family, it) for it in addresses)
    sock.setsockopt(level, _MCAST_JOIN_SOURCE_GROUP if source_address else _MCAST_JOIN_GROUP, request)


def _storage(family: int, address: str) -> bytes:
    """Returns a `struct sockaddr_storage`."""
    packed = socket.inet_pton(family, address.partition("%")[0])
    head = struct.pack("=HH", family, 0) + (b"" if family == socket.AF_INET else bytes(4))
    return (head + packed).ljust(128, b"\0")


def _enlarge(sock: socket.socket, wanted_bytes: int) -> int:
    """Ask for a receive buffer; return what was granted."""
    if _LINUX:
        try:
            sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, wanted_bytes)
            return sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2
        except PermissionError:
            pass
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, wanted_bytes)
    granted = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // (2 if _LINUX else 1)
    if granted < wanted_bytes:
        hint = f"; allow more with: sysctl -w net.core.rmem_max={wanted_bytes}" if _LINUX else ""
        _say_once(f"the receive buffer has {granted >> 10} KiB instead of {wanted_bytes >> 10} KiB{hint}")
    return granted
