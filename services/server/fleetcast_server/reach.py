"""How this host is reached: the address that machines are told, the interface that multicast leaves by."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence

from fleetcast_kit.addresses import is_ip_address, join_address, split_address
from fleetcast_kit.errors import FailedPreconditionError

_ANY_GROUP = ("239.192.0.1", 9)
"""A group address and a port: routing one datagram there, never sent, tells which address it would come from."""


def with_port(listen: str) -> str:
    """Returns `listen` with a free port in the place of port 0.

    Certificates, senders and administrators are told the address before the port opens.
    """
    host, port = split_address(listen, field="listen")
    if port:
        return join_address(host, port)
    family = socket.AF_INET6 if is_ip_address(host) and ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.bind((host, 0))
            return join_address(host, probe.getsockname()[1])
    except OSError as error:
        raise FailedPreconditionError(f"cannot listen on {listen}: {error.strerror}; check --listen") from error


def reachable_address(listen: str, advertise: Sequence[str]) -> str:
    """Returns the HOST:PORT that others dial: the first advertised name, else where the server listens.

    A server that listens everywhere is reached by the address that its packets to a multicast group come from.
    """
    host, port = split_address(listen, field="listen")
    if advertise:
        return join_address(split_address(advertise[0], field="advertise")[0], port)
    if is_ip_address(host) and ipaddress.ip_address(host).is_unspecified:
        host = _source_address()
    return join_address(host, port)


def multicast_interface(wanted: str, listen: str) -> str:
    """Returns the interface that multicast leaves by: the wanted one, else the one that `listen` names.

    Without either it is the one of the route to the groups; a server of the loopback stays there.
    """
    if wanted:
        return wanted
    host, _ = split_address(listen, field="listen")
    if host == "localhost":
        return "127.0.0.1"
    if is_ip_address(host) and not ipaddress.ip_address(host).is_unspecified:
        return host
    return _source_address()


def _source_address() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(_ANY_GROUP)
            address = str(probe.getsockname()[0])
        except OSError:
            address = "127.0.0.1"  # no network at all: only this host can be served
    return address
