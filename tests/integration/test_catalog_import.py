import asyncio
import gzip
import lzma
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import zstandard
from fleetcast.catalog.v1 import catalog_service_pb2 as messages
from fleetcast.catalog.v1 import image_pb2
from fleetcast_kit.authority import CertificateAuthority
from fleetcast_kit.errors import (
    AbortedError,
    DataLossError,
    FailedPreconditionError,
    FleetcastError,
    InvalidArgumentError,
    ResourceExhaustedError,
)
from fleetcast_kit.identity import Identity, Role

from tests.support.catalog import CatalogSite, data_request, dialling, import_request, serving_catalog
from tests.support.trust import NAMES
from tests.support.wimfile import WimFile

CHUNK = 1 << 20
WAIT_SECONDS = 60.0
_random = random.Random(2)
DATA = _random.randbytes(2 * CHUNK)
DISK = DATA + bytes(3 * CHUNK) + b"configuration " * 80_000
DISK += bytes(-len(DISK) % 512)
Compress = Callable[[bytes], bytes]
COMPRESSORS: dict[str, Compress] = {"gz": gzip.compress, "xz": lzma.compress, "zst": zstandard.compress}
VIRTUAL_DISKS = pytest.mark.parametrize("kind", ["qcow2", "vhdx", "vmdk"])
needs_qemu = pytest.mark.skipif(not shutil.which("qemu-img"), reason="qemu-img is not installed (qemu-utils)")
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


def virtual_disk(work: Path, kind: str, content: bytes = DISK, *options: str) -> Path:
    raw, disk = work / "source.raw", work / f"disk.{kind}"
    raw.write_bytes(content)
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", kind, *options, raw, disk], check=True)
    return disk


def captured(work: Path, *options: str) -> Path:
    tree, wim = work / "tree", work / "tree.wim"
    tree.mkdir()
    (tree / "größe.bin").write_bytes(DATA)
    (tree / "text").write_bytes(b"text " * 5000)
    command = ["wimlib-imagex", "capture", str(tree), str(wim), "Täst", "A description", *options]
    subprocess.run(command, check=True, capture_output=True)
    return wim


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        while not condition():  # noqa: ASYNC110 - what is waited for happens on disk
            await asyncio.sleep(0.005)


