"""What the end-to-end tests start from: images small enough for a fast suite, an installation that leaves nothing."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.installation import Installation

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
def installation(tmp_path: Path) -> Iterator[Installation]:
    """Returns an installation on the loopback whose server runs."""
    with Installation(tmp_path / "installation") as running:
        running.start_server()
        yield running


@pytest.fixture
def stopped_installation(tmp_path: Path) -> Iterator[Installation]:
    """Returns an installation on the loopback whose server was not started."""
    with Installation(tmp_path / "installation") as prepared:
        yield prepared
