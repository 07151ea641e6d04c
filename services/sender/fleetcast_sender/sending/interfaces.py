"""Network interfaces: found by name or address, with what a sender must know of them. Linux only where it says so."""

import contextlib
import fcntl
import ipaddress
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

from fleetcast_kit.errors import FailedPreconditionError, InvalidArgumentError

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

# linux/sockios.h and linux/if.h
_SIOCGIFFLAGS, _SIOCGIFADDR, _SIOCGIFNETMASK, _SIOCGIFMTU = 0x8913, 0x8915, 0x891B, 0x8921
_IFF_UP, _IFF_LOOPBACK, _IFF_MULTICAST = 0x1, 0x8, 0x1000


@dataclass(frozen=True)
class Interface:
    """One network interface that is up."""

    name: str
    index: int
    mtu_bytes: int
    ipv4: ipaddress.IPv4Address | None
    ipv6: ipaddress.IPv6Address | None
    """A global address if there is one, else the link-local one."""
    loopback: bool
    multicast: bool
    """True for the loopback interface too: it takes multicast although it does not say so."""
    link_bits_per_second: int
    """0 if not known."""
    subnets: tuple[str, ...] = ()
    """Those that its addresses are in, link-local ones left out, such as `192.0.2.0/24`."""

    def address(self, version: int) -> IPAddress | None:
        """Returns the interface's address of IP version 4 or 6."""
        return self.ipv4 if version == 4 else self.ipv6


def find_interface(wanted: str = "") -> Interface:
    """Returns the interface with this name or address; without one that of the default route, else loopback.

    Raises:
        InvalidArgumentError: there is none.
        FailedPreconditionError: it is down or takes no multicast.
    """
    names = [name for _, name in socket.if_nameindex()]
    if not wanted:
        name = _default_route() or "lo"
    elif wanted in names:
        name = wanted
    else:
        name = _name_with_address(wanted, names)
    interface = read_interface(name)
    if not interface.multicast:
        raise FailedPreconditionError(
            f"interface {name} takes no multicast: choose another one; there are {', '.join(names)}"
        )
    return interface


def read_interface(name: str) -> Interface:
    """Returns what the kernel says of an interface.

    Raises:
        FailedPreconditionError: it is gone or down.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            flags = struct.unpack_from("H", _ioctl(probe, _SIOCGIFFLAGS, name))[0]
            mtu = struct.unpack_from("i", _ioctl(probe, _SIOCGIFMTU, name))[0]
        except OSError as error:
            raise FailedPreconditionError(f"interface {name} is not there: {error.strerror}") from error
        ipv4, subnets = None, []
        with contextlib.suppress(OSError):
            ipv4 = ipaddress.IPv4Address(_ioctl(probe, _SIOCGIFADDR, name)[4:8])
            netmask = ipaddress.IPv4Address(_ioctl(probe, _SIOCGIFNETMASK, name)[4:8])
            subnets.append(str(ipaddress.ip_network(f"{ipv4}/{netmask}", strict=False)))
    if not flags & _IFF_UP:
        raise FailedPreconditionError(f"interface {name} is down: bring it up, or choose another one")
    ipv6 = _ipv6_addresses(name)
    loopback = bool(flags & _IFF_LOOPBACK)
    return Interface(
        name,
        socket.if_nametoindex(name),
        mtu,
        ipv4,
        min((entry.ip for entry in ipv6), key=lambda address: address.is_link_local, default=None),
        loopback,
        loopback or bool(flags & _IFF_MULTICAST),
        _link_bits_per_second(name),
        (*subnets, *(str(entry.network) for entry in ipv6 if not entry.is_link_local)),
    )


def _ioctl(probe: socket.socket, request: int, name: str) -> bytes:
    """Returns the union of `struct ifreq` after a request, 24 bytes."""
    return fcntl.ioctl(probe, request, struct.pack("16s24x", name.encode()))[16:]


def _ipv6_addresses(name: str) -> list[ipaddress.IPv6Interface]:
    addresses = []
    with contextlib.suppress(OSError):
        for line in Path("/proc/net/if_inet6").read_text().splitlines():
            fields = line.split()
            if fields[5] == name:
                addresses.append(ipaddress.IPv6Interface((bytes.fromhex(fields[0]), int(fields[2], 16))))
    return addresses


def _default_route() -> str:
    """Returns the interface of the IPv4 default route with the least metric, or of the IPv6 one; empty if none."""
    routes = []
    with contextlib.suppress(OSError):
        for line in Path("/proc/net/route").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[1] == fields[7] == "00000000":
                routes.append((int(fields[6]), fields[0]))
        for line in Path("/proc/net/ipv6_route").read_text().splitlines():
            fields = line.split()
            if int(fields[0], 16) == 0 and fields[1] == "00" and fields[9] != "lo":
                routes.append((int(fields[5], 16) + (1 << 32), fields[9]))
    return min(routes)[1] if routes else ""


def _name_with_address(wanted: str, names: list[str]) -> str:
    with contextlib.suppress(ValueError):
        address = ipaddress.ip_address(wanted)
        for name in names:
            with contextlib.suppress(FailedPreconditionError):
                interface = read_interface(name)
                if address in (interface.ipv4, interface.ipv6):
                    return name
    raise InvalidArgumentError(
        f"no interface is called {wanted!r} or has that address; there are {', '.join(names)}", field="interface"
    )


def _link_bits_per_second(name: str) -> int:
    try:
        return max(0, int(Path(f"/sys/class/net/{name}/speed").read_text())) * 1_000_000
    except (OSError, ValueError):
        return 0
