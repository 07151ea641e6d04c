"""Reminders of our membership for switches that snoop and hear no querier: they would forget us in the middle.

The kernel reports a membership when it begins and when a router asks. Where no router asks, the agent says it again
itself, as IGMPv2 (RFC 2236) and MLDv1 (RFC 2710), which every switch understands; it needs a raw socket for that.
"""

from __future__ import annotations

import logging
import socket
import struct

from fleetcast_agent.receiving.multicast.sockets.interfaces import Interface

_logger = logging.getLogger(__name__)

_IGMP_REPORT, _MLD_REPORT = 0x16, 131
_ROUTER_ALERT = bytes((0x94, 4, 0, 0))
"""The IPv4 option of RFC 2113."""
_ROUTER_ALERT6 = bytes((0, 0, 5, 2, 0, 0, 1, 0))
"""The IPv6 hop-by-hop header of RFC 2711 for MLD."""
_IPV6_HOPOPTS = 54


def announce_membership(group: str, interface: Interface) -> bool:
    """Send one report of the membership in `group`; return False where the system does not let us."""
    try:
        if ":" in group:
            _announce_ipv6(group, interface)
        else:
            _announce_ipv4(group, interface)
    except OSError as error:
        _logger.debug("the membership in %s cannot be announced: %s", group, error)
        return False
    return True


def igmp_report(group: str) -> bytes:
    """Returns the IGMPv2 membership report for an IPv4 group."""
    body = struct.pack(">BBH4s", _IGMP_REPORT, 0, 0, socket.inet_aton(group))
    return body[:2] + struct.pack(">H", internet_checksum(body)) + body[4:]


def internet_checksum(content: bytes) -> int:
    """Returns the checksum of RFC 1071 over an even number of bytes."""
    total: int = sum(struct.unpack(f">{len(content) // 2}H", content))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _announce_ipv4(group: str, interface: Interface) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_IGMP) as raw:
        raw.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, _ROUTER_ALERT)
        raw.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 1)
        raw.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(interface.address))
        raw.sendto(igmp_report(group), (group, 0))


def _announce_ipv6(group: str, interface: Interface) -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as raw:
        raw.setsockopt(socket.IPPROTO_IPV6, _IPV6_HOPOPTS, _ROUTER_ALERT6)
        raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 1)
        raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, interface.index)
        body = struct.pack(">BBHHH", _MLD_REPORT, 0, 0, 0, 0) + socket.inet_pton(socket.AF_INET6, group)
        raw.sendto(body, (group, 0))  # the kernel fills the checksum in
