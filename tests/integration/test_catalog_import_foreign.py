"""Files of the tools that people come from, made by these tools."""

import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fleetcast.catalog.v1 import image_pb2
from fleetcast_kit.errors import DataLossError, InvalidArgumentError

from tests.integration.catalog_import import DISK, assert_nothing_left, needs_qemu, refused, virtual_disk
from tests.integration.test_catalog_import import COMPRESSORS, captured, needs_wimlib
from tests.support.catalog import CatalogSite, serving_catalog

PATH = "/usr/sbin:/sbin:/usr/bin:/bin"
needs_partclone = pytest.mark.skipif(
    not (shutil.which("partclone.ext4", path=PATH) and shutil.which("mke2fs", path=PATH)),
    reason="partclone or mke2fs is not installed (partclone, e2fsprogs)",
)
needs_discs = pytest.mark.skipif(
    not (shutil.which("genisoimage") and (shutil.which("7z") or shutil.which("7zz"))),
    reason="genisoimage or 7-Zip is not installed (genisoimage, 7zip)",
)


@pytest.fixture
async def catalog(tmp_path: Path) -> AsyncIterator[CatalogSite]:
    async with serving_catalog(tmp_path / "data") as site:
        yield site


@pytest.fixture
def work(tmp_path: Path) -> Path:
    path = tmp_path / "work"
    path.mkdir()
    return path


def run(*command: str | Path) -> None:
    subprocess.run(list(map(str, command)), check=True, capture_output=True, env={"PATH": PATH})


def volume(work: Path) -> Path:
    """Returns a file with an ext4 file system, as partclone restores it: unused blocks are zero."""
    file = work / "volume"
    with file.open("wb") as opened:
        opened.truncate(24 << 20)
    run("mke2fs", "-q", "-F", "-t", "ext4", "-L", "root", file)
    return file


# Virtual disks


@needs_qemu
async def test_a_fixed_vhd_is_the_disk_in_front_of_its_footer(catalog: CatalogSite, work: Path) -> None:
    file = virtual_disk(work, "vpc", DISK, "-o", "subformat=fixed,force_size=on")
    by_path = await catalog.import_file("path", file)
    uploaded = await catalog.upload("upload", file.read_bytes(), declared_bytes=-1)
    assert by_path.digest == uploaded.digest
    assert by_path.format == uploaded.format == image_pb2.IMAGE_FORMAT_VHD
    assert await catalog.content(by_path.name) == DISK
    named = await catalog.upload("named", file.read_bytes(), format=image_pb2.IMAGE_FORMAT_VHD)
    assert named.digest == by_path.digest


@needs_qemu
async def test_a_vhd_that_is_only_a_difference_is_refused(catalog: CatalogSite, work: Path) -> None:
    content = bytearray(virtual_disk(work, "vpc").read_bytes())
    for place in (0, len(content) - 512):
        content[place + 60 : place + 64] = (4).to_bytes(4, "big")
        content[place + 64 : place + 68] = bytes(4)
        content[place + 64 : place + 68] = (~sum(content[place : place + 512]) & 0xFFFFFFFF).to_bytes(4, "big")
    error = await refused(catalog, InvalidArgumentError, bytes(content))
    assert "is only the difference to a parent disk" in error.message


def dirty(work: Path, kind: str) -> Path:
    """Returns a virtual disk whose last user was killed between the entry in its log and what the entry is about."""
    clean = virtual_disk(work, kind, bytes(40 << 20))
    file = work / f"dirty.{kind}"
    for flush in range(1, 6):
        shutil.copy(clean, file)
        trace = ["strace", "-f", "-o", "/dev/null", "-e", "trace=fdatasync"]
        inject = ["-e", f"inject=fdatasync:signal=KILL:when={flush}"]
        write = ["qemu-io", "-f", kind, "-c", "write -P 0x41 20M 1M", str(file)]
        subprocess.run([*trace, *inject, *write], capture_output=True, check=False)
        said = subprocess.run(["qemu-img", "info", file], capture_output=True, text=True, check=False)
        if "replayed" in said.stdout + said.stderr:
            return file
    pytest.skip("this qemu-io could not be killed between log and data")


@needs_qemu
@pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")
async def test_the_log_of_a_vhdx_is_replayed_in_a_copy(catalog: CatalogSite, work: Path) -> None:
    file = dirty(work, "vhdx")
    before = file.read_bytes()
    by_path = await catalog.import_file("path", file)
    assert file.read_bytes() == before
    assert (await catalog.upload("upload", before)).digest == by_path.digest
    assert by_path.size_bytes == 40 << 20
    assert not catalog.residue()


