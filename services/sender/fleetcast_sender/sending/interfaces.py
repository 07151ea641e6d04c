"""Network interfaces: found by name or address, or chosen, with what a sender must know of them. Linux only."""

import contextlib
import fcntl
import ipaddress
import logging
import socket
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
from fleetcast_kit.errors import FailedPreconditionError, InvalidArgumentError

_logger = logging.getLogger(__name__)

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPInterface = ipaddress.IPv4Interface | ipaddress.IPv6Interface

# linux/sockios.h and linux/if.h
_SIOCGIFFLAGS, _SIOCGIFMTU = 0x8913, 0x8921
_IFF_UP, _IFF_LOOPBACK, _IFF_RUNNING, _IFF_MULTICAST = 0x1, 0x8, 0x40, 0x1000


@dataclass(frozen=True)
class Interface:
    """One network interface that is up."""

    name: str
    index: int
    mtu_bytes: int
    ipv4: ipaddress.IPv4Address | None
    """The address that it was found by, else its first one."""
    ipv6: ipaddress.IPv6Address | None
    """The address that it was found by, else a global one if there is one, else the link-local one."""
    loopback: bool
    multicast: bool
    """True for the loopback interface too: it takes multicast although it does not say so."""
    link_bits_per_second: int
    """0 if not known."""
    running: bool = True
    """False for one without a cable, or a bridge with nothing attached."""
    addresses: tuple[IPInterface, ...] = ()
    """All of its addresses with their networks, secondary ones included."""

    @property
    def subnets(self) -> tuple[str, ...]:
        """Those that its addresses are in, link-local ones left out, such as `192.0.2.0/24`; each once."""
        return tuple(dict.fromkeys(str(one.network) for one in self.addresses if not one.is_link_local))

    def address(self, version: int) -> IPAddress | None:
        """Returns the interface's address of IP version 4 or 6."""
        return self.ipv4 if version == 4 else self.ipv6

    def with_address(self, address: IPAddress) -> "Interface":
        """Returns the interface with this one of its addresses as that of its IP version."""
        return replace(self, ipv4=address) if address.version == 4 else replace(self, ipv6=address)

    def __str__(self) -> str:
        shown = ", ".join(str(one) for one in self.addresses if not one.is_link_local)
        return f"{self.name} ({shown or 'no address'})"


def find_interface(wanted: str = "", advertised: Sequence[str] = (), *, flag: str = "--interface") -> Interface:
    """Returns the interface with this name or address; without one, chooses it, see `choose_interface`.

    Args:
        wanted: name or address; empty lets it be chosen.
        advertised: the addresses that machines are told.
        flag: the option by which the caller's user says which, for the errors.

    Raises:
        InvalidArgumentError: there is none of that name or address.
        FailedPreconditionError: it is down or takes no multicast, or several are possible.
    """
    names = [name for _, name in socket.if_nameindex()]
    if not wanted:
        return choose_interface(_readable(names), advertised, flag=flag)
    interface = read_interface(wanted) if wanted in names else _with_address(wanted, names)
    if not interface.multicast:
        raise FailedPreconditionError(
            f"interface {interface.name} takes no multicast: choose another one; there are {', '.join(names)}"
        )
    return interface


