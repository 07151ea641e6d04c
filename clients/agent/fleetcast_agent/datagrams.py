"""The socket that hears the group: many datagrams a call, straight into the slots of an opener.

Linux coalesces a train of datagrams into one read (UDP_GRO); where it does not, `recvmmsg` reads many at once; where
that does not exist either, one read is one datagram.
"""

from __future__ import annotations

import ctypes
import logging
import socket
import struct
import sys
from collections.abc import Sequence
from functools import partial
from typing import Protocol

import numpy as np
from fleetcast_kit import logs
from fleetcast_kit.batched_messages import BatchedMessage, IoVector, MessageHeader

from fleetcast_agent.errors import MulticastError
from fleetcast_agent.interfaces import Interface

_say_once = partial(logs.once, logging.getLogger(__name__), logging.INFO)

_LINUX = sys.platform == "linux"
_SOL_UDP, _UDP_GRO = 17, 104
_SO_RCVBUFFORCE, _SO_MEMINFO, _SO_MEMINFO_DROPS = 33, 55, 8
_MCAST_JOIN_GROUP, _MCAST_JOIN_SOURCE_GROUP = 42, 46
_TRAIN_BYTES = 65536
"""What one read can bring at most."""
_SEEN_BEFORE_JUDGING = 2048
_SHORT_TRAIN = 3
"""Trains shorter than this on average: coalescing does not happen, recvmmsg is better."""

Received = tuple[int, list[bytes]]
"""How many slots were filled, from the first on, with datagrams of the size of a slot; and all other datagrams."""


class _Reader(Protocol):
    def read(self) -> Received: ...


