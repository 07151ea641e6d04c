from __future__ import annotations

import socket

import pytest
from fleetcast_kit.errors import UnavailableError
from fleetcast_kit.network import wake_on_lan

MAC = "aa:bb:cc:00:00:01"


def test_a_magic_packet_is_six_ones_and_the_address_sixteen_times() -> None:
    assert wake_on_lan.magic_packet(MAC) == b"\xff" * 6 + bytes.fromhex("aabbcc000001") * 16
    with pytest.raises(ValueError, match="is not a MAC address"):
        wake_on_lan.magic_packet("aa:bb")


def test_only_subnets_that_have_a_broadcast_address_are_woken() -> None:
    subnets = ["192.0.2.7/24", "198.51.100.0/31", "2001:db8::/64"]
    assert wake_on_lan.broadcast_addresses(subnets) == ["192.0.2.255"]


async def test_each_machine_is_sent_its_packet_several_times() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as card:
        card.bind(("127.0.0.1", 0))
        card.settimeout(5)
        await wake_on_lan.wake([MAC], ["127.0.0.1"], port=card.getsockname()[1])
        assert [card.recv(200) for _ in range(3)] == [wake_on_lan.magic_packet(MAC)] * 3


async def test_a_wake_up_that_cannot_be_sent_says_so() -> None:
    with pytest.raises(UnavailableError, match="no wake-up could be sent"):
        await wake_on_lan.wake([MAC], ["0.0.0.256"])
