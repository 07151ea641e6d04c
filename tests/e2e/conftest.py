"""What the end-to-end tests start from: images small enough for a fast suite, an installation that leaves nothing."""

import os
import random
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.installation import Installation
from tests.support.parts import PartsInstallation, Spot

MIB = 1 << 20


@pytest.fixture(autouse=True)
def _end_to_end(request: pytest.FixtureRequest) -> None:
    """Every test in this folder is one."""
    assert request.node.get_closest_marker("e2e") is not None, "mark it: pytestmark = pytest.mark.e2e"


@dataclass(frozen=True)
class DiskImage:
    """A raw disk image: two thirds noise that no compression shrinks, the rest zeros, and an odd end."""

    file: Path
    content: bytes

    @property
    def noise_bytes(self) -> int:
        """Bytes that have to be sent: whole chunks of noise."""
        return len(self.content) * 2 // 3


@pytest.fixture
def make_disk_image(tmp_path: Path) -> Callable[..., DiskImage]:
    """Returns a function that makes an image of so many MiB, always the same for the same seed."""

    def make(size_mib: int, *, name: str = "disk.img", seed: int = 1) -> DiskImage:
        noise = random.Random(seed)
        third = size_mib // 3 * MIB
        content = noise.randbytes(third) + bytes(third) + noise.randbytes(third) + b"the end"
        file = tmp_path / name
        file.write_bytes(content)
        return DiskImage(file, content)

    return make


@pytest.fixture
def stopped_installation(tmp_path: Path) -> Iterator[Installation]:
    """Returns an installation on the loopback whose server was not started."""
    with Installation(tmp_path / "installation") as prepared:
        yield prepared


def free_ports(count: int) -> list[int]:
    """Returns ports of the loopback that nobody has; they are all held until the last is found."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.fixture
def apart(tmp_path: Path) -> Iterator[PartsInstallation]:
    """Returns three processes on the loopback, not started."""
    scheduler, catalog, sender = (Spot("127.0.0.1", port=port) for port in free_ports(3))
    with PartsInstallation(
        tmp_path / "installation", scheduler=scheduler, catalog=catalog, senders=[sender]
    ) as prepared:
        yield prepared


@pytest.fixture
def installation(request: pytest.FixtureRequest) -> Installation:
    """Returns an installation on the loopback that runs: one process, or its parts with FLEETCAST_TEST_APART=1."""
    return start(request, "apart" if os.environ.get("FLEETCAST_TEST_APART") else "stopped_installation")


@pytest.fixture(params=["stopped_installation", "apart"], ids=["together", "apart"])
def either_installation(request: pytest.FixtureRequest) -> Installation:
    """Returns an installation on the loopback that runs: its server is one process, or its parts are three."""
    return start(request, request.param)


def start(request: pytest.FixtureRequest, kind: str) -> Installation:
    """Returns the installation of the fixture `kind`, started."""
    prepared: Installation = request.getfixturevalue(kind)
    prepared.start_server()
    return prepared
