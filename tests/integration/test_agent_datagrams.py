import logging
import os
import select
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import psutil
import pytest
from fleetcast_agent.receiving.errors import MulticastError
from fleetcast_agent.receiving.multicast.listening import Listener
from fleetcast_agent.receiving.multicast.reception.reception import Reception
from fleetcast_agent.receiving.multicast.sockets.datagrams import GroupSocket
from fleetcast_agent.receiving.multicast.sockets.interfaces import (
    find_interface,
    interface_towards,
    largest_payload_bytes,
    unfit_for_multicast,
)
from fleetcast_agent.receiving.multicast.sockets.membership import announce_membership
from fleetcast_agent.receiving.multicast.sockets.network import Network
from fleetcast_agent.receiving.multicast.sockets.readers import FASTEST, ReadingMethod, TrainReader, train_slots
from fleetcast_kit.process import logs
from fleetcast_wire.ciphers import PortableCipher, best_cipher
from fleetcast_wire.keys import SenderKeys
from fleetcast_wire.memory import Numbers, SymbolMemory
from fleetcast_wire.native import Opened
from fleetcast_wire.packet import HEADER_BYTES, SEAL_BYTES, Kind
from fleetcast_wire.seal import Opener, Sealer

GROUP, GROUP6 = "239.192.88.9", "ff15::88:9"
STRIDE, SLOTS = 1448, 200
UDP_SEGMENT = (17, 103)
NO_COALESCING = (17, 9999)
"""An option that no kernel has: as on one that does not coalesce."""


class Pair:
    """A group socket on the loopback, and one that sends to it."""

    def __init__(
        self,
        group: str,
        source: str = "",
        interface_name: str = "lo",
        buffer: memoryview | None = None,
        method: ReadingMethod = FASTEST,
    ) -> None:
        family = socket.AF_INET6 if ":" in group else socket.AF_INET
        self.buffer = buffer or memoryview(bytearray(SLOTS * STRIDE))
        interface = find_interface(interface_name, family)
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind(("::1" if ":" in group else "127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.receiver = GroupSocket(
            group,
            port,
            interface=interface,
            source_address=source,
            buffer=self.buffer,
            stride=STRIDE,
            receive_buffer_bytes=4 << 20,
            method=method,
        )
        self.sender = socket.socket(family, socket.SOCK_DGRAM)
        if family == socket.AF_INET6:
            self.sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, interface.index)
        else:
            self.sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
        try:
            self.sender.connect((group, port))
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        self.receiver.close()
        self.sender.close()

    def receive(self, count: int) -> tuple[list[bytes], list[bytes]]:
        """Returns `count` datagrams: those of the size of a slot, and the others."""
        full, others = list[bytes](), list[bytes]()
        deadline = time.monotonic() + 5
        while len(full) + len(others) < count and time.monotonic() < deadline:
            select.select([self.receiver], [], [], 0.2)
            filled, odd = self.receiver.receive()
            full += [bytes(self.buffer[slot * STRIDE : (slot + 1) * STRIDE]) for slot in filled.tolist()]
            others += odd
        return full, others


METHODS = {
    "coalescing": FASTEST,
    "batch": ReadingMethod(coalescing_option=NO_COALESCING),
    "coalescing without C": ReadingMethod(compiled=False),
    "batch without C": ReadingMethod(compiled=False, coalescing_option=NO_COALESCING),
    "single": ReadingMethod(batched=False),
}


@pytest.fixture(params=METHODS)
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    made = Pair(GROUP, method=METHODS[request.param])
    yield made
    made.close()