class GroupSocket:
    """A UDP socket that is a member of one group on one interface, and reads into equal slots.

    Args:
        group: the multicast address; with its port.
        interface: where to join.
        source_address: take datagrams from there only; empty if not known.
        buffer: the slots, end to end.
        stride: bytes of a slot, the size of a sealed symbol.
        receive_buffer_bytes: what to ask the system to keep for this socket.

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
        self._buffer, self._stride = buffer, stride
        self._reader: _Reader = self._best_reader()

    def fileno(self) -> int:
        """Return the descriptor, to wait for."""
        return self._socket.fileno()

    def close(self) -> None:
        """Leave the group."""
        self._socket.close()

    def receive(self) -> Received:
        """Return what has come, as much as fits the slots, without waiting."""
        received = self._reader.read()
        if isinstance(self._reader, _CoalescingReader) and self._reader.is_futile():
            self._socket.setsockopt(_SOL_UDP, _UDP_GRO, 0)
            self._reader = _BatchReader(self._socket, self._buffer, self._stride)
            _say_once("this network interface does not coalesce datagrams (GRO): receiving costs more time")
        return received

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
        mean = self._reader.mean_train if isinstance(self._reader, _CoalescingReader) else 1.0
        return round(drops * mean)

    def _best_reader(self) -> _Reader:
        if _LINUX:
            try:
                self._socket.setsockopt(_SOL_UDP, _UDP_GRO, 1)
                return _CoalescingReader(self._socket, self._buffer, self._stride)
            except OSError:
                _say_once("this kernel does not coalesce datagrams (UDP_GRO): receiving costs more time")
                return _BatchReader(self._socket, self._buffer, self._stride)
        _say_once("this system reads one datagram a call: receiving costs more time")
        return _SingleReader(self._socket, self._buffer, self._stride)


class _CoalescingReader:
    """Reads trains: one call, up to 64 KiB of equally long datagrams, the last of which may be shorter."""

    def __init__(self, source: socket.socket, buffer: memoryview, stride: int) -> None:
        self._socket = source
        self._buffer, self._stride = buffer, stride
        self._limit = (len(buffer) - _TRAIN_BYTES) // stride
        if self._limit < 0:
            raise ValueError(f"a buffer of {len(buffer)} bytes does not hold a train")
        self._rooms = [[buffer[slot * stride :]] for slot in range(self._limit + 1)]
        self._reads = 0
        self._datagrams = 0

    def read(self) -> Received:
        filled, stride, others = 0, self._stride, list[bytes]()
        receive, rooms = self._socket.recvmsg_into, self._rooms
        while filled <= self._limit:
            try:
                length, ancillary, _, _ = receive(rooms[filled], 32)
            except BlockingIOError:
                break
            size = length
            for level, kind, data in ancillary:
                if level == _SOL_UDP and kind == _UDP_GRO:
                    size = int.from_bytes(data[:4], sys.byteorder)
            if size == stride:
                full, rest = divmod(length, stride)
                filled += full
                self._reads += 1
                self._datagrams += full
                if rest:
                    others.append(bytes(self._buffer[filled * stride : filled * stride + rest]))
            else:
                start, size = filled * stride, max(1, size)
                others += [
                    bytes(self._buffer[at : min(at + size, start + length)])
                    for at in range(start, start + length, size)
                ]
        return filled, others

    @property
    def mean_train(self) -> float:
        """Datagrams in a read, on average so far."""
        return self._datagrams / max(1, self._reads)

    def is_futile(self) -> bool:
        """Return whether trains turned out to be too short to be worth it."""
        return self._datagrams >= _SEEN_BEFORE_JUDGING and self.mean_train < _SHORT_TRAIN


class _BatchReader:
    """Reads many single datagrams a call: `recvmmsg`, which Python lacks."""

    def __init__(self, source: socket.socket, buffer: memoryview, stride: int) -> None:
        self._socket = source
        self._buffer, self._stride = buffer, stride
        slots = len(buffer) // stride
        base = ctypes.addressof(ctypes.c_char.from_buffer(buffer))
        self._vectors = (IoVector * slots)(*(IoVector(base + slot * stride, stride) for slot in range(slots)))
        self._messages = (BatchedMessage * slots)()
        for message, vector in zip(self._messages, self._vectors, strict=True):
            message.header.vectors = ctypes.pointer(vector)
            message.header.vector_count = 1
        layout = {
            "names": ["flags", "length"],
            "formats": ["i4", "u4"],
            "offsets": [MessageHeader.flags.offset, BatchedMessage.length.offset],
            "itemsize": ctypes.sizeof(BatchedMessage),
        }
        results = np.frombuffer(self._messages, np.dtype(layout))  # type: ignore[call-overload]
        self._flags, self._lengths = results["flags"], results["length"]
        self._receive = ctypes.CDLL(None, use_errno=True).recvmmsg
        self._slots = slots

    def read(self) -> Received:
        count = self._receive(self._socket.fileno(), self._messages, self._slots, socket.MSG_DONTWAIT, None)
        if count <= 0:
            return 0, []
        whole = (self._lengths[:count] == self._stride) & (self._flags[:count] & socket.MSG_TRUNC == 0)
        if whole.all():
            return int(count), []
        others, stride, buffer = list[bytes](), self._stride, self._buffer
        slot = 0
        good = whole.tolist()
        while slot < count:
            if good[slot]:
                slot += 1
                continue
            others.append(bytes(buffer[slot * stride : slot * stride + int(self._lengths[slot])]))
            count -= 1  # the last one moves into the gap
            if slot < count:
                buffer[slot * stride : (slot + 1) * stride] = buffer[count * stride : (count + 1) * stride]
                good[slot], self._lengths[slot] = good[count], self._lengths[count]
        return int(count), others


class _SingleReader:
    """Reads one datagram a call, as every system can."""

    def __init__(self, source: socket.socket, buffer: memoryview, stride: int) -> None:
        self._socket = source
        # One byte more than a slot, to tell a longer datagram from one that fits.
        self._rooms = [buffer[at : at + stride + 1] for at in range(0, len(buffer) - stride, stride)]
        self._stride = stride

    def read(self) -> Received:
        filled, others = 0, list[bytes]()
        while filled < len(self._rooms) and len(others) < len(self._rooms):
            try:
                length = self._socket.recv_into(self._rooms[filled])
            except BlockingIOError:
                break
            except OSError:  # Windows says so when a datagram is longer than its room: none of ours
                others.append(b"")
                continue
            if length == self._stride:
                filled += 1
            else:
                others.append(bytes(self._rooms[filled][:length]))
        return filled, others


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
    """Return a `struct sockaddr_storage`."""
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