def choose_interface(
    interfaces: Sequence[Interface], advertised: Sequence[str] = (), *, flag: str = "--interface"
) -> Interface:
    """Returns the interface with an advertised address; else the only one that can send; else loopback.

    It can send if it takes multicast, is connected, has an address, and is no bridge among this host's own virtual
    machines; one with link-local addresses alone counts only where there is no other. The default route says nothing:
    machines to be installed are often in a network without one.

    Raises:
        FailedPreconditionError: several could be meant.
    """
    for text in advertised:
        with contextlib.suppress(ValueError):
            address = ipaddress.ip_address(text)
            for interface in interfaces:
                if interface.multicast and any(one.ip == address for one in interface.addresses):
                    return interface.with_address(address)
    able = [one for one in interfaces if one.multicast and one.running and one.addresses and not one.loopback]
    outward = [one for one in able if not _is_internal_bridge(one.name)]
    candidates = [one for one in outward if one.subnets] or outward
    if len(candidates) > 1:
        raise FailedPreconditionError(
            f"multicast could leave by {', '.join(map(str, candidates))}: name the one in the network of the machines "
            f"with {flag} NAME|ADDRESS",
            reason="INTERFACE_AMBIGUOUS",
            metadata={"candidates": ", ".join(one.name for one in candidates)},
        )
    if candidates:
        return candidates[0]
    _logger.warning(
        "no network interface is connected and has an address: multicast stays on this host; connect one and start "
        "again, or name it with %s NAME|ADDRESS",
        flag,
    )
    return next((one for one in interfaces if one.loopback), None) or read_interface("lo")


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
    if not flags & _IFF_UP:
        raise FailedPreconditionError(f"interface {name} is down: bring it up, or choose another one")
    addresses = _addresses(name)
    ipv4 = [one.ip for one in addresses if isinstance(one, ipaddress.IPv4Interface)]
    ipv6 = [one.ip for one in addresses if isinstance(one, ipaddress.IPv6Interface)]
    loopback = bool(flags & _IFF_LOOPBACK)
    return Interface(
        name,
        socket.if_nametoindex(name),
        mtu,
        next(iter(ipv4), None),
        min(ipv6, key=lambda address: address.is_link_local, default=None),
        loopback,
        loopback or bool(flags & _IFF_MULTICAST),
        _link_bits_per_second(name),
        running=bool(flags & _IFF_RUNNING),
        addresses=addresses,
    )


def _readable(names: Iterable[str]) -> list[Interface]:
    found = []
    for name in names:
        with contextlib.suppress(FailedPreconditionError):  # it is down
            found.append(read_interface(name))
    return found


def _addresses(name: str) -> tuple[IPInterface, ...]:
    """Returns every address of an interface with its network, those with a label such as `eth0:1` included."""
    found: list[IPInterface] = []
    for label, entries in psutil.net_if_addrs().items():
        if label.partition(":")[0] != name:
            continue
        for entry in entries:
            if entry.family in (socket.AF_INET, socket.AF_INET6):
                address, mask = entry.address.partition("%")[0], entry.netmask or ""
                length = bin(int(ipaddress.ip_address(mask))).count("1") if mask else ""
                found.append(ipaddress.ip_interface(f"{address}/{length}" if mask else address))
    return tuple(found)


def _is_internal_bridge(name: str) -> bool:
    """Returns whether an interface is a bridge to which only virtual machines or containers of this host are attached.

    What leads out of the host has a device (a network card) or something below it (a bond, a VLAN).
    """
    interface = Path("/sys/class/net", name)
    ports = [interface.with_name(port.name) for port in interface.glob("brif/*")]
    return bool(ports) and not any((port / "device").exists() or any(port.glob("lower_*")) for port in ports)


def _ioctl(probe: socket.socket, request: int, name: str) -> bytes:
    """Returns the union of `struct ifreq` after a request, 24 bytes."""
    return fcntl.ioctl(probe, request, struct.pack("16s24x", name.encode()))[16:]


def _with_address(wanted: str, names: Sequence[str]) -> Interface:
    with contextlib.suppress(ValueError):
        address = ipaddress.ip_address(wanted)
        for interface in _readable(names):
            if any(one.ip == address for one in interface.addresses):
                return interface.with_address(address)
    raise InvalidArgumentError(
        f"no interface is called {wanted!r} or has that address; there are {', '.join(names)}", field="interface"
    )


def _link_bits_per_second(name: str) -> int:
    try:
        return max(0, int(Path(f"/sys/class/net/{name}/speed").read_text())) * 1_000_000
    except (OSError, ValueError):
        return 0
