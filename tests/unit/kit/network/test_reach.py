import asyncio

import pytest
from fleetcast_kit.network.reach import address_towards, local_address, own_address, reachable_address


@pytest.mark.parametrize(
    ("listen", "advertise", "address"),
    [
        ("10.1.2.3:0", (), "10.1.2.3:7000"),
        ("localhost:7000", (), "localhost:7000"),
        ("[::]:7000", ("deploy.example.org", "10.1.2.3"), "deploy.example.org:7000"),
        ("[fd97::1]", (), "[fd97::1]:7000"),
        ("[::]", ("fd97::1",), "[fd97::1]:7000"),
        ("[::]", (), "192.0.2.9:7000"),
        ("0.0.0.0:7443", (), "192.0.2.9:7000"),
    ],
)
def test_machines_are_told_what_is_advertised_or_where_the_server_listens(
    listen: str, advertise: tuple[str, ...], address: str
) -> None:
    assert reachable_address(listen, 7000, advertise, "192.0.2.9") == address


def test_a_server_dials_itself_where_it_listens() -> None:
    assert own_address("10.1.2.3:0", 7000) == "10.1.2.3:7000"
    assert own_address("[::]:7443", 7443) == "127.0.0.1:7443"


def test_the_address_towards_this_host_is_its_loopback_address() -> None:
    assert address_towards("127.0.0.1") == "127.0.0.1"
    assert not address_towards("no address")


@pytest.mark.parametrize("host", ["localhost", "192.0.2.1"])
def test_commands_use_the_address_that_machines_are_told_where_it_is_known(host: str) -> None:
    assert asyncio.run(local_address(f"{host}:7443", "127.0.0.1:7443")) == f"{host}:7443"


def test_commands_fall_back_to_loopback_where_the_advertised_name_is_not_known(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert asyncio.run(local_address("a..b:7443", "127.0.0.1:7443")) == "127.0.0.1:7443"
    assert "does not know a..b" in caplog.text
