import pytest
from fleetcast_server.reach import ToldAddress, multicast_interface


def test_multicast_leaves_by_the_wanted_interface_or_the_one_that_is_listened_on() -> None:
    assert multicast_interface("eth1", "0.0.0.0:7443") == "eth1"
    assert multicast_interface("", "10.1.2.3:7443") == "10.1.2.3"
    assert multicast_interface("", "[::]:7443") == ""
    assert multicast_interface("", "localhost:7443") == "127.0.0.1"


def test_a_machine_is_told_the_address_that_the_server_has_towards_it() -> None:
    told = ToldAddress("[::]:7443", ())
    told.own = "192.0.2.9:7443"
    assert told("192.0.2.9:7443", "127.0.0.1") == "127.0.0.1:7443"


@pytest.mark.parametrize(
    ("listen", "advertise", "sender", "machine"),
    [
        ("[::]:7443", ("images.lan",), "192.0.2.9:7443", "127.0.0.1"),
        ("192.0.2.9:7443", (), "192.0.2.9:7443", "127.0.0.1"),
        ("[::]:7443", (), "198.51.100.7:7443", "127.0.0.1"),
        ("[::]:7443", (), "192.0.2.9:7443", ""),
    ],
)
def test_what_was_advertised_and_other_senders_are_told_as_they_are(
    listen: str, advertise: tuple[str, ...], sender: str, machine: str
) -> None:
    told = ToldAddress(listen, advertise)
    told.own = "192.0.2.9:7443"
    assert told(sender, machine) == sender