async def assert_only_left(catalog: CatalogSite, *names: str) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        while [image.name for image in await catalog.page()] != list(names) or catalog.residue():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


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
    assert by_path.format == image_pb2.ImageFormat.Value(f"IMAGE_FORMAT_{kind.upper()}")
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
        (gzip.compress(b""), "disk.img is empty"),
        (b"BZh91AY&SY" + bytes(1000), "is a bzip2 file"),
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
        (gzip.compress(DISK)[:-5], "is truncated"),
        (lzma.compress(DISK)[:-5], "is truncated"),
        (zstandard.compress(DISK)[:-5], "is truncated"),
        (WimFile().pack()[:-5], "is truncated"),
        (WimFile(pipable=True).pack()[:-5], "is truncated"),
        (gzip.compress(WimFile().pack()[:-5]), "is truncated"),
        (gzip.compress(DATA)[: CHUNK // 2] + DATA, "is corrupt"),
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
    assert "disk.img is truncated" in error.message
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
    end = messages.ImportImageRequest(sent_bytes=CHUNK + 1)
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
        [import_request("bad", source_size_bytes=-1), messages.ImportImageRequest(sent_bytes=0), data_request(b"x")],
        [import_request("bad", source_size_bytes=5 << 20), data_request(bytes(5 << 20))],
        [import_request("bad", source_size_bytes=5), messages.ImportImageRequest()],
    ],
)
async def test_messages_out_of_order_are_refused(
    catalog: CatalogSite, requests: list[messages.ImportImageRequest]
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


# Interruptions


async def endless_upload(spec: messages.ImportImageRequest) -> AsyncIterator[messages.ImportImageRequest]:
    yield spec
    while True:
        yield data_request(os.urandom(CHUNK))


async def test_an_upload_that_is_cancelled_leaves_nothing_and_can_be_repeated(catalog: CatalogSite) -> None:
    call = catalog.administrator.ImportImage(endless_upload(import_request("disk", source_size_bytes=1 << 40)))
    async with asyncio.timeout(WAIT_SECONDS):
        while len(catalog.stored_chunks()) < 5:
            progress = await call.read()
    assert isinstance(progress, messages.ImportImageResponse)
    assert progress.phase == messages.ImportImageResponse.PHASE_STORING
    assert progress.image.state == image_pb2.Image.STATE_CREATING
    assert [image.name for image in await catalog.page()] == [progress.image.name]
    for call_on_it in (catalog.delete(progress.image.name), catalog.verify(progress.image.name)):
        with pytest.raises(FailedPreconditionError, match="import"):
            await call_on_it
    call.cancel()
    await assert_nothing_left(catalog)
    assert await catalog.content((await catalog.upload("disk", DISK)).name) == DISK


async def test_a_client_that_is_killed_leaves_nothing(catalog: CatalogSite, work: Path) -> None:
    """An upload of unknown size: the broken connection must not be taken for the end of the file."""
    catalog.server.credentials(Role.ADMINISTRATOR).save(work / "credentials")
    program = """
import asyncio, os, sys
from pathlib import Path
from fleetcast.catalog.v1.catalog_service_pb2_grpc import CatalogServiceStub
from fleetcast_kit.channel import open_channel
from fleetcast_kit.credentials import Credentials
from tests.support.catalog import data_request, import_request

async def requests():
    yield import_request("killed", source_size_bytes=-1)
    while True:
        yield data_request(os.urandom(1 << 20))

async def upload():
    async with open_channel(sys.argv[1], Credentials.load(Path(sys.argv[2]))) as channel:
        async for _ in CatalogServiceStub(channel).ImportImage(requests()):
            pass

asyncio.run(upload())
"""
    arguments = [sys.executable, "-c", program, catalog.server.address, str(work / "credentials")]
    client = await asyncio.create_subprocess_exec(*arguments)
    try:
        await eventually(lambda: len(catalog.stored_chunks()) >= 5)
    finally:
        client.send_signal(signal.SIGKILL)
        await client.wait()
    await assert_nothing_left(catalog)


async def test_an_upload_that_ends_too_early_and_is_cancelled_at_once_leaves_nothing(catalog: CatalogSite) -> None:
    """The cancellation may come while the failed import is cleaning up."""
    for delay in range(25):
        requests = [import_request("bad", source_size_bytes=-1), data_request(DATA[:CHUNK]), data_request(DATA[CHUNK:])]
        call = catalog.administrator.ImportImage(iter(requests))
        await call.read()
        await asyncio.sleep(delay / 1000)
        call.cancel()
    await assert_nothing_left(catalog)


async def test_a_catalog_that_stops_ends_an_import_without_a_trace(tmp_path: Path) -> None:
    async with serving_catalog(tmp_path) as catalog:
        call = catalog.administrator.ImportImage(endless_upload(import_request("disk", source_size_bytes=1 << 40)))
        async with asyncio.timeout(WAIT_SECONDS):
            while len(catalog.stored_chunks()) < 5:
                await call.read()
    async with serving_catalog(tmp_path) as catalog:
        assert not catalog.residue()
        assert not catalog.stored_chunks()
        assert not await catalog.page()


async def test_an_aborted_import_keeps_the_chunks_that_a_version_published_meanwhile_shares(
    catalog: CatalogSite,
) -> None:
    async def slow() -> AsyncIterator[messages.ImportImageRequest]:
        yield import_request("aborted", source_size_bytes=1 << 40)
        yield data_request(DATA[:CHUNK])
        yield data_request(DATA[CHUNK:])
        await asyncio.Event().wait()

    call = catalog.administrator.ImportImage(slow())
    async with asyncio.timeout(WAIT_SECONDS):
        while len(catalog.stored_chunks()) < 2:
            await call.read()
    published = await catalog.upload("published", DATA)
    assert published.added_bytes == 0
    call.cancel()
    await assert_only_left(catalog, published.name)
    assert await catalog.content(published.name) == DATA


async def test_more_imports_than_run_at_once_all_end(catalog: CatalogSite) -> None:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(catalog.upload(f"image{n}", DATA + b"%d" % n)) for n in range(7)]
    assert len({task.result().digest for task in tasks}) == 7


