"""A server on a host with several networks: which one its multicast leaves by, and what the start says."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import namespaces
from tests.support.lab import why_unavailable


@pytest.fixture
def two_networks() -> Iterator[str]:
    """A network namespace with interfaces in a room and in an office, and no default route."""
    if reason := why_unavailable():
        pytest.skip(reason)
    namespaces.remove_abandoned("fctwo")
    name = f"fctwo-{os.getpid()}-host"
    namespaces.call(["ip", "netns", "add", name])
    try:
        lines = ["link set lo up"]
        for network, address in (("room", "10.77.0.1/24"), ("office", "192.0.2.2/24")):
            lines += [
                f"link add {network}0 type veth peer name {network}1",
                f"addr add {address} dev {network}0",
                f"link set {network}0 up",
                f"link set {network}1 up",
            ]
        namespaces.batch(name, [*lines, "addr add 10.77.0.200/24 dev room0"])
        yield name
    finally:
        namespaces.remove([name])


def start(namespace: str, home: Path, *flags: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "fleetcast_server", "run", "--data-dir", str(home / "data"), *flags]
    return subprocess.Popen(
        ["ip", "netns", "exec", namespace, *command],
        env={**os.environ, "HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_several_networks_are_refused_with_their_names_and_the_flag_to_set(two_networks: str, tmp_path: Path) -> None:
    server = start(two_networks, tmp_path)
    _, log = server.communicate(timeout=60)
    assert server.returncode == 6
    assert "room0 (10.77.0.1/24, 10.77.0.200/24), office0 (192.0.2.2/24)" in log
    assert "--multicast-interface NAME|ADDRESS" in log


@pytest.mark.parametrize(
    ("flags", "address"),
    [
        (("--advertise", "10.77.0.1"), "10.77.0.1:7443"),
        (("--multicast-interface", "office0"), "192.0.2.2:7443"),
        (("--listen", "10.77.0.200:7443"), "10.77.0.200:7443"),
    ],
)
def test_the_network_that_was_named_is_taken_a_secondary_address_too(
    two_networks: str, tmp_path: Path, flags: tuple[str, ...], address: str
) -> None:
    server = start(two_networks, tmp_path, *flags)
    try:
        assert server.stdout is not None
        assert f"is ready on {address}" in server.stdout.readline()
    finally:
        server.terminate()
        _, log = server.communicate(timeout=60)
    assert f"multicast leaves by {'office0' if 'office0' in flags else 'room0'}" in log
