"""How this host is reached: the address that others are told, and the one that it dials itself at."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Sequence

from fleetcast_kit.values.addresses import is_ip_address, join_address, split_address

_logger = logging.getLogger(__name__)

_ANY_PORT = 9
RESOLVE_SECONDS = 3.0
"""How long a name service may take to say whether it knows a name."""


def listens_everywhere(listen: str) -> bool:
    """Returns whether `listen` (HOST:PORT) is every address of the host."""
    host, _ = split_address(listen, field="listen")
    return is_ip_address(host) and ipaddress.ip_address(host).is_unspecified


def is_loopback(host: str) -> bool:
    """Returns whether a host name or address means this host alone."""
    return host.lower() == "localhost" or (is_ip_address(host) and ipaddress.ip_address(host).is_loopback)


def own_address(listen: str, port: int) -> str:
    """Returns the HOST:PORT by which a process that listens on `listen` dials itself."""
    host = "127.0.0.1" if listens_everywhere(listen) else split_address(listen, field="listen")[0]
    return join_address(host, port)


def reachable_address(listen: str, port: int, advertise: Sequence[str], interface_address: str = "") -> str:
    """Returns the HOST:PORT that others dial: the first advertised name, else where the server listens.

    A server that listens everywhere is reached at `interface_address`, that of the interface which multicast leaves by.
    """
    if advertise:
        host, _ = split_address(advertise[0], field="advertise")
    elif listens_everywhere(listen):
        host = interface_address or "127.0.0.1"
    else:
        host, _ = split_address(listen, field="listen")
    return join_address(host, port)


def address_towards(peer: str) -> str:
    """Returns this host's address from which it sends to `peer`, an IP address; empty if it knows no way there."""
    try:
        family = socket.AF_INET6 if ipaddress.ip_address(peer).version == 6 else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as probe:  # nothing is sent: only the route is looked up
            probe.connect((peer, _ANY_PORT))
            return str(probe.getsockname()[0])
    except (ValueError, OSError):
        return ""


async def local_address(address: str, own: str) -> str:
    """Returns the HOST:PORT by which commands on this host reach the server: `address`, which others use, if possible.

    Otherwise it is `own`, by which the server dials itself, and the log says so.
    """
    host, _ = split_address(address)
    if await _is_known(host):
        return address
    _logger.warning(
        "the name service of this host does not know %s, the name that machines are told: commands on this host use "
        "%s; make the name known to the machines, or give an address with --advertise",
        *(host, own),
    )
    return own


async def _is_known(host: str) -> bool:
    """Returns whether this host can tell the address of the host name `host`, within `RESOLVE_SECONDS`."""
    if is_ip_address(host):
        return True
    try:
        await asyncio.wait_for(asyncio.get_running_loop().getaddrinfo(host, None), RESOLVE_SECONDS)
    except (OSError, UnicodeError, TimeoutError):
        return False
    return True
