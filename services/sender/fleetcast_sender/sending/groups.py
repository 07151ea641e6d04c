"""Group addresses: which may be used, and which must not."""

import ipaddress

from fleetcast_kit.errors import InvalidArgumentError, ResourceExhaustedError

from fleetcast_sender.sending.interfaces import IPAddress

_IPV4_ALLOWED = (ipaddress.ip_network("239.0.0.0/8"), ipaddress.ip_network("232.0.0.0/8"))
"""Administratively scoped (RFC 2365) and source-specific (RFC 4607)."""


def parse_group(text: str, *, field: str = "group") -> IPAddress:
    """Returns the group address that `text` is.

    Raises:
        InvalidArgumentError: it is no multicast address, or one reserved for others (RFC 5771, RFC 4291).
    """
    try:
        group = ipaddress.ip_address(text)
    except ValueError as error:
        raise InvalidArgumentError(f"{text!r} is not an IP address", field=field) from error
    if isinstance(group, ipaddress.IPv4Address):
        if not any(group in network for network in _IPV4_ALLOWED):
            raise InvalidArgumentError(
                f"group {group} is not free for use: choose one from 239.0.0.0/8, or 232.0.0.0/8 with a source",
                field=field,
            )
    elif not group.is_multicast:
        raise InvalidArgumentError(f"{group} is not a multicast address: choose one from ff05::/16", field=field)
    elif (group.packed[1] & 0x0F) not in (3, 4, 5, 8, 14) or int(group) & ((1 << 112) - 1) < 1 << 16:
        # Scopes 3 to 8 and 14 (RFC 7346) leave the host and are not link-local; ff0x::0 to ff0x::ffff are assigned.
        raise InvalidArgumentError(
            f"group {group} is reserved: choose one like ff05::1:0 to ff05::ffff:ffff", field=field
        )
    return group


class SpareGroups:
    """Groups that the sender keeps for itself: for slow receivers that get a transmission of their own.

    Args:
        first: of the range.
        last: of the range.
    """

    def __init__(self, first: IPAddress, last: IPAddress) -> None:
        self._first = first
        self._count = int(last) - int(first) + 1
        self._taken: set[IPAddress] = set()
        self._next = 0

    def lease(self) -> IPAddress:
        """Returns a group that nobody has, the longest unused one first.

        Raises:
            ResourceExhaustedError: all are taken.
        """
        for _ in range(min(self._count, len(self._taken) + 1)):
            group = self._first + self._next
            self._next = (self._next + 1) % self._count
            if group not in self._taken:
                self._taken.add(group)
                return group
        raise ResourceExhaustedError(
            f"all {self._count} groups for slow receivers are in use: widen the range of groups"
        )

    def release(self, group: IPAddress) -> None:
        """Give a group back."""
        self._taken.discard(group)


def split_range(first: IPAddress, last: IPAddress) -> tuple[IPAddress, SpareGroups]:
    """Returns the last group that the scheduler may lease, and the spare ones after it: a quarter of the range."""
    count = int(last) - int(first) + 1
    spare = max(count // 4, 1) if count > 1 else 0
    border = last - spare
    return border, SpareGroups(border + 1 if spare else last, last)
