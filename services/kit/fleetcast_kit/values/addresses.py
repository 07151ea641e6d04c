"""HOST:PORT: where a process listens or dials, and the names under which it is found."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable
from urllib.parse import unquote

import psutil

from fleetcast_kit.errors import InvalidArgumentError

DEFAULT_PORT = 7443
"""Where fleetcast listens unless told otherwise."""

_HOST_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9_]([a-z0-9_-]{0,62})(\.[a-z0-9_][a-z0-9_-]{0,62})*")


def split_address(address: str, *, field: str = "") -> tuple[str, int]:
    """Returns host and port of `HOST`, `HOST:PORT`, `ADDRESS`, `[ADDRESS]:PORT`; the port defaults to 7443.

    Raises:
        InvalidArgumentError: it is none of these; `field` is the name given to the value.
    """
    text = address.strip()
    host, port = text, ""
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":")
        correct = "]" in text and (not rest or rest.startswith(":")) and is_ip_address(host)
    elif text.count(":") > 1:
        correct = is_ip_address(text)
    else:
        host, colon, port = text.partition(":")
        correct = bool(host) and (bool(port) or not colon) and not any(c.isspace() or c == "/" for c in host)
    if not correct or (port and not (port.isascii() and port.isdecimal() and int(port) < 65536)):
        raise InvalidArgumentError(f"{address!r} is not an address: write HOST:PORT, like server:7443", field=field)
    return host, int(port or DEFAULT_PORT)


def join_address(host: str, port: int) -> str:
    """Returns HOST:PORT, with the brackets that an IPv6 address needs: the counterpart of `split_address`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_ip_address(host: str) -> bool:
    """Returns whether `host` is an IPv4 or IPv6 address rather than a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_host_name(name: str) -> bool:
    """Returns whether `name` is a lower-case host name in ASCII; underscores are let pass, as name servers do."""
    return _HOST_NAME.fullmatch(name) is not None


def served_names(listen: str, advertise: Iterable[str] = ()) -> tuple[str, ...]:
    """Returns the names and addresses under which a server that listens on `listen` is reached.

    These are the local host's names, every address it listens on, and what is advertised; sorted, each once.
    """
    host, _ = split_address(listen)
    names = {"localhost", "127.0.0.1", "::1", *(split_address(name)[0] for name in advertise)}
    own_name = socket.gethostname().lower()
    if is_host_name(own_name):  # a desktop's may hold anything
        names.add(own_name)
    if is_ip_address(host) and ipaddress.ip_address(host).is_unspecified:
        names |= _interface_addresses()
    else:
        names.add(host)
    return tuple(sorted({str(ipaddress.ip_address(name)) if is_ip_address(name) else name.lower() for name in names}))


def _interface_addresses() -> set[str]:
    """Returns every address of this host's interfaces, link-local ones excepted: nobody can dial those by address."""
    found = set()
    for addresses in psutil.net_if_addrs().values():
        for entry in addresses:
            address = entry.address.partition("%")[0]
            if entry.family in (socket.AF_INET, socket.AF_INET6) and not ipaddress.ip_address(address).is_link_local:
                found.add(address)
    return found


def peer_address(peer: str) -> str:
    """Returns the IP address in what gRPC says of a peer, such as `ipv4:192.0.2.1:50000`; empty if there is none."""
    family, _, rest = unquote(peer).partition(":")
    host = rest.rpartition(":")[0].strip("[]").partition("%")[0]
    try:
        address = ipaddress.ip_address(host) if family in ("ipv4", "ipv6") else None
    except ValueError:
        return ""
    mapped = getattr(address, "ipv4_mapped", None)  # a machine of IPv4 on a port of IPv6
    return str(mapped or address or "")
