"""A data directory on a disk that is full: images can be deleted, everything else says so."""

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from fleetcast_kit.errors import ResourceExhaustedError

from tests.support.catalog import serving_catalog


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 MiB."""
    if os.geteuid():
        pytest.skip("mounting a small file system needs root")
    directory = tmp_path / "disk"
    directory.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64M,mode=700", "tmpfs", directory], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("this host lets nobody mount a small file system")
    try:
        yield directory
    finally:
        subprocess.run(["umount", "--lazy", directory], check=True)


def fill(directory: Path) -> None:
    """Takes what room there is."""
    with (directory / "filling").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(1 << 16))
        except OSError:
            return


async def test_an_image_is_deleted_on_a_full_disk_and_its_room_given_back(small_disk: Path) -> None:
    async with serving_catalog(small_disk) as catalog:
        image = await catalog.upload("one", os.urandom(8 << 20))
        await asyncio.to_thread(fill, small_disk)
        with pytest.raises(ResourceExhaustedError, match="is full"):
            await catalog.upload("two", os.urandom(1 << 20))
        assert await catalog.delete(image.name) >= 8 << 20
        assert not await catalog.page()
