"""Directories as Clonezilla and FOG write them, made by the tools that they use, and files in pieces."""

import io
import lzma
import re
import shutil
import subprocess
import tarfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import zstandard
from fleetcast.catalog.v1 import image_pb2
from fleetcast_kit.errors import DataLossError, InvalidArgumentError

from tests.integration.test_catalog_import import captured, needs_wimlib
from tests.support.catalog import CatalogSite, serving_catalog

PATH = "/usr/sbin:/sbin:/usr/bin:/bin"
MIB = 1 << 20
TOOLS = ("partclone.ext4", "partclone.fat32", "partclone.dd", "sfdisk", "sgdisk", "mke2fs", "mkfs.fat", "mkswap")
pytestmark = pytest.mark.skipif(
    not all(shutil.which(tool, path=PATH) for tool in TOOLS),
    reason=f"one of {', '.join(TOOLS)} is not installed (partclone, fdisk, gdisk, e2fsprogs, dosfstools)",
)
GPT = """label: gpt
first-lba: 34
start=2048, size=81920, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, name="EFI system partition"
start=83968, size=32768, type=E3C9E316-0B5C-4DB8-817D-F92DF00215AE
start=116736, size=65536, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4, name="root"
start=182272, size=16384, type=0657FD6D-A4AB-43C4-84E5-0933C84B4F4F
"""
MBR = """label: dos
start=2048, size=65536, type=83, bootable
start=67584, size=131072, type=5
start=69632, size=65536, type=83
start=137216, size=16384, type=82
"""
SWAP = "5c7dd1ee-2f0f-4d2c-9b6e-0d8ab1a7f3a1"


@pytest.fixture
async def catalog(tmp_path: Path) -> AsyncIterator[CatalogSite]:
    async with serving_catalog(tmp_path / "data") as site:
        yield site


def run(*command: str | Path, stdin: bytes = b"") -> bytes:
    words = list(map(str, command))
    return subprocess.run(words, check=True, capture_output=True, env={"PATH": PATH}, input=stdin).stdout


class Disk:
    """A disk to be saved, with its volumes as files."""

    def __init__(self, work: Path, table: str) -> None:
        self.work = work
        work.mkdir()
        self.file = work / "disk"
        with self.file.open("wb") as file:
            file.truncate(100 * MIB)
            file.write(b"boot code " * 40)
        run("sfdisk", "--no-reread", self.file, stdin=table.encode())
        self.boot = self.file.read_bytes()[:440]
        dump = run("sfdisk", "--dump", self.file).decode()
        self.dump = dump.replace(str(self.file), "/dev/sda")
        places = re.findall(r"(\d+) : start= *(\d+), size= *(\d+)", dump)
        self.places = {int(number): (int(start) * 512, int(size) * 512) for number, start, size in places}

    def make(self, number: int, *command: str) -> Path:
        """Makes a file system in a partition; returns it as a file."""
        _, size = self.places[number]
        volume = self.work / f"volume{number}"
        with volume.open("wb") as file:
            file.truncate(size)
        run(*command, volume)
        self.put(number, volume.read_bytes())
        return volume

    def put(self, number: int, content: bytes) -> None:
        with self.file.open("r+b") as file:
            file.seek(self.places[number][0])
            file.write(content)

    def save(self, number: int, kind: str, target: Path) -> bytes:
        """Returns what partclone saves of a volume."""
        volume = self.work / f"volume{number}"
        flags: list[str | Path] = ["-s", volume, "-o", target, "-L", "/dev/null"]
        run(f"partclone.{kind}", *([] if kind == "dd" else ["-c"]), *flags)
        saved = target.read_bytes()
        target.unlink()
        return saved


def pieces(target: Path, content: bytes, size_bytes: int) -> None:
    for index in range(0, len(content), size_bytes):
        name = f"{target.name}.a{chr(ord('a') + index // size_bytes)}"
        (target.parent / name).write_bytes(content[index : index + size_bytes])


def compressed(suffix: str, content: bytes) -> bytes:
    return {
        "gz": lambda: run("gzip", "-c", stdin=content),
        "zst": lambda: zstandard.compress(content),
        "xz": lambda: lzma.compress(content),
        "uncomp": lambda: content,
    }[suffix]()


