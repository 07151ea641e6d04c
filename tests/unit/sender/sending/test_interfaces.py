"""Which interface multicast leaves by when nobody named one."""

import ipaddress

import pytest
from fleetcast_kit.errors import FailedPreconditionError
from fleetcast_sender.sending.interfaces import Interface, choose_interface


def interface(
    name: str, *addresses: str, multicast: bool = True, running: bool = True, loopback: bool = False
) -> Interface:
    own = tuple(map(ipaddress.ip_interface, addresses))
    ipv4 = next((one.ip for one in own if isinstance(one, ipaddress.IPv4Interface)), None)
    ipv6 = next((one.ip for one in own if isinstance(one, ipaddress.IPv6Interface)), None)
    return Interface(name, 1, 1500, ipv4, ipv6, loopback, multicast, 0, running=running, addresses=own)


LOOPBACK = interface("lo", "127.0.0.1/8", "::1/128", loopback=True)
ROOM = interface("room0", "10.77.0.1/24", "10.77.9.1/24", "fe80::1/64")
OFFICE = interface("office0", "192.0.2.2/24")


def test_the_only_one_that_can_send_is_taken() -> None:
    others = [interface("tunnel0", "10.8.0.1/32", multicast=False), interface("empty0")]
    unplugged = interface("cable0", "198.51.100.1/24", running=False)
    assert choose_interface([LOOPBACK, *others, ROOM, unplugged]) == ROOM


def test_one_with_link_local_addresses_alone_is_taken_only_where_there_is_no_other() -> None:
    unset, zeroconf = interface("cable1", "fe80::7/64"), interface("cable2", "169.254.7.7/16")
    assert choose_interface([LOOPBACK, unset, ROOM]) == ROOM
    assert choose_interface([LOOPBACK, zeroconf]) == zeroconf


def test_the_one_with_an_advertised_address_is_taken() -> None:
    assert choose_interface([LOOPBACK, OFFICE, ROOM], ["images.lan", "10.77.0.1"]).name == "room0"


def test_a_secondary_address_that_is_advertised_is_what_datagrams_come_from() -> None:
    chosen = choose_interface([OFFICE, ROOM], ["10.77.9.1"])
    assert (chosen.name, str(chosen.ipv4)) == ("room0", "10.77.9.1")
    assert chosen.subnets == ("10.77.0.0/24", "10.77.9.0/24")


def test_several_are_refused_with_their_addresses_and_the_flag_to_set() -> None:
    with pytest.raises(FailedPreconditionError) as refused:
        choose_interface([LOOPBACK, OFFICE, ROOM], ["images.lan", "203.0.113.9"], flag="--multicast-interface")
    assert "office0 (192.0.2.2/24), room0 (10.77.0.1/24, 10.77.9.1/24)" in refused.value.message
    assert "--multicast-interface NAME|ADDRESS" in refused.value.message


def test_without_a_network_multicast_stays_on_the_host_and_the_log_says_so(caplog: pytest.LogCaptureFixture) -> None:
    assert choose_interface([LOOPBACK, interface("cable0", running=False)]) == LOOPBACK
    assert "no network interface is connected" in caplog.text