@needs_qemu
async def test_a_damaged_virtual_disk_is_named_as_the_operator_knows_it(catalog: CatalogSite, work: Path) -> None:
    content = bytearray(virtual_disk(work, "vhdx").read_bytes())
    content[64 << 10 : 256 << 10] = bytes(192 << 10)
    error = await refused(catalog, DataLossError, bytes(content))
    assert error.message.startswith("disk.img is corrupt: qemu-img refuses it (Could not open it:")
    assert "incoming" not in error.message


# Volumes


@needs_partclone
@pytest.mark.parametrize("suffix", ["", *COMPRESSORS])
async def test_what_partclone_saved_is_imported_as_the_volume(catalog: CatalogSite, work: Path, suffix: str) -> None:
    source, file = volume(work), work / "sda1.ext4-ptcl-img"
    run("partclone.ext4", "-c", "-s", source, "-o", file, "-L", "/dev/null")
    if suffix:
        file.write_bytes(COMPRESSORS[suffix](file.read_bytes()))
    by_path = await catalog.import_file("path", file)
    uploaded = await catalog.upload("upload", file.read_bytes(), declared_bytes=-1)
    assert by_path.digest == uploaded.digest
    assert by_path.format == image_pb2.IMAGE_FORMAT_PARTCLONE
    assert await catalog.content(by_path.name) == source.read_bytes()
    assert not catalog.residue()


@needs_partclone
async def test_a_damaged_or_truncated_partclone_image_is_refused(catalog: CatalogSite, work: Path) -> None:
    source, file = volume(work), work / "saved"
    run("partclone.ext4", "-c", "-s", source, "-o", file, "-L", "/dev/null")
    content = file.read_bytes()
    error = await refused(catalog, DataLossError, content[:-20_000])
    assert error.message.startswith("disk.img is truncated: partclone.restore found no more data")
    middle = len(content) // 2
    error = await refused(catalog, DataLossError, content[:middle] + b"oops" + content[middle + 4 :])
    assert error.message.startswith("disk.img is corrupt: partclone.restore refuses it (CRC error")


# Windows media


def disc(work: Path, *options: str, name: str = "install.wim", solid: bool = False) -> tuple[Path, bytes]:
    """Returns an ISO with a Windows image, and the image."""
    wim = captured(work, *(["--solid"] if solid else []))
    (work / "iso" / "sources").mkdir(parents=True)
    (work / "iso" / "sources" / name).write_bytes(wim.read_bytes())
    run("genisoimage", "-quiet", *options, "-o", work / "windows.iso", work / "iso")
    return work / "windows.iso", wim.read_bytes()


@needs_discs
@needs_wimlib
@pytest.mark.parametrize("options", [(), ("-J", "-r"), ("-udf", "-allow-limited-size")])
@pytest.mark.parametrize("solid", [False, True])
async def test_the_windows_image_of_a_disc_is_imported(
    catalog: CatalogSite, work: Path, options: tuple[str, ...], solid: bool
) -> None:
    file, wim = disc(work, *options, name="install.esd" if solid else "install.wim", solid=solid)
    by_path = await catalog.import_file("path", file)
    uploaded = await catalog.upload("upload", file.read_bytes())
    assert by_path.digest == uploaded.digest
    assert by_path.format == (image_pb2.IMAGE_FORMAT_ESD if solid else image_pb2.IMAGE_FORMAT_WIM)
    assert await catalog.content(by_path.name) == wim
    assert [inside.display_name for inside in by_path.wim_images] == ["Täst"]
    assert not catalog.residue()


@needs_discs
@needs_wimlib
async def test_the_split_windows_image_of_a_disc_is_joined(catalog: CatalogSite, work: Path) -> None:
    wim = captured(work)
    (work / "iso" / "sources").mkdir(parents=True)
    run("wimlib-imagex", "split", wim, work / "iso" / "sources" / "install.swm", "1")
    assert len(list((work / "iso" / "sources").iterdir())) > 1
    run("genisoimage", "-quiet", "-udf", "-o", work / "windows.iso", work / "iso")
    image = await catalog.import_file("windows", work / "windows.iso")
    assert image.format == image_pb2.IMAGE_FORMAT_WIM
    assert [inside.total_bytes for inside in image.wim_images] == [len(DISK[: 2 << 20]) + 25_000]


@needs_discs
async def test_a_disc_without_windows_is_refused_unless_it_is_to_be_taken_as_it_is(
    catalog: CatalogSite, work: Path
) -> None:
    (work / "iso").mkdir()
    (work / "iso" / "readme").write_text("nothing")
    run("genisoimage", "-quiet", "-o", work / "linux.iso", work / "iso")
    content = (work / "linux.iso").read_bytes()
    error = await refused(catalog, InvalidArgumentError, content)
    assert "is a disc without sources/install.wim" in error.message
    assert "format raw" in error.message
    image = await catalog.upload("disc", content, format=image_pb2.IMAGE_FORMAT_RAW)
    assert await catalog.content(image.name) == content
    await catalog.delete("images/disc")
    await assert_nothing_left(catalog)
