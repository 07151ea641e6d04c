import bz2
import gzip
import lzma
import os
import shutil
import struct
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import grpc
import pytest
import zstandard
from fleetcast.catalog.v1 import catalog_service_pb2, image_pb2
from fleetcast_kit.errors import (
    AbortedError,
    DataLossError,
    FailedPreconditionError,
    InvalidArgumentError,
)

from tests.integration.catalog_import import (
    CHUNK,
    DATA,
    DISK,
    assert_nothing_left,
    drain,
    eventually,
    needs_qemu,
    refused,
    virtual_disk,
)
from tests.support.catalog import CatalogSite, data_request, import_request, serving_catalog
from tests.support.wimfile import WimFile

Compress = Callable[[bytes], bytes]
COMPRESSORS: dict[str, Compress] = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "lzma": lambda content: lzma.compress(content, lzma.FORMAT_ALONE),
    "zst": zstandard.compress,
}
VIRTUAL_DISKS = pytest.mark.parametrize("kind", ["qcow2", "vhdx", "vmdk", "vpc", "vdi", "qed", "parallels", "qcow"])
needs_wimlib = pytest.mark.skipif(not shutil.which("wimlib-imagex"), reason="wimlib is not installed (wimtools)")


@pytest.fixture
async def catalog(tmp_path: Path) -> AsyncIterator[CatalogSite]:
    async with serving_catalog(tmp_path / "data") as site:
        yield site


@pytest.fixture
def work(tmp_path: Path) -> Path:
    path = tmp_path / "work"
    path.mkdir()
    return path


def captured(work: Path, *options: str) -> Path:
    tree, wim = work / "tree", work / "tree.wim"
    tree.mkdir()
    (tree / "größe.bin").write_bytes(DATA)
    (tree / "text").write_bytes(b"text " * 5000)
    command = ["wimlib-imagex", "capture", str(tree), str(wim), "Täst", "A description", *options]
    subprocess.run(command, check=True, capture_output=True)
    return wim


# What can be imported


@pytest.mark.parametrize("suffix", COMPRESSORS)
async def test_a_compressed_disk_is_imported_as_its_content(catalog: CatalogSite, suffix: str, work: Path) -> None:
    plain = await catalog.upload("plain", DISK)
    file = work / "misleading.name"
    file.write_bytes(COMPRESSORS[suffix](DISK))
    for image in (await catalog.upload("a", file.read_bytes()), await catalog.import_file("b", file)):
        assert image.digest == plain.digest
        assert image.format == image_pb2.IMAGE_FORMAT_RAW
        assert image.size_bytes == len(DISK)


@needs_qemu
@VIRTUAL_DISKS
@pytest.mark.parametrize("suffix", ["", "zst"])
async def test_a_virtual_disk_is_imported_as_the_raw_disk_it_describes(
    catalog: CatalogSite, work: Path, kind: str, suffix: str
) -> None:
    file = virtual_disk(work, kind)
    if suffix:
        file.write_bytes(COMPRESSORS[suffix](file.read_bytes()))
    by_path = await catalog.import_file("path", file)
    uploaded = await catalog.upload("upload", file.read_bytes(), declared_bytes=-1)
    assert by_path.digest == uploaded.digest
    assert by_path.format == image_pb2.ImageFormat.Value(f"IMAGE_FORMAT_{kind.upper().replace('VPC', 'VHD')}")
    content = await catalog.content(by_path.name)
    assert content[: len(DISK)] == DISK
    assert not any(content[len(DISK) :])
    assert not catalog.residue()


@needs_qemu
@pytest.mark.parametrize("options", [("-c",), ("-o", "compat=0.10")])
async def test_kinds_of_qcow2_are_all_one(catalog: CatalogSite, work: Path, options: tuple[str, ...]) -> None:
    image = await catalog.import_file("disk", virtual_disk(work, "qcow2", DISK, *options))
    assert await catalog.content(image.name) == DISK


@needs_qemu
async def test_a_stream_optimized_vmdk_is_one_too(catalog: CatalogSite, work: Path) -> None:
    image = await catalog.import_file("disk", virtual_disk(work, "vmdk", DISK, "-o", "subformat=streamOptimized"))
    assert (await catalog.content(image.name))[: len(DISK)] == DISK


