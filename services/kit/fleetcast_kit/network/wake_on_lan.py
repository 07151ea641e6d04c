"""Wake-on-LAN: magic packets, broadcast where machines sleep."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network, ip_network

from fleetcast_kit.errors import UnavailableError

PORT = 9
"""Discard, the customary port; the network card looks at the content alone."""
EVERYWHERE = "255.255.255.255"
"""The subnet of the default route."""
_REPEAT_COUNT = 3
_REPEAT_SECONDS = 0.1
_BURST_COUNT = 100
"""Machines that are woken at once: power supplies and switches are spared the rest for a moment."""


def magic_packet(mac_address: str) -> bytes:
    """Returns the packet that wakes the card with an address such as `aa:bb:cc:dd:ee:ff`.

    Raises:
        ValueError: it is no such address.
    """
    address = bytes.fromhex(mac_address.replace(":", ""))
    if len(address) != 6:
        raise ValueError(f"{mac_address!r} is not a MAC address: write aa:bb:cc:dd:ee:ff")
    return b"\xff" * 6 + address * 16


def broadcast_addresses(subnets: Iterable[str]) -> list[str]:
    """Returns the broadcast addresses of the IPv4 subnets among `subnets`, such as `192.0.2.0/24`."""
    networks = [ip_network(subnet, strict=False) for subnet in subnets]
    return [
        str(network.broadcast_address)
        for network in networks
        if isinstance(network, IPv4Network) and network.prefixlen < 31
    ]


async def wake(mac_addresses: Sequence[str], addresses: Sequence[str] = (EVERYWHERE,), *, port: int = PORT) -> None:
    """Sends each machine's packet to each of the broadcast addresses, several times, for none is acknowledged.

    Raises:
        UnavailableError: nothing could be sent; the sentence says why.
    """
    failure: OSError | None = None
    sent_count = 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plug:
        plug.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        plug.setblocking(False)  # a full buffer drops a packet, which the repetition makes good
        for _ in range(_REPEAT_COUNT):
            for start in range(0, len(mac_addresses), _BURST_COUNT):
                for mac_address in mac_addresses[start : start + _BURST_COUNT]:
                    for address in addresses:
                        try:
                            plug.sendto(magic_packet(mac_address), (address, port))
                            sent_count += 1
                        except OSError as error:
                            failure = error
                await asyncio.sleep(_REPEAT_SECONDS)
    if failure is not None and not sent_count:
        raise UnavailableError(f"no wake-up could be sent to {', '.join(addresses)}: {failure}") from failure
