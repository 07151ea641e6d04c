"""What is inside images, told when they are imported; disks made by the tools that make real ones."""

import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fleetcast.catalog.v1 import image_pb2
from fleetcast_kit.database import open_database
from sqlalchemy import text

from tests.support.catalog import CatalogSite, serving_catalog

PATH = "/usr/sbin:/sbin:/usr/bin:/bin"
MIB = 1 << 20
DISK, VOLUME, FILE = (
    image_pb2.ImageContents.KIND_DISK,
    image_pb2.ImageContents.KIND_VOLUME,
    image_pb2.ImageContents.KIND_FILE,
)
pytestmark = pytest.mark.skipif(
    not all(shutil.which(tool, path=PATH) for tool in ("sfdisk", "blkid", "mke2fs", "mkfs.fat", "mkntfs")),
    reason="sfdisk, blkid, mke2fs, mkfs.fat or mkntfs is not installed (fdisk, e2fsprogs, dosfstools, ntfs-3g)",
)


@pytest.fixture
async def catalog(tmp_path: Path) -> AsyncIterator[CatalogSite]:
    async with serving_catalog(tmp_path / "data") as site:
        yield site


def run(*command: str | Path, stdin: str = "") -> str:
    words = list(map(str, command))
    done = subprocess.run(words, check=True, capture_output=True, env={"PATH": PATH}, input=stdin, text=True)
    return done.stdout


def blank(path: Path, size_bytes: int) -> Path:
    with path.open("wb") as file:
        file.truncate(size_bytes)
    return path


def put(disk: Path, volume: Path, offset_bytes: int) -> None:
    with disk.open("r+b") as file:
        file.seek(offset_bytes)
        file.write(volume.read_bytes())


def windows_disk(work: Path) -> Path:
    """Returns a disk as Windows Setup lays it out."""
    disk = blank(work / "disk", 120 * MIB)
    layout = """label: gpt
        size=40MiB, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, name="EFI system partition"
        size=16MiB, type=E3C9E316-0B5C-4DB8-817D-F92DF00215AE
        size=40MiB, type=EBD0A0A2-B9E5-4433-87C0-68B6B72699C7
        type=DE94BBA4-06D1-4D40-A16A-BFD50179D6AC"""
    run("sfdisk", disk, stdin=layout)
    esp = blank(work / "esp", 40 * MIB)
    run("mkfs.fat", "-F", "32", "-n", "SYSTEM", esp)
    put(disk, esp, 1 * MIB)
    windows = blank(work / "windows", 40 * MIB)
    run("mkntfs", "-F", "-Q", "-q", "-L", "Windows", windows)
    put(disk, windows, 57 * MIB)
    return disk


async def test_a_windows_disk_is_told_partition_by_partition(catalog: CatalogSite, tmp_path: Path) -> None:
    image = await catalog.import_file("windows", windows_disk(tmp_path))
    contents = image.contents
    assert (contents.kind, contents.partition_table, contents.sector_size_bytes) == (DISK, "gpt", 512)
    assert [(each.number, each.type_name, each.filesystem, each.label) for each in contents.partitions] == [
        (1, "EFI system", "vfat", "SYSTEM"),
        (2, "Microsoft reserved", "", ""),
        (3, "Windows data", "ntfs", "Windows"),
        (4, "Windows recovery", "", ""),
    ]
    esp, reserved, windows, _ = contents.partitions
    assert (esp.offset_bytes, esp.size_bytes, esp.display_name) == (1 * MIB, 40 * MIB, "EFI system partition")
    assert reserved.used_bytes == 0
    assert 0 < windows.used_bytes < windows.size_bytes
    assert contents.used_bytes == (image.chunk_count - image.zero_chunk_count) * MIB
    assert (await catalog.get("images/windows")).contents == contents


async def test_logical_partitions_and_their_volumes_are_told(catalog: CatalogSite, tmp_path: Path) -> None:
    disk = blank(tmp_path / "disk", 80 * MIB)
    run("sfdisk", disk, stdin="label: dos\nsize=20MiB,type=7\ntype=5\nsize=16MiB,type=83\nsize=16MiB,type=82\n")
    root = blank(tmp_path / "root", 16 * MIB)
    run("mke2fs", "-q", "-F", "-t", "ext4", "-L", "root", root)
    start = int(run("sfdisk", "-d", disk).split("disk5 : start=")[1].split(",")[0])
    put(disk, root, start * 512)
    contents = (await catalog.import_file("linux", disk)).contents
    assert (contents.partition_table, contents.sector_size_bytes) == ("mbr", 512)
    assert [
        (each.number, each.type_id, each.type_name, each.filesystem, each.label) for each in contents.partitions
    ] == [
        (1, "0x07", "Windows data", "", ""),
        (2, "0x05", "extended", "", ""),
        (5, "0x83", "Linux", "ext4", "root"),
        (6, "0x82", "Linux swap", "", ""),
    ]


async def test_the_size_of_the_sectors_of_a_disk_is_told(catalog: CatalogSite, tmp_path: Path) -> None:
    disk = windows_disk(tmp_path)
    table = disk.read_bytes()[: 34 * 512]
    with disk.open("r+b") as file:  # the same entries, as a disk with large sectors has them
        file.seek(512)
        file.write(bytes(33 * 512))
        header = bytearray(table[512:1024].ljust(4096, b"\0"))
        file.seek(4096)
        file.write(header)
        file.seek(8192)
        file.write(table[1024:])
    contents = (await catalog.import_file("big", disk)).contents
    assert (contents.partition_table, contents.sector_size_bytes) == ("gpt", 4096)
    assert contents.partitions[0].offset_bytes == 8 * MIB


async def test_a_volume_without_a_table_is_no_disk(catalog: CatalogSite, tmp_path: Path) -> None:
    for name, make in (
        ("ext4", ("mke2fs", "-q", "-F", "-t", "ext4", "-L", "data")),
        ("ntfs", ("mkntfs", "-F", "-Q", "-q", "-L", "data")),
        ("vfat", ("mkfs.fat", "-F", "32", "-n", "data")),
    ):
        volume = blank(tmp_path / name, 40 * MIB)
        run(*make, volume)
        contents = (await catalog.import_file(name, volume)).contents
        assert (contents.kind, contents.partition_table, contents.filesystem) == (VOLUME, "", name)
        assert contents.label.lower() == "data"


async def test_any_other_file_is_one(catalog: CatalogSite) -> None:
    contents = (await catalog.upload("package", b"setup " * 1000)).contents
    assert (contents.kind, contents.used_bytes) == (FILE, 6000)


async def test_images_of_before_are_looked_into_when_the_catalog_starts(tmp_path: Path) -> None:
    disk = windows_disk(tmp_path)
    async with serving_catalog(tmp_path / "data") as catalog:
        image = await catalog.import_file("windows", disk)
    database = open_database(f"sqlite:///{tmp_path / 'data' / 'catalog.db'}")
    async with database.session() as session:
        await session.exec(text("UPDATE image SET contents = NULL"))  # type: ignore[call-overload]
    await database.close()
    async with serving_catalog(tmp_path / "data") as catalog:
        for _ in range(600):
            found = await catalog.get("images/windows")
            if found.HasField("contents"):
                break
        assert found.contents == image.contents
