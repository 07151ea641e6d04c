import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from fleetcast.catalog.v1 import catalog_service_pb2, image_pb2
from fleetcast_kit.errors import (
    FailedPreconditionError,
    ResourceExhaustedError,
)
from fleetcast_kit.identity.authority import CertificateAuthority
from fleetcast_kit.identity.peer import Identity, Role

from tests.integration.catalog_import import (
    CHUNK,
    DATA,
    DISK,
    NOISE,
    WAIT_SECONDS,
    assert_nothing_left,
    assert_only_left,
    drain,
    eventually,
    needs_qemu,
    virtual_disk,
)
from tests.support.catalog import CatalogSite, data_request, dialling, import_request, serving_catalog
from tests.support.trust import NAMES


@pytest.fixture
async def catalog(tmp_path: Path) -> AsyncIterator[CatalogSite]:
    async with serving_catalog(tmp_path / "data") as site:
        yield site


async def endless_upload(
    spec: catalog_service_pb2.ImportImageRequest,
) -> AsyncIterator[catalog_service_pb2.ImportImageRequest]:
    yield spec
    while True:
        yield data_request(os.urandom(CHUNK))


async def test_an_upload_that_is_cancelled_leaves_nothing_and_can_be_repeated(catalog: CatalogSite) -> None:
    call = catalog.administrator.ImportImage(endless_upload(import_request("disk", source_size_bytes=1 << 40)))
    async with asyncio.timeout(WAIT_SECONDS):
        while len(catalog.stored_chunks()) < 5:
            progress = await call.read()
    assert isinstance(progress, catalog_service_pb2.ImportImageResponse)
    assert progress.phase == catalog_service_pb2.ImportImageResponse.PHASE_STORING
    assert progress.image.state == image_pb2.Image.STATE_CREATING
    assert [image.name for image in await catalog.page()] == [progress.image.name]
    for call_on_it in (catalog.delete(progress.image.name), catalog.verify(progress.image.name)):
        with pytest.raises(FailedPreconditionError, match="import"):
            await call_on_it
    call.cancel()
    await assert_nothing_left(catalog)
    assert await catalog.content((await catalog.upload("disk", DISK)).name) == DISK


async def test_a_client_that_is_killed_leaves_nothing(catalog: CatalogSite, tmp_path: Path) -> None:
    """An upload of unknown size: the broken connection must not be taken for the end of the file."""
    catalog.server.credentials(Role.ADMINISTRATOR).save(tmp_path / "credentials")
    program = """
import asyncio, os, sys
from pathlib import Path
from fleetcast.catalog.v1.catalog_service_pb2_grpc import CatalogServiceStub
from fleetcast_kit.rpc.channel import open_channel
from fleetcast_kit.identity.credentials import Credentials
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
    arguments = [sys.executable, "-c", program, catalog.server.address, str(tmp_path / "credentials")]
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
    async def slow() -> AsyncIterator[catalog_service_pb2.ImportImageRequest]:
        yield import_request("aborted", source_size_bytes=1 << 40)
        yield data_request(DATA[:CHUNK])
        yield data_request(DATA[CHUNK:])
        for number in range(8):  # what is looked at before it is cut must not be all that comes
            yield data_request(bytes([1 + number]) * CHUNK)
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
                await catalog.upload("large", NOISE.randbytes(30 * CHUNK))
            assert caught.value.reason == "DISK_FULL"
            assert [image.name for image in await catalog.page()] == [small.name]
            assert len(catalog.stored_chunks()) == 2
            assert not catalog.residue()
            assert await catalog.content(small.name) == DATA
            again = await catalog.upload("again", NOISE.randbytes(3 * CHUNK))
            assert again.state == image_pb2.Image.STATE_READY


@needs_qemu
@pytest.mark.skipif(os.geteuid() != 0, reason="a file system of its own can only be mounted by root")
async def test_no_room_to_convert_a_virtual_disk_is_said_and_nothing_is_left(tmp_path: Path) -> None:
    file = virtual_disk(tmp_path, "qcow2", NOISE.randbytes(30 * CHUNK))
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
        """Returns the port."""
        command = [sys.executable, "-m", "fleetcast_catalog", *map(str, self._arguments)]
        self.process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        assert self.process.stdout is not None
        async with asyncio.timeout(WAIT_SECONDS):
            line = (await self.process.stdout.readline()).decode()
        return int(line.split()[-1])

    async def end(self, number: signal.Signals) -> int:
        """Returns the exit code."""
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

    async def requests() -> AsyncIterator[catalog_service_pb2.ImportImageRequest]:
        nonlocal sent_blocks
        yield import_request("broken", source_size_bytes=1 << 40)
        while not told.is_set():
            yield data_request((b"MSWIM\0\0\0" if sent_blocks == 0 else b"") + DATA[: CHUNK - 8])
            sent_blocks += 1

    phases = []

    async def upload() -> None:
        async for answer in catalog.administrator.ImportImage(requests()):
            phases.append(answer.phase)
            if answer.phase == catalog_service_pb2.ImportImageResponse.PHASE_FAILED:
                told.set()

    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await upload()
    assert raised.value.code() is grpc.StatusCode.DATA_LOSS
    assert raised.value.details() == "disk.img is corrupt: its WIM header is damaged"
    assert phases.count(catalog_service_pb2.ImportImageResponse.PHASE_FAILED) == 1
    await assert_only_left(catalog)
