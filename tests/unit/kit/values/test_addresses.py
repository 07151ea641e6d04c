import pytest
from fleetcast_kit.values.addresses import peer_address


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:192.0.2.1:50000", "192.0.2.1"),
        ("ipv6:%5B2001:db8::1%5D:50000", "2001:db8::1"),
        ("ipv6:%5Bfe80::1%25eth0%5D:50000", "fe80::1"),
        ("ipv6:[::ffff:192.0.2.7]:50000", "192.0.2.7"),
        ("unix:/run/socket", ""),
        ("ipv4:nowhere:1", ""),
        ("", ""),
    ],
)
def test_the_address_of_a_peer_is_read_from_what_the_transport_says(peer: str, address: str) -> None:
    assert peer_address(peer) == address