@needs_wimlib
@pytest.mark.parametrize(
    ("options", "image_format"),
    [
        ((), image_pb2.IMAGE_FORMAT_WIM),
        (("--check",), image_pb2.IMAGE_FORMAT_WIM),
        (("--pipable",), image_pb2.IMAGE_FORMAT_WIM),
        (("--solid",), image_pb2.IMAGE_FORMAT_ESD),
    ],
)
@pytest.mark.parametrize("suffix", ["", "xz"])
async def test_a_wim_is_kept_as_the_file_it_is_and_its_images_are_listed(
    catalog: CatalogSite, work: Path, options: tuple[str, ...], image_format: int, suffix: str
) -> None:
    wim = captured(work, *options).read_bytes()
    image = await catalog.upload("windows", COMPRESSORS[suffix](wim) if suffix else wim)
    assert image.format == image_format
    assert await catalog.content(image.name) == wim
    (inside,) = image.wim_images
    assert (inside.index, inside.display_name, inside.description) == (1, "Täst", "A description")
    assert (inside.file_count, inside.directory_count) == (2, 1)
    assert inside.total_bytes == len(DATA) + 25_000
    assert await catalog.get("images/windows") == image


@needs_wimlib
@pytest.mark.parametrize("suffix", ["", "gz"])
async def test_a_wim_that_contradicts_its_own_integrity_table_is_refused(
    catalog: CatalogSite, work: Path, suffix: str
) -> None:
    wim = bytearray(captured(work, "--check").read_bytes())
    wim[len(wim) // 2] ^= 1
    error = await refused(catalog, DataLossError, COMPRESSORS[suffix](bytes(wim)) if suffix else bytes(wim))
    assert "is corrupt: bytes 208 to" in error.message
    assert "integrity table" in error.message


async def test_windows_editions_and_languages_are_read_from_a_wim(catalog: CatalogSite) -> None:
    image = await catalog.upload("windows", WimFile(boot_index=2).pack())
    professional, data = image.wim_images
    assert (professional.edition, professional.architecture) == ("Professional", "x64")
    assert list(professional.languages) == ["de-DE", "en-US"]
    assert professional.version == "10.0.22631.3007"
    assert (professional.bootable, data.bootable) == (False, True)


async def test_a_format_that_fits_is_accepted(catalog: CatalogSite) -> None:
    wim = WimFile().pack()
    image = await catalog.upload("windows", wim, format=image_pb2.IMAGE_FORMAT_WIM)
    assert image.format == image_pb2.IMAGE_FORMAT_WIM


# What cannot


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "disk.img is empty"),
        (gzip.compress(b"", mtime=0), "disk.img is empty"),
        (b"\x04\x22\x4d\x18" + bytes(1000), "is an lz4 file: decompress it first, with `lz4 -d`"),
        (WimFile(part=(1, 2)).pack(), "part 1 of 2 of a split WIM"),
    ],
)
async def test_unusable_input_is_refused_and_nothing_is_left(
    catalog: CatalogSite, content: bytes, problem: str
) -> None:
    error = await refused(catalog, InvalidArgumentError, content)
    assert problem in error.message


@pytest.mark.parametrize("declared_bytes", [None, -1])
@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (gzip.compress(DISK, mtime=0)[:-5], "is truncated"),
        (lzma.compress(DISK)[:-5], "is truncated"),
        (zstandard.compress(DISK)[:-5], "is truncated"),
        (WimFile().pack()[:-5], "is truncated"),
        (WimFile(pipable=True).pack()[:-5], "is truncated"),
        (gzip.compress(WimFile().pack()[:-5], mtime=0), "is truncated"),
        (gzip.compress(DATA, mtime=0)[: CHUNK // 2] + DATA, "is corrupt"),
        (WimFile(xml="<WIM>").pack(), "is corrupt"),
        (WimFile(image_count=7).pack(), "is corrupt"),
    ],
)
async def test_damaged_input_is_refused_and_nothing_is_left(
    catalog: CatalogSite, content: bytes, problem: str, declared_bytes: int | None
) -> None:
    error = await refused(catalog, DataLossError, content, declared_bytes=declared_bytes)
    assert error.message.startswith(f"disk.img {problem}")


