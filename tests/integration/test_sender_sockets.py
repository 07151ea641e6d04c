import errno
import os
import socket
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from fleetcast_kit.errors import FailedPreconditionError, InvalidArgumentError
from fleetcast_kit.process import logs
from fleetcast_sender.sending.groups import parse_group
from fleetcast_sender.sending.interfaces import find_interface
from fleetcast_sender.sending.sockets import GroupSocket

GROUP = "239.192.78.3"
DATAGRAM_BYTES = 1448


@pytest.fixture
def receiver() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.bind((GROUP, 0))
        request = struct.pack("4s4si", socket.inet_aton(GROUP), socket.inet_aton("127.0.0.1"), 0)
        opened.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, request)
        opened.settimeout(5)
        yield opened


@pytest.mark.parametrize("segmentation", [True, False])
@pytest.mark.parametrize("count", [1, 2, 44])
def test_a_train_arrives_as_its_datagrams_with_and_without_the_kernels_help(
    receiver: socket.socket, segmentation: bool, count: int
) -> None:
    train = bytearray(b"".join(bytes([index]) * DATAGRAM_BYTES for index in range(count)))
    sender = GroupSocket(
        parse_group(GROUP),
        receiver.getsockname()[1],
        find_interface("lo"),
        ttl=0,
        loop=False,
        datagram_bytes=DATAGRAM_BYTES,
        send_buffer_bytes=1 << 20,
        segmentation=segmentation,
    )
    try:
        for _ in range(2):
            sender.send_train(memoryview(train))
            received = [receiver.recv(2000) for _ in range(count)]
            assert received == [bytes([index]) * DATAGRAM_BYTES for index in range(count)]
        sender.send(b"a mark")
        assert receiver.recv(2000) == b"a mark"
        assert sender.source_address == "127.0.0.1"
    finally:
        sender.close()


def test_an_interface_that_cuts_no_trains_is_said_once_and_every_datagram_leaves(
    receiver: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    logs.once.cache_clear()
    for _ in range(2):
        sender = GroupSocket(
            parse_group(GROUP),
            receiver.getsockname()[1],
            find_interface("lo"),
            ttl=0,
            loop=False,
            datagram_bytes=DATAGRAM_BYTES,
            send_buffer_bytes=1 << 20,
        )
        whole = sender._socket
        sender._socket = RefusesTrains(whole)  # type: ignore[assignment]
        try:
            sender.send_train(memoryview(bytearray(3 * DATAGRAM_BYTES)))
            assert [len(receiver.recv(2000)) for _ in range(3)] == [DATAGRAM_BYTES] * 3
        finally:
            whole.close()
    assert [record.getMessage() for record in caplog.records] == [
        "lo cuts no trains of datagrams (Input/output error): sending costs more"
    ]


class RefusesTrains:
    """A socket of a kernel before 6.11 on an interface without checksum offload."""

    def __init__(self, whole: socket.socket) -> None:
        self._whole = whole

    def send(self, train: memoryview) -> int:
        if len(train) > DATAGRAM_BYTES:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return self._whole.send(train)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._whole, name)


def test_an_interface_is_found_by_name_and_by_address() -> None:
    assert find_interface("lo") == find_interface("127.0.0.1")
    assert find_interface("lo").loopback


def test_an_unknown_interface_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidArgumentError, match=r"'nowhere0'.*lo"):
        find_interface("nowhere0")


def test_a_group_of_a_family_that_the_interface_lacks_is_refused() -> None:
    lo = find_interface("lo")
    if lo.ipv6 is None:
        pytest.skip("this host has no IPv6")
    with pytest.raises(FailedPreconditionError, match=r"cannot send to .* choose another interface"):
        GroupSocket(
            parse_group("ff05::f1ee:4001"), 64000, lo, ttl=1, loop=False, datagram_bytes=1448, send_buffer_bytes=1 << 16
        )
