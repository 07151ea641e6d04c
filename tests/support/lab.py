"""The network lab: hosts in network namespaces on one switch, with real segmentation, loss and link rates.

Needs root, iproute2, nftables and ethtool; `why_unavailable` tells. Everything a lab made is gone when it closes, and
what a killed run left behind is removed when the next lab opens.
"""

import functools
import json
import os
import secrets
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from tests.support import namespaces
from tests.support.loss import TABLE, Loss, ruleset
from tests.support.namespaces import LabError, attempt, batch, call

INTERFACE = "eth0"
"""The name of every host's only interface besides the loopback."""

PREFIX = "fleetcast-lab"
"""Names of namespaces begin so; then comes the id of the process that made them."""

_TOOLS = {"ip": "iproute2", "tc": "iproute2", "nft": "nftables", "ethtool": "ethtool"}
_HOST_QUEUE_BYTES = 8 << 20  # more than a socket may queue, so that a fast sender blocks as on a real card
_PORT_QUEUE_BYTES = 512 << 10  # a switch port's buffer: 4 ms at 1 Gbit/s, then it drops


@functools.cache
def why_unavailable() -> str:
    """Returns why no lab can be opened here, in one line; empty if it can."""
    if os.geteuid() != 0:
        return "the network lab needs root"
    missing = sorted({package for tool, package in _TOOLS.items() if shutil.which(tool) is None})
    if missing:
        return f"the network lab needs the Debian packages {' '.join(missing)}"
    try:
        with NetworkLab(receiver_count=1) as lab:
            lab.set_loss(lab.receivers[0], Loss(fraction=0.01))
            lab.set_rate(lab.sender, 1_000_000_000)
    except LabError as error:
        return f"the kernel or the container does not allow a network lab: {error}"
    return ""


@dataclass(frozen=True)
class Host:
    """A machine of the lab."""

    name: str
    namespace: str
    port: str
    """The switch's interface that leads to it."""
    address: str
    """Its IPv4 address on `INTERFACE`, in a /24."""
    address6: str
    """Its IPv6 address on `INTERFACE`, in a /64."""


