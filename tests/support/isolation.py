"""A network of its own for each worker: tests side by side neither hear each other nor take each other's ports."""

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

HOST_NETWORK = "FLEETCAST_TEST_HOST_NETWORK"
"""The variable that names the network namespace the tests were started in, for what installs packages."""

_CLONE_NEWNET = 0x40000000

_CARD = """\
link set lo up
link add eth0 type veth peer name port
address add 192.0.2.2/24 dev eth0
address add fd00::2/64 dev eth0 nodad
link set port up
link set eth0 up
route add default via 192.0.2.1
"""
"""What the commands of `ip` make: the loopback, and a network card of both families with nobody beyond it."""


def leave_the_network() -> str:
    """Moves this process into a new network namespace that has the loopback and a network card.

    Returns why it could not, in one line; empty if it did.
    """
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return "a network of its own for each worker needs root and iproute2"
    os.environ[HOST_NETWORK] = f"/proc/{os.getppid()}/ns/net"
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET) != 0:
        return f"the kernel or the container gives no network of its own: {os.strerror(ctypes.get_errno())}"
    subprocess.run(["ip", "-batch", "-"], input=_CARD, text=True, check=True, timeout=30)
    return ""


def in_the_host_network(command: list[str]) -> list[str]:
    """Returns the command as it is run in the network that the tests were started in."""
    host = os.environ.get(HOST_NETWORK)
    return ["nsenter", f"--net={host}", "--", *command] if host and Path(host).exists() else command