def test_datagrams_of_any_size_arrive_whole_and_apart(pair: Pair) -> None:
    sent = [bytes([index]) * STRIDE for index in range(60)]
    marks = [b"m" * 56, b"n" * 40, b"longer" * 400]
    for index, datagram in enumerate(sent):
        pair.sender.send(datagram)
        if index % 25 == 24:
            pair.sender.send(marks[index // 25])
    pair.sender.send(marks[2])
    full, others = pair.receive(len(sent) + len(marks))
    assert sorted(full) == sent
    assert sorted(map(len, others))[:2] == [40, 56]
    assert len(others) == 3


def test_trains_arrive_as_their_datagrams_whatever_their_size(pair: Pair) -> None:
    train = b"".join(bytes([index]) * STRIDE for index in range(40))
    pair.sender.setsockopt(*UDP_SEGMENT, STRIDE)
    pair.sender.send(train + b"tail")
    pair.sender.setsockopt(*UDP_SEGMENT, 100)
    pair.sender.send(b"s" * 950)
    full, others = pair.receive(51)
    assert full == [bytes([index]) * STRIDE for index in range(40)]
    assert sorted(len(other) for other in others) == [4, 50] + [100] * 9


@pytest.mark.skipif(best_cipher() is PortableCipher, reason="what opens while it receives was not built here")
@pytest.mark.parametrize("method", ["coalescing", "batch"])
def test_a_run_is_opened_as_it_comes_until_something_else_does(method: str) -> None:
    count, symbol_bytes = 600, STRIDE - HEADER_BYTES - SEAL_BYTES  # more than are opened at once
    keys, number = SenderKeys.fresh(), np.arange(count)
    sealer, opener = Sealer(keys, symbol_bytes, count), Opener(keys, symbol_bytes, 40 * train_slots(STRIDE))
    symbols, places, held = SymbolMemory(symbol_bytes, count), SymbolMemory(symbol_bytes, count), np.zeros(count, bool)
    symbols.content[:] = np.random.default_rng(5).bytes(count * symbol_bytes)
    sealed = sealer.seal_symbols(Kind.SOURCE, 1, 3, number, symbols)
    run = opener.run(places, bytes(sealed[:12]), held)
    assert run is not None
    made = Pair(GROUP, buffer=opener.buffer, method=METHODS[method])
    try:
        made.sender.setsockopt(*UDP_SEGMENT, STRIDE)
        strange = [bytes(STRIDE), b"short"]
        for first in range(0, count, 40):
            made.sender.send(sealed[first * STRIDE : (first + 40) * STRIDE])
            if first == 440:
                for datagram in strange:
                    made.sender.send(datagram)
        opened, full, others = list[Opened](), list[bytes](), list[bytes]()
        deadline = time.monotonic() + 5
        while sum(it.symbol_count for it in opened) + len(full) + len(others) < count + 2:
            assert time.monotonic() < deadline
            filled, odd = made.receiver.receive(run)
            full += [bytes(made.buffer[slot * STRIDE : (slot + 1) * STRIDE]) for slot in filled.tolist()]
            others += odd
            opened.append(run.take())
    finally:
        made.close()
    came = [it for it in opened if it.symbol_count]
    assert held.sum() == sum(it.symbol_count for it in came) >= 480
    assert (came[0].first_counter, came[-1].last_counter) == (0, np.flatnonzero(held)[-1])
    for symbol in np.flatnonzero(held).tolist():
        assert places.views[symbol] == symbols.views[symbol]
    assert full[0] == strange[0]
    assert others == strange[1:]
    rest = [sealed[symbol * STRIDE : (symbol + 1) * STRIDE] for symbol in np.flatnonzero(~held).tolist()]
    assert full[1:] == rest


def test_coalescing_that_brings_nothing_is_given_up() -> None:
    made = Pair(GROUP, method=ReadingMethod(judged_after_count=64))
    try:
        for _ in range(3):
            for index in range(64):
                made.sender.send(bytes([index]) * STRIDE)
            full, _ = made.receive(64)
            assert len(full) == 64
        assert not isinstance(made.receiver._reader, TrainReader)
        assert made.receiver.overflow_count == 0
    finally:
        made.close()


def test_a_host_without_the_fast_path_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    logs.once.cache_clear()
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            Pair(GROUP, method=METHODS["batch"]).close()
    assert [record.getMessage() for record in caplog.records].count(
        "this kernel does not coalesce datagrams (UDP_GRO): receiving costs more time"
    ) == 1


def test_what_the_socket_had_no_room_for_is_counted() -> None:
    made = Pair(GROUP)
    try:
        made.receiver._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        for _ in range(500):
            made.sender.send(bytes(STRIDE))
        full, _ = made.receive(1)
        while len(more := made.receiver.receive()[0]):  # what has room lies in the socket already
            full += [b""] * len(more)
        assert 0 < len(full) < 500
        assert made.receiver.overflow_count == 500 - len(full)
    finally:
        made.close()


@pytest.mark.parametrize("genuine", [False, True], ids=["rubbish", "a pass that goes on"])
def test_a_pass_ends_although_datagrams_never_cease(genuine: bool) -> None:
    made, ended, counts = Pair(GROUP), threading.Event(), SimpleNamespace(datagram_count=0)

    def receive(filled: Numbers, now: float) -> None:
        counts.datagram_count += len(filled) * genuine

    reception = SimpleNamespace(
        counts=counts, run=None, take_opened=lambda now: 0, receive=receive, take_events=list, repairing=False
    )
    listener = Listener(made.receiver, cast("Reception", reception), lambda _: None, stride=STRIDE)
    listener.start()
    try:
        listener.post(ended.set, when_drained=True)
        deadline = time.monotonic() + 30
        while not ended.is_set() and time.monotonic() < deadline:
            made.sender.send(bytes(STRIDE))
        assert ended.is_set()
    finally:
        listener.stop()
        made.sender.close()


def test_only_the_source_that_was_named_is_heard() -> None:
    heard, deaf = Pair(GROUP, source="127.0.0.1"), Pair("239.192.88.10", source="127.0.0.2")
    try:
        for made in (heard, deaf):
            made.sender.send(bytes(STRIDE))
        assert len(heard.receive(1)[0]) == 1
        select.select([deaf.receiver], [], [], 0.1)
        filled, others = deaf.receiver.receive()
        assert not len(filled)
        assert not others
    finally:
        heard.close()
        deaf.close()


def interface_for_ipv6_groups() -> str:
    """Returns an interface with a route for groups; the loopback has none."""
    for line in Path("/proc/net/ipv6_route").read_text().splitlines():
        destination, length, *_, name = line.split()
        if destination.startswith("ff00") and length == "08" and name != "lo":
            return name
    pytest.skip("no interface has a route for IPv6 multicast")


def test_groups_of_ipv6_are_heard_too() -> None:
    made = Pair(GROUP6, interface_name=interface_for_ipv6_groups())
    try:
        made.sender.send(bytes(STRIDE))
        assert len(made.receive(1)[0]) == 1
    finally:
        made.close()


def test_a_group_of_a_family_that_the_named_interface_lacks_is_left_to_unicast(monkeypatch: pytest.MonkeyPatch) -> None:
    addresses = {"lo": [SimpleNamespace(family=socket.AF_INET6, address="::1")]}
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: addresses)
    network = Network("lo")
    assert network.interface_for(GROUP6, "localhost").address == "::1"
    with pytest.raises(MulticastError, match="lo has no IPv4 address"):
        network.interface_for(GROUP, "localhost")


def test_an_address_that_is_no_group_is_refused() -> None:
    with pytest.raises(MulticastError, match=r"cannot join 10\.0\.0\.1 on lo"):
        Pair("10.0.0.1")


def test_interfaces_are_found_by_name_by_address_and_by_route() -> None:
    assert find_interface("127.0.0.1", socket.AF_INET).name == "lo"
    assert find_interface("lo", socket.AF_INET).address == "127.0.0.1"
    assert interface_towards("localhost", 9, socket.AF_INET).name == "lo"
    assert unfit_for_multicast(find_interface("lo", socket.AF_INET)) == ""
    assert largest_payload_bytes(find_interface("lo", socket.AF_INET)) == 65535 - 48
    with pytest.raises(MulticastError, match="no interface leads to"):
        interface_towards("nowhere.invalid", 9, socket.AF_INET)


def test_a_membership_is_announced_where_raw_sockets_are_allowed() -> None:
    if os.geteuid() != 0:
        pytest.skip("raw sockets need root")
    assert announce_membership(GROUP, find_interface("lo", socket.AF_INET))