@needs_qemu
@VIRTUAL_DISKS
async def test_a_truncated_virtual_disk_is_refused_and_nothing_is_left(
    catalog: CatalogSite, work: Path, kind: str
) -> None:
    file = virtual_disk(work, kind)
    os.truncate(file, file.stat().st_size // 2)
    error = await refused(catalog, DataLossError, file.read_bytes())
    assert ("disk.img is corrupt" if kind == "qed" else "disk.img is truncated") in error.message
    with pytest.raises(DataLossError, match=str(file)):
        await catalog.import_file("bad", file)
    await assert_nothing_left(catalog)


@needs_qemu
async def test_a_difference_to_a_backing_file_is_refused(catalog: CatalogSite, work: Path) -> None:
    base, overlay = virtual_disk(work, "qcow2"), work / "overlay"
    shutil.copy(base, overlay)
    with overlay.open("r+b") as changing:
        changing.seek(8)
        changing.write(struct.pack(">QI", 1 << 15, 4))
    with pytest.raises(InvalidArgumentError, match="backing file"):
        await catalog.import_file("bad", overlay)
    await assert_nothing_left(catalog)


async def test_a_contradicted_format_says_what_was_found(catalog: CatalogSite) -> None:
    error = await refused(catalog, InvalidArgumentError, DISK, format=image_pb2.IMAGE_FORMAT_QCOW2)
    assert error.message.startswith("disk.img is not qcow2: its content is raw data")


async def test_a_missing_tool_names_its_package(catalog: CatalogSite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    disk = b"QFI\xfb" + struct.pack(">IQ", 3, 0) + bytes(500)
    error = await refused(catalog, FailedPreconditionError, disk)
    assert "apt install qemu-utils" in error.message


@pytest.mark.parametrize(
    ("declared_bytes", "problem"),
    [(len(DISK) + 1, "truncated"), (len(DISK) - 1, "truncated")],
)
async def test_an_upload_of_another_size_than_declared_is_refused(
    catalog: CatalogSite, declared_bytes: int, problem: str
) -> None:
    error = await refused(catalog, DataLossError, DISK, declared_bytes=declared_bytes)
    assert problem in error.message


async def test_an_upload_of_unknown_size_that_just_ends_is_refused(catalog: CatalogSite) -> None:
    requests = [import_request("bad", source_size_bytes=-1), data_request(DATA[:CHUNK])]
    with pytest.raises(AbortedError, match="without saying that it is complete"):
        await catalog.import_messages(requests)
    await assert_nothing_left(catalog)


async def test_an_upload_whose_last_message_counts_other_bytes_is_refused(catalog: CatalogSite) -> None:
    end = catalog_service_pb2.ImportImageRequest(sent_bytes=CHUNK + 1)
    requests = [import_request("bad", source_size_bytes=-1), data_request(DATA[:CHUNK]), end]
    with pytest.raises(DataLossError, match="1048576 of 1048577 bytes arrived"):
        await catalog.import_messages(requests)
    await assert_nothing_left(catalog)


@pytest.mark.parametrize(
    "requests",
    [
        [],
        [data_request(b"x")],
        [import_request("bad", source_size_bytes=2), data_request(b"x"), import_request("bad")],
        [
            import_request("bad", source_size_bytes=-1),
            catalog_service_pb2.ImportImageRequest(sent_bytes=0),
            data_request(b"x"),
        ],
        [import_request("bad", source_size_bytes=5 << 20), data_request(bytes(5 << 20))],
        [import_request("bad", source_size_bytes=5), catalog_service_pb2.ImportImageRequest()],
    ],
)
async def test_messages_out_of_order_are_refused(
    catalog: CatalogSite, requests: list[catalog_service_pb2.ImportImageRequest]
) -> None:
    with pytest.raises(InvalidArgumentError):
        await catalog.import_messages(requests)
    await assert_nothing_left(catalog)


async def test_a_file_that_changes_while_it_is_read_is_refused(catalog: CatalogSite, work: Path) -> None:
    file = work / "disk"
    file.write_bytes(os.urandom(100 * CHUNK))
    call = catalog.administrator.ImportImage(iter([import_request("bad", source_path=str(file))]))
    await eventually(lambda: len(catalog.stored_chunks()) > 0)
    with file.open("r+b") as changing:
        changing.write(b"changed")
    with pytest.raises(grpc.aio.AioRpcError, match="changed while it was read"):
        await drain(call)
    await assert_nothing_left(catalog)