@contextmanager
def small_disk(path: Path, size: str) -> Iterator[Path]:
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", path], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("a file system of its own can only be mounted by root")
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="a file system of its own can only be mounted by root")
async def test_a_disk_that_fills_in_the_middle_is_said_and_nothing_is_left(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "12m") as disk:
        async with serving_catalog(disk / "data") as catalog:
            small = await catalog.upload("small", DATA)
            with pytest.raises(ResourceExhaustedError, match="is full: free some space") as caught:
                await catalog.upload("large", _random.randbytes(30 * CHUNK))
            assert caught.value.reason == "DISK_FULL"
            assert [image.name for image in await catalog.page()] == [small.name]
            assert len(catalog.stored_chunks()) == 2
            assert not catalog.residue()
            assert await catalog.content(small.name) == DATA
            again = await catalog.upload("again", _random.randbytes(3 * CHUNK))
            assert again.state == image_pb2.Image.STATE_READY


@needs_qemu
@pytest.mark.skipif(os.geteuid() != 0, reason="a file system of its own can only be mounted by root")
async def test_no_room_to_convert_a_virtual_disk_is_said_and_nothing_is_left(tmp_path: Path, work: Path) -> None:
    file = virtual_disk(work, "qcow2", _random.randbytes(30 * CHUNK))
    with small_disk(tmp_path / "disk", "12m") as disk:
        async with serving_catalog(disk / "data") as catalog:
            with pytest.raises(ResourceExhaustedError, match="full"):
                await catalog.import_file("large", file)
            await assert_nothing_left(catalog)


# The end of the process


class CatalogProcess:
    """`fleetcast-catalog run`, which can be killed."""

    def __init__(self, directory: Path, credentials: Path) -> None:
        self._arguments = ["run", "--data-dir", directory, "--listen", "localhost:0", "--credentials", credentials]
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> int:
        """Return the port."""
        command = [sys.executable, "-m", "fleetcast_catalog", *map(str, self._arguments)]
        self.process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        assert self.process.stdout is not None
        async with asyncio.timeout(WAIT_SECONDS):
            line = (await self.process.stdout.readline()).decode()
        return int(line.split()[-1])

    async def end(self, number: signal.Signals) -> int:
        """Return the exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        async with asyncio.timeout(WAIT_SECONDS):
            return await self.process.wait()


async def test_a_catalog_killed_in_the_middle_of_an_import_starts_again_without_a_trace_of_it(tmp_path: Path) -> None:
    authority = CertificateAuthority.create()
    own = authority.issue_credentials(Identity.of(Role.SERVICE, "catalog"), names=NAMES)
    own.save(tmp_path / "credentials")
    data, store = tmp_path / "data", tmp_path / "data" / "store" / "chunks"
    process = CatalogProcess(data, tmp_path / "credentials")
    try:
        async with dialling(await process.start(), authority) as client:
            kept = await client.upload("kept", DATA)
            call = client.administrator.ImportImage(endless_upload(import_request("cut", source_size_bytes=1 << 40)))
            async with asyncio.timeout(WAIT_SECONDS):
                while len(list(store.glob("*/*"))) < 10:
                    await call.read()
            await process.end(signal.SIGKILL)
            with pytest.raises(grpc.aio.AioRpcError):
                await drain(call)
        assert len(list(store.glob("*/*"))) >= 10
        async with dialling(await process.start(), authority) as client:
            assert [image.name for image in await client.page()] == [kept.name]
            assert len(list(store.glob("*/*"))) == 2
            assert not list((data / "incoming").iterdir())
            assert await client.content(kept.name) == DATA
            again = await client.upload("cut", DISK)
            assert await client.content(again.name) == DISK
        assert await process.end(signal.SIGTERM) == 0
    finally:
        if process.process is not None and process.process.returncode is None:
            await process.end(signal.SIGKILL)


async def test_who_uploads_is_told_to_stop_and_then_why(catalog: CatalogSite) -> None:
    told = asyncio.Event()
    sent_blocks = 0

    async def requests() -> AsyncIterator[messages.ImportImageRequest]:
        nonlocal sent_blocks
        yield import_request("broken", source_size_bytes=1 << 40)
        while not told.is_set():
            yield data_request((b"MSWIM\0\0\0" if sent_blocks == 0 else b"") + DATA[: CHUNK - 8])
            sent_blocks += 1

    phases = []

    async def upload() -> None:
        async for answer in catalog.administrator.ImportImage(requests()):
            phases.append(answer.phase)
            if answer.phase == messages.ImportImageResponse.PHASE_FAILED:
                told.set()

    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await upload()
    assert raised.value.code() is grpc.StatusCode.DATA_LOSS
    assert raised.value.details() == "disk.img is corrupt: its WIM header is damaged"
    assert phases.count(messages.ImportImageResponse.PHASE_FAILED) == 1
    await assert_only_left(catalog)
