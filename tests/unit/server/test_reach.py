import pytest
from fleetcast_server.reach import multicast_interface, own_address, reachable_address


@pytest.mark.parametrize(
    ("listen", "advertise", "address"),
    [
        ("10.1.2.3:0", (), "10.1.2.3:7000"),
        ("localhost:7000", (), "localhost:7000"),
        ("[::]:7000", ("deploy.example.org", "10.1.2.3"), "deploy.example.org:7000"),
        ("[fd97::1]", (), "[fd97::1]:7000"),
        ("[::]", ("fd97::1",), "[fd97::1]:7000"),
    ],
)
def test_machines_are_told_what_is_advertised_or_where_the_server_listens(
    listen: str, advertise: tuple[str, ...], address: str
) -> None:
    assert reachable_address(listen, 7000, advertise) == address


def test_multicast_leaves_by_the_wanted_interface_or_the_one_that_is_listened_on() -> None:
    assert multicast_interface("eth1", "0.0.0.0:7443") == "eth1"
    assert multicast_interface("", "10.1.2.3:7443") == "10.1.2.3"
    assert multicast_interface("", "[::]:7443") == ""
    assert multicast_interface("", "localhost:7443") == "127.0.0.1"


def test_a_server_dials_itself_where_it_listens() -> None:
    assert own_address("10.1.2.3:0", 7000) == "10.1.2.3:7000"
    assert own_address("[::]:7443", 7443) == "127.0.0.1:7443"
