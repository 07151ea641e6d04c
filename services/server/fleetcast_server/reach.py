"""What machines are told of this server's address, and which interface multicast leaves by."""

from __future__ import annotations

from collections.abc import Sequence

from fleetcast_kit.network.reach import address_towards, is_loopback, listens_everywhere
from fleetcast_kit.values.addresses import is_ip_address, join_address, split_address


def multicast_interface(wanted: str, listen: str) -> str:
    """Returns the interface that multicast leaves by: the wanted one, else the one with the address in `listen`.

    Empty without either: the sender then chooses.
    """
    host, _ = split_address(listen, field="listen")
    if wanted:
        return wanted
    if host == "localhost":
        return "127.0.0.1"
    return host if is_ip_address(host) and not listens_everywhere(listen) else ""


def advertised_hosts(advertise: Sequence[str]) -> list[str]:
    """Returns the hosts that are advertised, without ports."""
    return [split_address(name, field="advertise")[0] for name in advertise]


class ToldAddress:
    """What machines are told of where the sender of this process is.

    What an administrator advertised is told as it is. Otherwise, of a server that listens everywhere, each machine is
    told the address that it has towards this machine: with several networks, the one in the machine's own.
    """

    def __init__(self, listen: str, advertise: Sequence[str]) -> None:
        self._fixed = bool(advertise) or not listens_everywhere(listen)
        self.own = ""
        """HOST:PORT by which the sender of this process registered; known once it listens."""

    def __call__(self, sender_address: str, machine_address: str) -> str:
        """Returns what to tell a machine, whose calls come from `machine_address`, of a sender's HOST:PORT."""
        if self._fixed or sender_address != self.own or not machine_address:
            return sender_address
        towards = address_towards(machine_address)
        if not towards or (is_loopback(towards) and not is_loopback(machine_address)):
            return sender_address
        return join_address(towards, split_address(sender_address)[1])
