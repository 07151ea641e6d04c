"""Senders: what they offer, and the leases of groups and ports."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from itertools import islice

SAMPLE_COUNT = 64
"""Machines of one session are mostly in few subnets, and a decision is to take milliseconds."""

Lease = tuple[str, int]
"""A group address and a UDP port."""


@dataclass(frozen=True, slots=True)
class Registration:
    """What a sender offers; the fields are those of the API."""

    address: str
    first_group: str
    last_group: str
    first_port: int
    last_port: int
    interface: str = ""
    link_bits_per_second: int = 0
    max_concurrent: int = 0
    site: str = ""
    subnets: tuple[str, ...] = ()
    """Those that its interface is in, such as `192.0.2.0/24`."""


@dataclass(slots=True, kw_only=True)
class Sender:
    """A sender that has registered at some time."""

    name: str
    """`senders/{id}`."""
    registration: Registration
    register_time: float
    contact_time: float
    """When it was last connected."""
    draining: bool = False
    """It gets no more sessions."""
    epoch: int = 0
    """Number of its present stream; 0 when there is none. Not stored."""

    @property
    def connected(self) -> bool:
        """True while it is connected."""
        return self.epoch > 0


class Neighbourhood:
    """Where machines are, as far as their addresses tell; many are judged by the first `SAMPLE_COUNT` of them."""

    def __init__(self, addresses: Iterable[str]) -> None:
        known = islice(filter(None, addresses), SAMPLE_COUNT)
        self._addresses = [ip_address(address) for address in known]

    def count(self, subnets: Iterable[str]) -> int:
        """Returns how many of them are in one of the subnets."""
        networks = [_network(subnet) for subnet in subnets] if self._addresses else []
        return sum(any(address in network for network in networks) for address in self._addresses)


def multicast_warning(sender: str, registration: Registration, addresses: Iterable[str]) -> str:
    """Returns why multicast may not reach machines, and what to do; empty if one is in a subnet of the interface.

    Args:
        sender: `senders/{id}`.
        registration: what it offers.
        addresses: of the machines; empty ones are not known.
    """
    known = list(islice(filter(None, addresses), SAMPLE_COUNT))
    if not known or not registration.subnets or Neighbourhood(known).count(registration.subnets):
        return ""
    return (
        f"no machine is in a subnet of {registration.interface} ({', '.join(registration.subnets)}), by which the "
        f"multicast of {sender} leaves; one calls from {known[0]}: if it is the wrong interface, start "
        "fleetcast-server with --multicast-interface, or fleetcast-sender with --interface; else the routers have to "
        "forward multicast, or every machine is served by unicast"
    )


_network = lru_cache(maxsize=1024)(ip_network)


def choose_lease(registration: Registration, taken: Collection[Lease], seed: str) -> Lease | None:
    """Returns a group and port of the sender's range that nobody has; None when there is none.

    A group that nobody uses comes first, whatever the port: switches filter by group alone. `seed` spreads the choice,
    so that a group is not used again at once.
    """
    first = ip_address(registration.first_group)
    group_count = int(ip_address(registration.last_group)) - int(first) + 1
    port_count = registration.last_port - registration.first_port + 1
    start = zlib.crc32(seed.encode())
    taken_groups = {group for group, _ in taken}

    def groups() -> Iterator[str]:
        for offset in range(min(group_count, len(taken_groups) + 1)):
            yield _address(first, (start + offset) % group_count)

    for group in groups():
        if group not in taken_groups:
            return group, registration.first_port + start % port_count
    for group in groups():
        for offset in range(min(port_count, len(taken) + 1)):
            lease = (group, registration.first_port + (start + offset) % port_count)
            if lease not in taken:
                return lease
    return None


def _address(first: IPv4Address | IPv6Address, offset: int) -> str:
    return str(first + offset)
