"""The socket of one transmission: one group, one port, whole trains of datagrams in one call."""

import contextlib
import ctypes
import errno
import logging
import socket
import struct
import time
from functools import partial

from fleetcast_kit.errors import FailedPreconditionError, UnavailableError
from fleetcast_kit.network.batched_messages import BatchedMessage, IoVector
from fleetcast_kit.process import logs

from fleetcast_sender.sending.interfaces import Interface, IPAddress

_warn_once = partial(logs.once, logging.getLogger(__name__), logging.WARNING)

# linux/udp.h, linux/in.h, linux/in6.h and asm/socket.h; Python 3.11 has no names for them.
_UDP_SEGMENT = 103
_IP_MTU_DISCOVER, _IP_PMTUDISC_DO = 10, 2
_IPV6_MTU_DISCOVER, _IPV6_PMTUDISC_DO = 23, 2
_SO_SNDBUFFORCE = 32

MAX_TRAIN_DATAGRAMS = 44
_MAX_TRAIN_BYTES = 65_000
"""A segmented send is one UDP datagram for the kernel until it is cut: at most 65,507 bytes with headers."""
_PATIENCE_SECONDS = 10.0
"""How long a network that is down may stay so before the transmission gives up."""
_TRANSIENT = (errno.ENOBUFS, errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.EPERM)


