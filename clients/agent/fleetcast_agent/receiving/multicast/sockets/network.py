"""Whether and where this machine hears multicast."""

from __future__ import annotations

import asyncio
import socket
import time
from pathlib import Path

from fleetcast_agent.receiving.errors import InterfaceError, MulticastError
from fleetcast_agent.receiving.multicast.sockets.interfaces import (
    INTERFACES,
    Interface,
    find_interface,
    interface_towards,
    largest_payload_bytes,
    link_bits_per_second,
    unfit_for_multicast,
)


class Network:
    """The choice of the interface, and why there is none.

    Args:
        wanted: name or address of the interface that the user chose; empty to go by the route to the sender.
        interfaces: the directory in which the system describes each interface.

    Raises:
        InterfaceError: the chosen interface does not exist or takes no multicast.
    """

    def __init__(self, wanted: str = "", interfaces: Path = INTERFACES) -> None:
        self._wanted = wanted
        self._interfaces = interfaces
        self._unfit = ""
        self._left = ""
        self._return_at = 0.0
        self.max_payload_bytes = 0
        """Largest UDP payload that the interface takes; 0 if that is not known."""
        self.link_bits_per_second = 0
        """Speed of the interface; 0 if that is not known."""
        if wanted:
            found = find_interface(wanted, socket.AF_INET6)  # what has no address of either family is in no network
            self._measure(found)
            reason = unfit_for_multicast(found, interfaces)
            if reason:
                raise InterfaceError(
                    f"{reason}: name another with --multicast-interface, or leave it out to receive by unicast",
                    field="multicast_interface",
                )

    @property
    def no_multicast_reason(self) -> str:
        """Why this machine takes no multicast now; empty if it does."""
        return self._unfit or self._left

    @property
    def away_from_group(self) -> bool:
        """Whether it takes none for a while only."""
        return bool(self._left) and not self._unfit

    def take_none(self, reason: str) -> None:
        """Take no multicast at all."""
        self._unfit = reason

    def leave_group(self, reason: str, seconds: float) -> None:
        """Take no multicast for so long: nothing that happens once shows that it will never work."""
        self._left, self._return_at = reason, time.monotonic() + seconds

    async def time_to_return(self) -> None:
        """Returns when the group is to be tried again."""
        await asyncio.sleep(max(0.0, self._return_at - time.monotonic()))

    def return_to_group(self) -> None:
        """Take multicast again."""
        self._left = ""

    def look_towards(self, host: str, port: int) -> None:
        """Find out whether the way to `host` is fit for multicast; note why not."""
        if self._wanted:
            return
        try:
            found = interface_towards(host, port, socket.AF_INET)
        except MulticastError:
            return  # an IPv6 network, perhaps; the sender's group will tell
        self._measure(found)
        self._unfit = unfit_for_multicast(found, self._interfaces)

    def _measure(self, interface: Interface) -> None:
        self.max_payload_bytes = largest_payload_bytes(interface)
        self.link_bits_per_second = link_bits_per_second(interface)

    def interface_for(self, group: str, sender_host: str) -> Interface:
        """Returns where to join a group.

        Raises:
            MulticastError: no interface leads there.
        """
        family = socket.AF_INET6 if ":" in group else socket.AF_INET
        if self._wanted:
            try:
                return find_interface(find_interface(self._wanted, socket.AF_INET6).name, family)
            except InterfaceError as error:
                raise MulticastError(f"{group} cannot be joined: {error.message}") from error
        return interface_towards(sender_host, 9, family)
