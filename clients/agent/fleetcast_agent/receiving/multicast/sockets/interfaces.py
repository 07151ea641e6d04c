"""Network interfaces by name or address, and whether they are fit for multicast."""

from __future__ import annotations

import socket
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil

from fleetcast_agent.receiving.errors import InterfaceError, MulticastError

INTERFACES = Path("/sys/class/net")
"""Where Linux describes each interface; other systems describe none there."""
_USUAL_MTU_BYTES = 1500
_MAX_DATAGRAM_BYTES = 65535
_HEADERS_BYTES = 48
"""IPv6 (40) and UDP (8)."""


@dataclass(frozen=True)
class Interface:
    """A network interface and its address of one family."""

    name: str
    index: int
    address: str
    """IPv4 or IPv6; empty if it has none of the family asked for (IPv6 groups need none)."""


def find_interface(wanted: str, family: socket.AddressFamily) -> Interface:
    """Returns the interface with the name or address `wanted`.

    Raises:
        InterfaceError: there is none, or it has no address of the family.
    """
    known = psutil.net_if_addrs()
    for name, entries in known.items():
        addresses = [(entry.family, entry.address.partition("%")[0]) for entry in entries]
        if wanted != name and wanted not in (address for _, address in addresses):
            continue
        mine = [address for kind, address in addresses if kind == family]
        if not mine and family == socket.AF_INET:
            raise InterfaceError(
                f"the interface {wanted} has no IPv4 address: name another with --multicast-interface",
                field="multicast_interface",
            )
        address = wanted if wanted in mine else (mine or [""])[0]
        return Interface(name, _index(name), address)
    raise InterfaceError(
        f"there is no interface {wanted!r}: --multicast-interface takes the name or address of one of "
        f"{', '.join(sorted(known))}",
        field="multicast_interface",
    )


def interface_towards(host: str, port: int, family: socket.AddressFamily) -> Interface:
    """Returns the interface by which this machine reaches `host`.

    Raises:
        MulticastError: there is no route, or no interface has the address that the route uses.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
        for kind, _, _, _, address in sorted(found, key=lambda entry: entry[0] != family):
            with socket.socket(kind, socket.SOCK_DGRAM) as probe:
                probe.connect(address)  # sends nothing: asks the routing table
                local = str(probe.getsockname()[0])
            return find_interface(find_interface(local, kind).name, family)
    except (OSError, InterfaceError) as error:
        raise MulticastError(f"no interface leads to {host}: {error}") from error
    raise MulticastError(f"no interface leads to {host}")


def largest_payload_bytes(interface: Interface) -> int:
    """Returns the largest UDP payload that an interface sends or takes unfragmented, over IPv4 and IPv6."""
    statistics = psutil.net_if_stats().get(interface.name)
    if statistics is None or statistics.mtu <= 0:
        return _USUAL_MTU_BYTES - _HEADERS_BYTES
    return min(statistics.mtu, _MAX_DATAGRAM_BYTES) - _HEADERS_BYTES


def link_bits_per_second(interface: Interface) -> int:
    """Returns the speed that an interface says it has; 0 if it says none."""
    statistics = psutil.net_if_stats().get(interface.name)
    return max(0, statistics.speed) * 1_000_000 if statistics else 0


def unfit_for_multicast(interface: Interface, interfaces: Path = INTERFACES) -> str:
    """Returns why multicast should not be received on an interface; empty if it should.

    `interfaces` is the directory in which the system describes each.
    """
    entry = interfaces / interface.name
    if (entry / "wireless").exists() or (entry / "phy80211").exists():
        return f"{interface.name} is a wireless interface"
    try:
        flags = int((entry / "flags").read_text(), 16)
    except (OSError, ValueError):
        return ""
    if not flags & 0x1000 and not flags & 0x8:  # IFF_MULTICAST, IFF_LOOPBACK
        return f"{interface.name} takes no multicast"
    return "" if flags & 0x1 else f"{interface.name} is down"


def _index(name: str) -> int:
    try:
        return socket.if_nametoindex(name)
    except OSError:
        if sys.platform == "linux":
            raise
        return 0
