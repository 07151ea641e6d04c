import pytest
from fleetcast_server.reach import multicast_interface, reachable_address, with_port


@pytest.mark.parametrize(
    ("listen", "advertise", "address"),
    [
        ("10.1.2.3:7443", (), "10.1.2.3:7443"),
        ("localhost:7000", (), "localhost:7000"),
        ("[::]:7000", ("deploy.example.org", "10.1.2.3"), "deploy.example.org:7000"),
        ("[fd97::1]:7443", (), "[fd97::1]:7443"),
        ("[::]", ("fd97::1",), "[fd97::1]:7443"),
    ],
)
def test_machines_are_told_what_is_advertised_or_where_the_server_listens(
    listen: str, advertise: tuple[str, ...], address: str
) -> None:
    assert reachable_address(listen, advertise) == address


def test_multicast_leaves_by_the_wanted_interface_or_the_one_that_is_listened_on() -> None:
    assert multicast_interface("eth1", "0.0.0.0:7443") == "eth1"
    assert multicast_interface("", "10.1.2.3:7443") == "10.1.2.3"
    assert multicast_interface("", "localhost:7443") == "127.0.0.1"


def test_a_given_port_is_kept() -> None:
    assert with_port("10.1.2.3:7000") == "10.1.2.3:7000"
    assert with_port("[fd97::1]") == "[fd97::1]:7443"