class NetworkLab:
    """Senders, receivers and possibly a hostile host on one switch; a context manager.

    Packets leave a sender in wire size, and arrive coalesced as by a network card. With `coalescing="receivers"` each
    receiver coalesces, and the switch handles single packets, so it can lose them; that costs about 1 us of the
    machine's time for a packet and receiver, where a real switch costs nothing. With `coalescing="switch"` packets are
    coalesced once, where they enter the switch: for measurements without loss. Groups are flooded to every port unless
    `snooping` is set, which also makes the switch an IGMP and MLD querier.
    """

    def __init__(
        self,
        *,
        receiver_count: int = 3,
        sender_count: int = 1,
        hostile_host: bool = False,
        rate_bits_per_second: int | None = None,
        mtu_bytes: int = 1500,
        snooping: bool = False,
        coalescing: Literal["receivers", "switch"] = "receivers",
    ) -> None:
        self._id = f"{PREFIX}-{os.getpid()}-{secrets.token_hex(2)}"
        self._rate_bits_per_second = rate_bits_per_second
        self._mtu_bytes = mtu_bytes
        self._snooping = snooping
        self._coalescing = coalescing
        self._switch = f"{self._id}-switch"
        self._losses: dict[str, Loss] = {}
        self._processes: list[subprocess.Popen[bytes]] = []
        self.senders = [self._host("sender", number, 1) for number in range(sender_count)]
        self.receivers = [self._host("receiver", number, 11) for number in range(receiver_count)]
        self.hostile = self._host("hostile", 0, 250) if hostile_host else None

    def _host(self, kind: str, number: int, first_address: int) -> Host:
        name = f"{kind}{number}"
        address = first_address + number
        return Host(name, f"{self._id}-{name}", name, f"10.97.0.{address}", f"fd97::{address:x}")

    @property
    def sender(self) -> Host:
        """The first sender."""
        return self.senders[0]

    @property
    def hosts(self) -> list[Host]:
        """Every host."""
        return [*self.senders, *self.receivers, *([self.hostile] if self.hostile else [])]

    def __enter__(self) -> Self:
        namespaces.remove_abandoned(PREFIX)
        try:
            self._build()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Kill every process in the lab and remove its namespaces."""
        namespaces.remove(name for name in namespaces.names() if name.startswith(self._id))
        for process in self._processes:
            process.wait()
        self._processes.clear()

    def command(self, host: Host, argv: Sequence[str | Path]) -> list[str]:
        """Returns the command that runs `argv` on a host. The process it starts becomes `argv`: same id, same exit."""
        return ["ip", "netns", "exec", host.namespace, *map(str, argv)]

    def run(
        self,
        host: Host,
        argv: Sequence[str | Path],
        *,
        timeout_seconds: float = 60,
        check: bool = True,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on a host to its end; standard output and error are captured as text.

        Raises:
            subprocess.CalledProcessError: it failed and `check` is set.
            subprocess.TimeoutExpired: it was killed after `timeout_seconds`.
        """
        return subprocess.run(
            self.command(host, argv),
            check=check,
            env=env,
            timeout=timeout_seconds,
            text=True,
            stdin=subprocess.DEVNULL,
            capture_output=True,
        )

    def popen(
        self, host: Host, argv: Sequence[str | Path], *, log: Path | None = None, env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a command on a host; it is killed when the lab closes. Output goes to the file `log`, or nowhere."""
        with open(log or os.devnull, "ab") as output:
            process = subprocess.Popen(
                self.command(host, argv),
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._processes.append(process)
        return process

    def set_loss(self, host: Host, loss: Loss | None) -> None:
        """Lose packets on their way to a host from now on; None loses none. Counts start again for every host.

        Raises:
            LabError: the switch coalesces packets, so it cannot lose single ones.
        """
        if self._coalescing == "switch":
            raise LabError("a lab with coalescing='switch' can lose no packets")
        self._losses.pop(host.port, None)
        if loss is not None:
            self._losses[host.port] = loss
        call(["ip", "netns", "exec", self._switch, "nft", "-f", "-"], ruleset(self._losses))

    def change_address(self, host: Host, address: str) -> None:
        """Give a host another IPv4 address in the same /24, in place of the one that it has."""
        self.run(host, ["ip", "-4", "address", "flush", "dev", INTERFACE])
        self.run(host, ["ip", "address", "add", f"{address}/24", "dev", INTERFACE])

    def lost_packet_count(self, host: Host) -> int:
        """Returns how many packets to a host the switch lost by the rules of `set_loss`."""
        if host.port not in self._losses:
            return 0
        listing = call(["ip", "netns", "exec", self._switch, "nft", "-j", "list", "table", "bridge", TABLE])
        rules = [entry["rule"] for entry in json.loads(listing)["nftables"] if "rule" in entry]
        return sum(
            expression["counter"]["packets"]
            for rule in rules
            if rule.get("comment") == host.port
            for expression in rule["expr"]
            if "counter" in expression
        )

    def set_rate(self, host: Host, rate_bits_per_second: int | None) -> None:
        """Limit what a sender sends, or what the switch passes on to a receiver; None lifts the limit.

        Counted in Ethernet frames without preamble and checksum. A sender blocks at the limit, a switch port drops.
        """
        namespace, device, queue_bytes = host.namespace, INTERFACE, _HOST_QUEUE_BYTES
        if host not in self.senders:
            namespace, device, queue_bytes = self._switch, host.port, _PORT_QUEUE_BYTES
        if rate_bits_per_second is None:
            attempt(["tc", "-n", namespace, "qdisc", "del", "dev", device, "root"])
            return
        burst_bytes = max(16 << 10, rate_bits_per_second // 8 // 1000)  # one millisecond
        limits = ["rate", f"{rate_bits_per_second}bit", "burst", str(burst_bytes), "limit", str(queue_bytes)]
        call(["tc", "-n", namespace, "qdisc", "replace", "dev", device, "root", "tbf", *limits])

    def unplug(self, host: Host) -> None:
        """Take a host's cable out."""
        call(["ip", "-n", self._switch, "link", "set", host.port, "down"])

    def plug(self, host: Host) -> None:
        """Put a host's cable in again."""
        call(["ip", "-n", self._switch, "link", "set", host.port, "up"])

    def sent_bytes(self, host: Host) -> int:
        """Returns the bytes of all frames a host has sent since the lab opened."""
        sent = self._statistics(host, "tx")
        # Where the other end coalesces, a veth counts packets without their Ethernet headers.
        return sent["bytes"] + (sent["packets"] * 14 if self._coalescing == "switch" else 0)

    def received_bytes(self, host: Host) -> int:
        """Returns the bytes a host has received since the lab opened; of coalesced packets one set of headers."""
        return self._statistics(host, "rx")["bytes"]

    def _statistics(self, host: Host, direction: str) -> dict[str, int]:
        listing = call(["ip", "-n", host.namespace, "-s", "-j", "link", "show", "dev", INTERFACE])
        statistics: dict[str, int] = json.loads(listing)[0]["stats64"][direction]
        return statistics

    def _build(self) -> None:
        for namespace in (self._switch, *(host.namespace for host in self.hosts)):
            call(["ip", "netns", "add", namespace])
        querier = "mcast_snooping 1 mcast_querier 1" if self._snooping else "mcast_snooping 0"
        batch(self._switch, [f"link add bridge0 type bridge {querier}", "link set bridge0 up"])
        for host in self.hosts:
            self._connect(host)

    def _connect(self, host: Host) -> None:
        mtu = self._mtu_bytes
        batch(
            self._switch,
            [
                f"link add {host.port} mtu {mtu} type veth peer name {INTERFACE} mtu {mtu} netns {host.namespace}",
                f"link set {host.port} master bridge0 up",
            ],
        )
        self._set_offloads(host)
        batch(
            host.namespace,
            [
                "link set lo up",
                f"addr add {host.address}/24 brd + dev {INTERFACE}",
                f"addr add {host.address6}/64 dev {INTERFACE} nodad",
                f"link set {INTERFACE} up",
                f"route add 224.0.0.0/4 dev {INTERFACE}",
            ],
        )
        if self._rate_bits_per_second is not None and host in self.senders:
            self.set_rate(host, self._rate_bits_per_second)

    def _set_offloads(self, host: Host) -> None:
        """Cut what the host sends to wire size. A veth's end coalesces only what comes from an end without tso."""
        wire_size = ["gso", "off", "tso", "off", "tx-udp-segmentation", "off"]
        host_end = ["ip", "netns", "exec", host.namespace, "ethtool", "-K", INTERFACE]
        switch_end = ["ip", "netns", "exec", self._switch, "ethtool", "-K", host.port]
        if self._coalescing == "receivers":
            call([*switch_end, *wire_size])
            call([*host_end, *wire_size, "gro", "on"])
        else:
            call([*switch_end, "gro", "on", "rx-udp-gro-forwarding", "on"])
            call([*host_end, *wire_size])
