"""How this host is reached: the address that machines are told, the interface that multicast leaves by."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence

from fleetcast_kit.values.addresses import is_ip_address, join_address, split_address

_ANY_GROUP = ("239.192.0.1", 9)
"""A group address and a port: routing one datagram there, never sent, tells which address it would come from."""


def own_address(listen: str, port: int) -> str:
    """Returns the HOST:PORT by which a process that listens on `listen` dials itself."""
    host, _ = split_address(listen, field="listen")
    if is_ip_address(host) and ipaddress.ip_address(host).is_unspecified:
        host = "127.0.0.1"
    return join_address(host, port)


def reachable_address(listen: str, port: int, advertise: Sequence[str]) -> str:
    """Returns the HOST:PORT that others dial: the first advertised name, else where the server listens.

    A server that listens everywhere is reached by the address that its packets to a multicast group come from.
    """
    host, _ = split_address(listen, field="listen")
    if advertise:
        return join_address(split_address(advertise[0], field="advertise")[0], port)
    if is_ip_address(host) and ipaddress.ip_address(host).is_unspecified:
        host = _source_address()
    return join_address(host, port)


def multicast_interface(wanted: str, listen: str) -> str:
    """Returns the interface that multicast leaves by: the wanted one, else the one with the address in `listen`.

    Empty without either: the sender then takes the one of the default route.
    """
    host, _ = split_address(listen, field="listen")
    if wanted:
        return wanted
    if host == "localhost":
        return "127.0.0.1"
    return "" if not is_ip_address(host) or ipaddress.ip_address(host).is_unspecified else host


def _source_address() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(_ANY_GROUP)
            address = str(probe.getsockname()[0])
        except OSError:
            address = "127.0.0.1"  # no network at all: only this host can be served
    return address