def train_limit(datagram_bytes: int) -> int:
    """Returns how many datagrams of this size go out in one call at most."""
    return max(1, min(MAX_TRAIN_DATAGRAMS, _MAX_TRAIN_BYTES // datagram_bytes))


class GroupSocket:
    """Sends to one group. Blocks while the interface's queue is full: the best pacing where the link is the bottleneck.

    Args:
        group: address of the group.
        port: UDP port.
        interface: that the datagrams leave by.
        ttl: how many routers they may pass, plus one.
        loop: whether receivers on this host hear them.
        datagram_bytes: size of every datagram of a train.
        send_buffer_bytes: what the kernel may queue.
        segmentation: whether the kernel may be asked to cut trains.

    Raises:
        FailedPreconditionError: the interface cannot send to the group.
    """

    def __init__(
        self,
        group: IPAddress,
        port: int,
        interface: Interface,
        *,
        ttl: int,
        loop: bool,
        datagram_bytes: int,
        send_buffer_bytes: int,
        segmentation: bool = True,
    ) -> None:
        self._datagram_bytes = datagram_bytes
        self._interface = interface.name
        self._what = (
            f"[{group}]:{port} by {interface.name}" if group.version == 6 else f"{group}:{port} by {interface.name}"
        )
        self._batch: _Batch | None = None
        source = interface.address(group.version)
        if source is None:
            raise FailedPreconditionError(
                f"interface {interface.name} has no IPv{group.version} address to send to {group} from"
            )
        family = socket.AF_INET if group.version == 4 else socket.AF_INET6
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        try:
            if group.version == 4:
                request = struct.pack("4s4si", b"", source.packed, interface.index)
                self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, request)
                self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, ttl)
                self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, int(loop))
                self._socket.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_DO)
                self._socket.connect((str(group), port))
            else:
                self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, interface.index)
                self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, ttl)
                self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, int(loop))
                self._socket.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _IPV6_PMTUDISC_DO)
                self._socket.connect((str(group), port, 0, interface.index))
            self._size_buffer(send_buffer_bytes)
            self._segments = segmentation and self._try_segmentation()
        except OSError as error:
            self._socket.close()
            v6_loopback = group.version == 6 and interface.loopback
            hint = ": Linux has no IPv6 groups on the loopback, choose another interface" if v6_loopback else ""
            raise FailedPreconditionError(f"cannot send to {self._what}: {error.strerror}{hint}") from error

    @property
    def source_address(self) -> str:
        """The address that the datagrams come from."""
        return str(self._socket.getsockname()[0])

    def send_train(self, train: memoryview) -> None:
        """Send datagrams of equal size that lie end to end.

        Raises:
            UnavailableError: the network was down for too long.
            FailedPreconditionError: the kernel refuses such datagrams for good.
        """
        if len(train) == self._datagram_bytes or not self._segments:
            self._send_each(train)
            return
        try:
            self._socket.send(train)
        except OSError as error:
            # EIO: kernels before 6.11 cannot cut a train for an interface without checksum offload.
            if error.errno in (errno.EIO, errno.EINVAL, errno.EOPNOTSUPP):
                self._without_segmentation(error)
                self._send_each(train)
            else:
                self._retry(train, error)

    def send(self, datagram: bytes) -> None:
        """Send one datagram of any size."""
        try:
            self._socket.send(datagram)
        except OSError as error:
            self._retry(memoryview(datagram), error)

    def close(self) -> None:
        """Release the port."""
        self._socket.close()

    def _size_buffer(self, size_bytes: int) -> None:
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, size_bytes)
        except OSError:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size_bytes)

    def _try_segmentation(self) -> bool:
        try:
            self._socket.setsockopt(socket.IPPROTO_UDP, _UDP_SEGMENT, self._datagram_bytes)
        except OSError as error:
            _warn_once(f"the kernel cuts no trains of datagrams ({error.strerror}): sending costs more")
            return False
        return True

    def _without_segmentation(self, error: OSError) -> None:
        self._segments = False
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.IPPROTO_UDP, _UDP_SEGMENT, 0)
        _warn_once(f"{self._interface} cuts no trains of datagrams ({error.strerror}): sending costs more")

    def _send_each(self, train: memoryview) -> None:
        if len(train) > self._datagram_bytes and _sendmmsg is not None:
            if self._batch is None:
                self._batch = _Batch(self._datagram_bytes)
            sent = self._batch.send(self._socket.fileno(), train)
            train = train[sent * self._datagram_bytes :]
        for start in range(0, len(train), self._datagram_bytes):
            datagram = train[start : start + self._datagram_bytes]
            try:
                self._socket.send(datagram)
            except OSError as error:
                self._retry(datagram, error)

    def _retry(self, data: memoryview, error: OSError) -> None:
        give_up_at = time.monotonic() + _PATIENCE_SECONDS
        while True:
            if error.errno not in _TRANSIENT:
                raise FailedPreconditionError(
                    f"cannot send {len(data)} bytes to {self._what}: {error.strerror}"
                ) from error
            if time.monotonic() > give_up_at:
                raise UnavailableError(
                    f"cannot send to {self._what} for {_PATIENCE_SECONDS:g} s: {error.strerror}"
                ) from error
            time.sleep(0.001 if error.errno == errno.ENOBUFS else 0.05)
            try:
                self._socket.send(data)
            except OSError as again:
                error = again
            else:
                return


_sendmmsg = getattr(ctypes.CDLL(None, use_errno=True), "sendmmsg", None)


class _Batch:
    """The arguments of sendmmsg for trains of one datagram size, made once."""

    def __init__(self, datagram_bytes: int) -> None:
        self._datagram_bytes = datagram_bytes
        self._vectors = (IoVector * MAX_TRAIN_DATAGRAMS)()
        self._messages = (BatchedMessage * MAX_TRAIN_DATAGRAMS)()
        for vector, message in zip(self._vectors, self._messages, strict=True):
            vector.length = datagram_bytes
            message.header.vectors = ctypes.pointer(vector)
            message.header.vector_count = 1
        self._base = 0

    def send(self, descriptor: int, train: memoryview) -> int:
        """Send a train and return how many of its datagrams the kernel took."""
        count = len(train) // self._datagram_bytes
        base = ctypes.addressof(ctypes.c_char.from_buffer(train))
        if base != self._base:
            for index, vector in enumerate(self._vectors):
                vector.base = base + index * self._datagram_bytes
            self._base = base
        assert _sendmmsg is not None  # noqa: S101 - the caller looked
        return max(0, int(_sendmmsg(descriptor, self._messages, count, 0)))