def gpt_disk(work: Path) -> Disk:
    disk = Disk(work, GPT)
    disk.make(1, "mkfs.fat", "-F", "32", "-n", "SYSTEM")
    disk.make(3, "mke2fs", "-q", "-F", "-t", "ext4", "-L", "root")
    disk.make(4, "mkswap", "-q", "-U", SWAP)
    (work / "volume2").write_bytes(b"reserved".ljust(disk.places[2][1], b"\0"))
    disk.put(2, (work / "volume2").read_bytes())
    return disk


def mbr_disk(work: Path) -> Disk:
    disk = Disk(work, MBR)
    disk.make(1, "mke2fs", "-q", "-F", "-t", "ext4", "-L", "boot")
    disk.make(5, "mke2fs", "-q", "-F", "-t", "ext4", "-L", "root")
    disk.make(6, "mkswap", "-q", "-U", SWAP)
    with disk.file.open("r+b") as file:
        file.seek(512)
        file.write(b"second stage of the boot loader")
    return disk


def clonezilla(disk: Disk, directory: Path, suffix: str, name: str, *, volumes: dict[int, str], swap: int) -> Path:
    """Writes a directory as `ocs-sr savedisk` does."""
    directory.mkdir()
    content = disk.file.read_bytes()
    separator = "p" if name[-1].isdigit() else ""
    parts = {number: f"{name}{separator}{number}" for number in disk.places}
    (directory / "clonezilla-img").write_text("This image was saved by Clonezilla\n")
    (directory / "disk").write_text(f"{name}\n")
    (directory / "parts").write_text(" ".join(parts[number] for number in volumes) + "\n")
    sf = re.sub(r"/dev/sda(\d)", lambda match: f"/dev/{name}{separator}{match[1]}", disk.dump)
    (directory / f"{name}-pt.sf").write_text(sf.replace("device: /dev/sda", f"device: /dev/{name}"))
    (directory / f"{name}-pt.parted").write_text(
        f"Model: ATA disk (scsi)\nDisk /dev/{name}: {len(content) // 512}s\n"
        "Sector size (logical/physical): 512B/512B\nPartition Table: gpt\n"
    )
    (directory / f"{name}-mbr").write_bytes(content[:512])
    if "gpt" in disk.dump:
        (directory / f"{name}-gpt-1st").write_bytes(content[: 34 * 512])
        (directory / f"{name}-gpt-2nd").write_bytes(content[-33 * 512 :])
        run("sgdisk", "-b", directory / f"{name}-gpt.gdisk", disk.file)
    else:
        (directory / f"{name}-hidden-data-after-mbr").write_bytes(content[512 : 2048 * 512])
    for number, kind in volumes.items():
        saved = compressed(suffix, disk.save(number, kind, directory / "saved"))
        label = {"fat32": "vfat"}.get(kind, kind)
        target = directory / f"{parts[number]}.{label}-ptcl-img.{suffix}"
        if number == 1 and suffix == "zst":
            target.write_bytes(saved)  # one that was not split
        else:
            pieces(target, saved, max(len(saved) // 3, 1000))
    (directory / f"swappt-{parts[swap]}.info").write_text(f'UUID="{SWAP}"\nLABEL=""\n')
    return directory


def tar(directory: Path) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w|") as archive:
        for file in sorted(directory.iterdir()):
            archive.add(file, arcname=file.name)
    return packed.getvalue()


async def same_disk(catalog: CatalogSite, image: image_pb2.Image, disk: Disk, *, tail_bytes: int = 33 * 512) -> None:
    """Compares all that was saved: boot code, table, volumes, and the swap partition's identity."""
    content, original = await catalog.content(image.name), disk.file.read_bytes()
    assert content[:440] == original[:440] == disk.boot
    for number, (offset, size) in disk.places.items():
        if number != 2 or "gpt" in disk.dump:
            assert content[offset : offset + size] == original[offset : offset + size], f"partition {number}"
    if tail_bytes:
        assert content[-tail_bytes:] == original[-tail_bytes:]
    assert [each.number for each in image.contents.partitions] == sorted(disk.places)


@pytest.mark.parametrize(("suffix", "name"), [("gz", "sda"), ("zst", "nvme0n1"), ("xz", "vda"), ("uncomp", "mmcblk0")])
async def test_a_clonezilla_directory_becomes_the_disk_that_was_saved(
    catalog: CatalogSite, tmp_path: Path, suffix: str, name: str
) -> None:
    disk = gpt_disk(tmp_path / "work")
    volumes = {1: "fat32", 2: "dd", 3: "ext4"}
    directory = clonezilla(disk, tmp_path / "2026-img", suffix, name, volumes=volumes, swap=4)
    by_path = await catalog.import_file("path", directory)
    assert by_path.format == image_pb2.IMAGE_FORMAT_CLONEZILLA
    await same_disk(catalog, by_path, disk)
    uploaded = await catalog.upload("upload", tar(directory), declared_bytes=-1, source_is_directory=True)
    assert uploaded.digest == by_path.digest
    assert not catalog.residue()


async def test_a_clonezilla_directory_of_an_mbr_disk_keeps_logical_partitions_and_boot_loader(
    catalog: CatalogSite, tmp_path: Path
) -> None:
    disk = mbr_disk(tmp_path / "work")
    directory = clonezilla(disk, tmp_path / "img", "gz", "sda", volumes={1: "ext4", 5: "ext4"}, swap=6)
    image = await catalog.import_file("linux", directory)
    await same_disk(catalog, image, disk, tail_bytes=0)
    assert (await catalog.content(image.name))[512 : 2048 * 512] == disk.file.read_bytes()[512 : 2048 * 512]
    assert [each.label for each in image.contents.partitions if each.label] == ["boot", "root"]


async def test_what_saveparts_saved_is_imported_into_the_disk_that_it_came_from(
    catalog: CatalogSite, tmp_path: Path
) -> None:
    disk = gpt_disk(tmp_path / "work")
    directory = clonezilla(disk, tmp_path / "img", "gz", "sda", volumes={3: "ext4"}, swap=4)
    (directory / "disk").unlink()
    image = await catalog.import_file("root", directory)
    assert [each.filesystem for each in image.contents.partitions] == ["", "", "ext4", "swap"]


def without(name: str) -> Callable[[Path], None]:
    return lambda directory: (directory / name).unlink()


@pytest.mark.parametrize(
    ("change", "error", "problem"),
    [
        (without("sda3.ext4-ptcl-img.gz.ab"), DataLossError, "the piece sda3.ext4-ptcl-img.gz.ab is missing"),
        (without("sda3.ext4-ptcl-img.gz.aa"), DataLossError, "the first piece of sda3.ext4-ptcl-img.gz is missing"),
        (without("sda-pt.sf"), DataLossError, "has no partition table"),
        (
            lambda path: (path / "parts").write_text("sda1 sda2 sda3 sda5\n"),
            DataLossError,
            "the image of sda5 is missing",
        ),
        (lambda path: (path / "ecryptfs.info").touch(), InvalidArgumentError, "is an encrypted Clonezilla image"),
        (lambda path: (path / "sdb-pt.sf").touch(), InvalidArgumentError, "is a Clonezilla image of 2 disks"),
        (lambda path: (path / "lvm_vg_dev.list").write_text("vg /dev/sda3 x"), InvalidArgumentError, "LVM volumes"),
    ],
)
async def test_a_clonezilla_directory_that_is_not_whole_is_refused_by_what_it_lacks(
    catalog: CatalogSite, tmp_path: Path, change: Callable[[Path], None], error: type[Exception], problem: str
) -> None:
    disk = gpt_disk(tmp_path / "work")
    directory = clonezilla(disk, tmp_path / "img", "gz", "sda", volumes={1: "fat32", 2: "dd", 3: "ext4"}, swap=4)
    change(directory)
    with pytest.raises(error, match=re.escape(problem)):
        await catalog.import_file("bad", directory)
    assert not catalog.residue()


@pytest.mark.parametrize(("suffix", "split"), [("gz", False), ("zst", True), ("uncomp", False)])
async def test_a_fog_directory_becomes_the_disk_that_was_captured(
    catalog: CatalogSite, tmp_path: Path, suffix: str, split: bool
) -> None:
    disk = gpt_disk(tmp_path / "work")
    directory = tmp_path / "office"
    directory.mkdir()
    run("sgdisk", "-b", directory / "d1.mbr", disk.file)
    backup = bytearray((directory / "d1.mbr").read_bytes())
    (directory / "d1.partitions").write_text(disk.dump)
    (directory / "d1.original.swapuuids").write_text(f"4 {SWAP}\n")
    (directory / "d1.fixed_size_partitions").write_text(":1:2")
    for number, kind in {1: "fat32", 3: "ext4"}.items():
        saved = compressed(suffix, disk.save(number, kind, directory / "saved"))
        target = directory / f"d1p{number}.img"
        if split:
            for index, start in enumerate(range(0, len(saved), 3 * len(saved) // 4)):
                (directory / f"d1p{number}.img.{index:03}").write_bytes(saved[start : start + 3 * len(saved) // 4])
        else:
            target.write_bytes(saved)
    (disk.work / "volume2").write_bytes(bytes(disk.places[2][1]))
    disk.put(2, bytes(disk.places[2][1]))
    assert backup[:440] == disk.boot
    image = await catalog.import_file("office", directory)
    assert image.format == image_pb2.IMAGE_FORMAT_FOG
    await same_disk(catalog, image, disk)


async def test_a_fog_directory_of_an_mbr_disk_lacks_nothing(catalog: CatalogSite, tmp_path: Path) -> None:
    disk = mbr_disk(tmp_path / "work")
    directory = tmp_path / "office"
    directory.mkdir()
    (directory / "d1.mbr").write_bytes(disk.file.read_bytes()[: 2048 * 512])
    (directory / "d1.partitions").write_text(disk.dump)
    (directory / "d1.original.swapuuids").write_text(f"6 {SWAP}\n")
    for number in (1, 5):
        (directory / f"d1p{number}.img").write_bytes(compressed("gz", disk.save(number, "ext4", directory / "saved")))
    image = await catalog.import_file("office", directory)
    await same_disk(catalog, image, disk, tail_bytes=0)
    (directory / "d1p5.img").unlink()
    with pytest.raises(DataLossError, match="the image of partition 5 is missing"):
        await catalog.import_file("bad", directory)
    (directory / "d1p5.img").write_bytes(b"PaRtImAgE-VoLuMe" + bytes(1000))
    with pytest.raises(InvalidArgumentError, match=r"is a partimage file: .* \(in the image of partition 5\)"):
        await catalog.import_file("bad", directory)


# Other directories


async def test_a_file_in_pieces_is_put_together(catalog: CatalogSite, tmp_path: Path) -> None:
    disk = gpt_disk(tmp_path / "work")
    directory = tmp_path / "pieces"
    directory.mkdir()
    pieces(directory / "disk.img.gz", compressed("gz", disk.file.read_bytes()), 20_000)
    image = await catalog.upload("disk", tar(directory), declared_bytes=-1, source_is_directory=True)
    assert await catalog.content(image.name) == disk.file.read_bytes()


@needs_wimlib
async def test_the_parts_of_a_split_wim_are_joined(catalog: CatalogSite, tmp_path: Path) -> None:
    wim = captured(tmp_path)
    (tmp_path / "parts").mkdir()
    run("wimlib-imagex", "split", wim, tmp_path / "parts" / "install.swm", "1")
    image = await catalog.import_file("windows", tmp_path / "parts")
    assert image.format == image_pb2.IMAGE_FORMAT_WIM
    assert [inside.display_name for inside in image.wim_images] == ["Täst"]
    (tmp_path / "parts" / "install2.swm").unlink()
    with pytest.raises(DataLossError, match="its parts cannot be joined"):
        await catalog.import_file("bad", tmp_path / "parts")


async def test_any_other_directory_is_refused_with_what_is_in_it(catalog: CatalogSite, tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "notes.txt").write_text("x")
    with pytest.raises(InvalidArgumentError, match=r"neither a Clonezilla nor a FOG image.*notes\.txt"):
        await catalog.import_file("bad", tmp_path / "files")
    with pytest.raises(DataLossError, match="did not all arrive"):
        await catalog.upload("bad", b"x" * 5000, declared_bytes=-1, source_is_directory=True)
    assert not catalog.residue()
