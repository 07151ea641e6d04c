"""What tests of imports share: an image with zeros and repetitions, and what must be left of a failure."""

import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fleetcast_kit.errors import (
    FleetcastError,
)

from tests.support.catalog import CatalogSite
from tests.support.waiting import until

CHUNK = 1 << 20
WAIT_SECONDS = 60.0
NOISE = random.Random(2)
DATA = NOISE.randbytes(2 * CHUNK)
DISK = DATA + bytes(3 * CHUNK) + b"configuration " * 80_000
DISK += bytes(-len(DISK) % 512)
needs_qemu = pytest.mark.skipif(not shutil.which("qemu-img"), reason="qemu-img is not installed (qemu-utils)")


def virtual_disk(work: Path, kind: str, content: bytes = DISK, *options: str) -> Path:
    raw, disk = work / "source.raw", work / f"disk.{kind}"
    raw.write_bytes(content)
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", kind, *options, raw, disk], check=True)
    return disk


async def eventually(condition: Callable[[], bool]) -> None:
    await until(condition)


async def assert_only_left(catalog: CatalogSite, *names: str) -> None:
    async def is_left() -> bool:
        return [image.name for image in await catalog.page()] == list(names) and not catalog.residue()

    await until(is_left)


async def assert_nothing_left(catalog: CatalogSite) -> None:
    await assert_only_left(catalog)
    assert not catalog.stored_chunks()


async def drain(call: Any) -> None:
    while await call.read():
        pass


async def refused(catalog: CatalogSite, error: type[FleetcastError], content: bytes, **spec: Any) -> FleetcastError:
    with pytest.raises(error) as caught:
        await catalog.upload("bad", content, **spec)
    await assert_nothing_left(catalog)
    return caught.value
