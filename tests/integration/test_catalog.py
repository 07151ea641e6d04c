import asyncio
import random
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from fleetcast.catalog.v1 import catalog_service_pb2, image_pb2
from fleetcast.catalog.v1.catalog_service_pb2_grpc import CatalogServiceStub
from fleetcast.type.v1 import chunk_set_pb2
from fleetcast_catalog.app import open_catalog
from fleetcast_catalog.deletions import DeletionRow
from fleetcast_catalog.images.domain import ImageName
from fleetcast_catalog.images.store import ImageStore
from fleetcast_catalog.images.tables import ChunkTableRow, HoldRow, ImageRow
from fleetcast_catalog.task_sequences.tables import TaskSequenceContentRow, TaskSequenceHoldRow, TaskSequenceRow
from fleetcast_kit.database import open_database
from fleetcast_kit.errors import FailedPreconditionError, FleetcastError, InvalidArgumentError, NotFoundError
from fleetcast_kit.identity.authority import CertificateAuthority
from fleetcast_kit.identity.peer import Role
from fleetcast_wire.manifest import chunk_digest
from sqlalchemy import Connection, MetaData, text
from sqlmodel import SQLModel

from tests.support.catalog import CatalogSite, import_request, serving_catalog
from tests.support.spans import recorded_spans

CHUNK = 1 << 20
_random = random.Random(1)
SHARED = _random.randbytes(3 * CHUNK)
DISK = SHARED + bytes(2 * CHUNK) + b"text that compresses " * 60_000
OTHER = SHARED + _random.randbytes(2 * CHUNK)
READY, FAILED = image_pb2.Image.STATE_READY, image_pb2.Image.STATE_FAILED
HOLDER = "sessions/20260101-1"
AUTHORITY = CertificateAuthority.create().certificate


@pytest.fixture
async def catalog(tmp_path: Path) -> AsyncIterator[CatalogSite]:
    async with serving_catalog(tmp_path) as site:
        yield site


def damage(catalog: CatalogSite, digest: bytes) -> None:
    path = catalog.app.chunk_store.path(digest)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


async def test_an_upload_becomes_a_ready_version_that_reads_back_byte_for_byte(catalog: CatalogSite) -> None:
    image = await catalog.upload("win11", DISK, source_file="folder/disk.raw")
    assert image.name == f"images/win11@{image.digest}"
    assert image.state == READY
    assert image.format == image_pb2.IMAGE_FORMAT_RAW
    assert (image.size_bytes, image.chunk_count, image.zero_chunk_count) == (len(DISK), 7, 2)
    assert image.source_file == "disk.raw"
    assert 3 * CHUNK < image.stored_bytes < 4 * CHUNK
    assert image.added_bytes == image.stored_bytes
    assert image.ready_time.ToDatetime() >= image.create_time.ToDatetime()
    assert await catalog.content(image.name) == DISK
    assert (await catalog.manifest(image.name)).digest == image.digest
    assert await catalog.get("images/win11") == image
    assert not catalog.residue()


async def test_progress_ends_with_the_version(catalog: CatalogSite, tmp_path: Path) -> None:
    file = tmp_path / "disk"
    file.write_bytes(DISK)
    answers = await catalog.import_messages([import_request("win11", source_path=str(file))])
    assert answers[0].phase == catalog_service_pb2.ImportImageResponse.PHASE_PREPARING
    assert answers[-1].phase == catalog_service_pb2.ImportImageResponse.PHASE_DONE
    assert answers[-1].done_bytes == answers[-1].total_bytes == len(DISK)
    assert answers[-1].image.state == READY


async def test_an_image_that_shares_chunks_costs_only_the_rest(catalog: CatalogSite) -> None:
    first = await catalog.upload("win11", DISK)
    second = await catalog.upload("win11", OTHER)
    assert second.stored_bytes == 5 * CHUNK
    assert second.added_bytes == 2 * CHUNK
    assert await catalog.delete(first.name) == first.stored_bytes - 3 * CHUNK
    assert await catalog.content(second.name) == OTHER
    assert await catalog.delete(second.name) == second.stored_bytes
    assert not catalog.stored_chunks()


async def test_the_same_content_under_the_same_name_is_the_same_version(catalog: CatalogSite) -> None:
    first = await catalog.upload("win11", DISK)
    again = await catalog.upload("win11", DISK)
    elsewhere = await catalog.upload("win10", DISK)
    assert again == first
    assert elsewhere.digest == first.digest
    assert elsewhere.added_bytes == 0
    assert len(await catalog.page()) == 2


async def test_a_retry_with_the_same_request_id_is_answered_without_the_bytes(catalog: CatalogSite) -> None:
    request_id = str(uuid.uuid4())
    first = await catalog.upload("win11", DISK, request_id=request_id)
    answers = await catalog.import_messages([import_request("win11", request_id=request_id, source_size_bytes=5)])
    assert answers[-1].image == first


async def test_versions_are_listed_newest_first_in_pages(catalog: CatalogSite) -> None:
    names = [(await catalog.upload(f"image{number % 2}", b"%d" % number)).name for number in range(5)]
    names.reverse()
    assert [image.name for image in await catalog.page()] == names
    assert [image.name for image in await catalog.page(image="image1")] == names[1::2]
    page = await catalog.administrator.ListImages(catalog_service_pb2.ListImagesRequest(page_size=3))
    assert [image.name for image in page.images] == names[:3]
    await catalog.upload("image0", b"newer than the token")
    request = catalog_service_pb2.ListImagesRequest(page_size=3, page_token=page.next_page_token)
    page = await catalog.administrator.ListImages(request)
    assert [image.name for image in page.images] == names[3:]
    assert not page.next_page_token


async def test_a_name_without_digest_is_the_newest_ready_version(catalog: CatalogSite) -> None:
    old = await catalog.upload("win11", b"old")
    new = await catalog.upload("win11", b"new")
    assert (await catalog.get("images/win11")).name == new.name
    assert (await catalog.get(old.name)).name == old.name
    await catalog.delete(new.name)
    assert (await catalog.get("images/win11")).name == old.name


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("images/win10", "there is no image win10"),
        (f"images/win11@sha256:{'0' * 64}", "image win11 has no version sha256:000"),
    ],
)
async def test_what_does_not_exist_is_not_found(catalog: CatalogSite, name: str, problem: str) -> None:
    await catalog.upload("win11", DISK)
    for call in (catalog.get(name), catalog.delete(name), catalog.verify(name), catalog.hold(name, HOLDER)):
        with pytest.raises(NotFoundError, match=problem):
            await call


async def test_a_series_with_several_versions_is_not_deleted_by_its_name_alone(catalog: CatalogSite) -> None:
    first = await catalog.upload("win11", DISK)
    await catalog.upload("win11", OTHER)
    with pytest.raises(FailedPreconditionError, match="several versions"):
        await catalog.delete("images/win11")
    await catalog.delete(first.name)
    await catalog.delete("images/win11")
    assert not await catalog.page()


async def test_a_deletion_retried_with_its_request_id_gives_the_same_answer(catalog: CatalogSite) -> None:
    image, request_id = await catalog.upload("win11", DISK), str(uuid.uuid4())
    reclaimed = await catalog.delete(image.name, request_id)
    assert await catalog.delete(image.name, request_id) == reclaimed == image.stored_bytes
    with pytest.raises(NotFoundError):
        await catalog.delete(image.name, str(uuid.uuid4()))


async def test_a_held_version_cannot_be_deleted_until_it_is_released(catalog: CatalogSite) -> None:
    image = await catalog.upload("win11", DISK)
    held = await catalog.hold("images/win11", HOLDER)
    assert held.name == image.name
    assert list(held.holders) == [HOLDER]
    await catalog.hold(image.name, HOLDER)
    await catalog.hold(image.name, "sessions/other")
    with pytest.raises(FailedPreconditionError, match=f"in use by {HOLDER}, sessions/other") as caught:
        await catalog.delete(image.name)
    assert caught.value.reason == "IMAGE_IN_USE"
    holds = await catalog.service.ListHolds(catalog_service_pb2.ListHoldsRequest(holder_prefix="sessions/2026"))
    assert [(hold.name, hold.holder) for hold in holds.holds] == [(image.name, HOLDER)]
    for holder in (HOLDER, "sessions/other", "sessions/never-held"):
        await catalog.service.ReleaseImage(catalog_service_pb2.ReleaseImageRequest(name=image.name, holder=holder))
    await catalog.delete(image.name)
    await catalog.service.ReleaseImage(catalog_service_pb2.ReleaseImageRequest(name=image.name, holder=HOLDER))


async def test_a_prefix_of_holders_is_taken_literally(catalog: CatalogSite) -> None:
    image = await catalog.upload("win11", DISK)
    await catalog.hold(image.name, HOLDER)
    holds = await catalog.service.ListHolds(catalog_service_pb2.ListHoldsRequest(holder_prefix="%"))
    assert not holds.holds


async def test_versions_and_holds_survive_a_restart(tmp_path: Path) -> None:
    async with serving_catalog(tmp_path) as catalog:
        image = await catalog.upload("win11", DISK)
        held = await catalog.hold(image.name, HOLDER)
    async with serving_catalog(tmp_path) as catalog:
        assert await catalog.get("images/win11") == held
        assert await catalog.content(image.name) == DISK


async def test_a_clean_verification_leaves_its_time(catalog: CatalogSite) -> None:
    image = await catalog.upload("win11", DISK)
    verified, damaged = await catalog.verify("images/win11")
    assert not damaged
    assert verified.state == READY
    assert verified.verify_time.ToDatetime() > image.create_time.ToDatetime()


async def test_a_damaged_chunk_is_found_and_the_same_import_repairs_it(catalog: CatalogSite) -> None:
    content = SHARED + SHARED[:CHUNK] + b"end"
    image = await catalog.upload("win11", content)
    manifest = await catalog.manifest(image.name)
    damage(catalog, manifest.digests[0].tobytes())
    catalog.app.chunk_store.delete(manifest.digests[2].tobytes())
    failed, damaged = await catalog.verify(image.name)
    assert sorted(damaged) == [0, 2, 3]
    assert (failed.state, failed.damaged_chunk_count) == (FAILED, 3)
    with pytest.raises(FailedPreconditionError, match="3 damaged chunks"):
        await catalog.hold(image.name, HOLDER)
    with pytest.raises(NotFoundError, match="no version that is ready"):
        await catalog.get("images/win11")
    repaired = await catalog.upload("win11", content)
    assert (repaired.name, repaired.state, repaired.damaged_chunk_count) == (image.name, READY, 0)
    assert await catalog.content(image.name) == content
    assert (await catalog.verify(image.name))[1] == []


async def test_a_version_whose_chunks_another_import_repaired_is_ready_after_a_verification(
    catalog: CatalogSite,
) -> None:
    image = await catalog.upload("win11", DISK)
    damage(catalog, (await catalog.manifest(image.name)).digests[1].tobytes())
    assert (await catalog.verify(image.name))[0].state == FAILED
    await catalog.upload("other", OTHER)
    verified, damaged = await catalog.verify(image.name)
    assert (verified.state, damaged) == (READY, [])
    assert await catalog.content(image.name) == DISK


async def test_an_import_never_builds_on_a_damaged_chunk(catalog: CatalogSite) -> None:
    image = await catalog.upload("win11", DISK)
    damage(catalog, (await catalog.manifest(image.name)).digests[1].tobytes())
    other = await catalog.upload("other", OTHER)
    assert await catalog.content(other.name) == OTHER
    assert (await catalog.verify(image.name))[1] == []


async def test_a_missing_chunk_ends_a_read_with_data_loss(catalog: CatalogSite) -> None:
    image = await catalog.upload("win11", DISK)
    catalog.app.chunk_store.delete((await catalog.manifest(image.name)).digests[1].tobytes())
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await catalog.content(image.name)
    assert caught.value.code() is grpc.StatusCode.DATA_LOSS


async def test_a_long_table_comes_in_runs(catalog: CatalogSite, tmp_path: Path) -> None:
    file = tmp_path / "sparse"
    with file.open("wb") as sparse:
        sparse.truncate(40_000 * CHUNK)
        sparse.seek(39_999 * CHUNK)
        sparse.write(b"x")
    image = await catalog.import_file("sparse", file)
    assert image.zero_chunk_count == 39_999
    runs = [
        run async for run in catalog.service.GetChunkTable(catalog_service_pb2.GetChunkTableRequest(name=image.name))
    ]
    assert [run.table.first_chunk for run in runs] == [0, 16384, 32768]
    assert [run.HasField("image") for run in runs] == [True, False, False]
    assert sum(len(run.table.encodings) for run in runs) == 40_000
    assert (await catalog.manifest(image.name)).digest == image.digest


async def test_only_the_chunks_asked_for_are_read(catalog: CatalogSite) -> None:
    image = await catalog.upload("win11", DISK)
    chunks = chunk_set_pb2.ChunkSet(chunk_count=7, bitmap=bytes([0b1001010]))
    read = catalog.sender.ReadChunks(catalog_service_pb2.ReadChunksRequest(name=image.name, chunks=chunks))
    assert [answer.chunk async for answer in read] == [1, 6]
    read = catalog.sender.ReadChunks(catalog_service_pb2.ReadChunksRequest(name=image.name))
    assert [answer.chunk async for answer in read] == []


@pytest.mark.parametrize(
    "chunks",
    [
        chunk_set_pb2.ChunkSet(chunk_count=8, bitmap=b"\x01"),
        chunk_set_pb2.ChunkSet(chunk_count=7, bitmap=b"\x80"),
        chunk_set_pb2.ChunkSet(chunk_count=7, bitmap=b"\x01\x01"),
        chunk_set_pb2.ChunkSet(chunk_count=7, bitmap=b"\x01", compressed=True),
    ],
)
async def test_a_chunk_set_of_another_image_is_refused(catalog: CatalogSite, chunks: chunk_set_pb2.ChunkSet) -> None:
    image = await catalog.upload("win11", DISK)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await catalog.sender.ReadChunks(catalog_service_pb2.ReadChunksRequest(name=image.name, chunks=chunks)).read()
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_each_call_is_for_its_roles_alone(catalog: CatalogSite) -> None:
    image = await catalog.upload("win11", DISK)
    allowed = {
        "GetImage": {Role.ADMINISTRATOR, Role.SENDER, Role.SERVICE},
        "ListImages": {Role.ADMINISTRATOR},
        "HoldImage": {Role.SERVICE},
        "ReleaseImage": {Role.SERVICE},
        "ListHolds": {Role.SERVICE},
        "DeleteImage": {Role.ADMINISTRATOR},
        "VerifyImage": {Role.ADMINISTRATOR},
        "GetChunkTable": {Role.ADMINISTRATOR, Role.SENDER, Role.SERVICE},
        "ReadChunks": {Role.SENDER, Role.SERVICE},
        "ImportImage": {Role.ADMINISTRATOR, Role.MACHINE},
    }
    service = catalog_service_pb2.DESCRIPTOR.services_by_name["CatalogService"]
    assert {method.name for method in service.methods} == allowed.keys()
    for role in (Role.ADMINISTRATOR, Role.MACHINE, Role.SENDER, Role.SERVICE):
        async with catalog.server.dial(role) as channel:
            for method in service.methods:
                request = getattr(catalog_service_pb2, method.input_type.name)()
                call = getattr(CatalogServiceStub(channel), method.name)
                try:
                    if method.client_streaming:
                        await call(iter([request])).read()
                    elif method.server_streaming:
                        await call(request).read()
                    else:
                        await call(request)
                    code = grpc.StatusCode.OK
                except grpc.aio.AioRpcError as error:
                    code = error.code()
                assert (code is not grpc.StatusCode.PERMISSION_DENIED) == (role in allowed[method.name]), (role, method)
    assert await catalog.get(image.name) == image


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"image": "../x"}, "spec.image"),
        ({"image": ""}, "spec.image"),
        ({"source_path": "relative"}, "spec.source_path"),
        ({"source_path": "/nowhere/at/all"}, "spec.source_path"),
        ({"source_path": "/"}, "spec.source_path"),
        ({"source_size_bytes": -2}, "spec.source_size_bytes"),
        ({"source_file": "a\nb"}, "spec.source_file"),
        ({"request_id": "7"}, "spec.request_id"),
        ({"format": 99}, "spec.format"),
    ],
)
async def test_a_wrong_field_is_named(catalog: CatalogSite, spec: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        await catalog.import_messages([import_request(**({"image": "win11"} | spec))])
    assert caught.value.field == field
    assert not await catalog.page()


async def test_a_second_catalog_on_the_same_directory_is_refused(catalog: CatalogSite) -> None:
    with pytest.raises(FailedPreconditionError, match="another catalog uses"):
        await open_catalog(catalog.directory, authority=AUTHORITY)


async def test_a_database_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    async with serving_catalog(tmp_path):
        pass
    url = f"sqlite:///{tmp_path / 'catalog.db'}"
    async with open_database(url) as database, database.engine.begin() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(FailedPreconditionError, match="newer version"):
        await open_catalog(tmp_path, authority=AUTHORITY)


async def test_a_data_directory_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FailedPreconditionError, match=r"file.* cannot be used"):
        await open_catalog(tmp_path / "file", authority=AUTHORITY)


async def test_deletions_beside_imports_of_the_same_chunks_lose_none(catalog: CatalogSite) -> None:
    """The race of deduplication: an import finds a chunk that a deletion is about to reclaim."""
    contents = [SHARED + bytes([number]) * 100 for number in range(6)]

    async def import_and_delete(number: int) -> None:
        for _ in range(4):
            image = await catalog.upload(f"image{number}", contents[number])
            assert await catalog.content(image.name) == contents[number]
            await catalog.delete(image.name)

    async with asyncio.TaskGroup() as group:
        for number in range(5):
            group.create_task(import_and_delete(number))
    assert not catalog.stored_chunks()
    kept = await catalog.upload("kept", contents[5])
    assert (await catalog.verify(kept.name))[1] == []


async def cut_off_deletion(catalog: CatalogSite, name: str) -> None:
    """Leave a version as a process does that dies in the middle of its deletion."""
    url = f"sqlite:///{catalog.directory / 'catalog.db'}"
    async with open_database(url) as database:
        images = ImageStore(database)
        await images.start_deletion(await images.get(ImageName.parse(name)))
    catalog.app.chunk_store.delete(chunk_digest(DISK[5 * CHUNK : 6 * CHUNK]))


async def test_a_deletion_that_was_cut_off_is_completed_at_the_next_start(tmp_path: Path) -> None:
    async with serving_catalog(tmp_path) as catalog:
        kept = await catalog.upload("kept", OTHER)
        image = await catalog.upload("win11", DISK[3 * CHUNK :])
        await cut_off_deletion(catalog, image.name)
        assert [found.name for found in await catalog.page()] == [kept.name]
    async with serving_catalog(tmp_path) as catalog:
        assert len(catalog.stored_chunks()) == 5
        assert [found.name for found in await catalog.page()] == [kept.name]


async def test_content_whose_deletion_was_cut_off_can_be_imported_again(catalog: CatalogSite) -> None:
    image = await catalog.upload("win11", DISK)
    await cut_off_deletion(catalog, image.name)
    with pytest.raises(NotFoundError):
        await catalog.get(image.name)
    again = await catalog.upload("win11", DISK)
    assert (again.name, again.state) == (image.name, READY)
    assert await catalog.content(again.name) == DISK


async def test_chunks_that_nobody_knows_go_at_the_start_after_an_interruption(tmp_path: Path) -> None:
    async with serving_catalog(tmp_path) as catalog:
        kept = await catalog.upload("kept", DISK)
        orphan = _random.randbytes(CHUNK)
        catalog.app.chunk_store.put(chunk_digest(orphan), orphan)
        (tmp_path / "incoming" / "interrupted").mkdir()
        (tmp_path / "incoming" / "interrupted" / "disk").write_bytes(b"spooled")
        (tmp_path / "store" / "unfinished" / "half").write_bytes(b"half")
    async with serving_catalog(tmp_path) as catalog:
        assert chunk_digest(orphan) not in catalog.stored_chunks()
        assert not catalog.residue()
        assert (await catalog.verify(kept.name))[1] == []


async def test_an_import_and_a_verification_are_spans(catalog: CatalogSite) -> None:
    spans = recorded_spans()
    image = await catalog.upload("win11", DISK)
    await catalog.verify(image.name)
    recorded = {span.name: dict(span.attributes or {}) for span in spans.get_finished_spans()}
    assert recorded["import image"]["fleetcast.image"] == image.name
    assert recorded["import image"]["fleetcast.added_bytes"] == image.added_bytes
    assert recorded["verify image"]["fleetcast.damaged_chunk_count"] == 0


async def test_the_tables_are_those_of_the_migrations(catalog: CatalogSite) -> None:
    sequence_rows = (TaskSequenceRow, TaskSequenceContentRow, TaskSequenceHoldRow)
    ours = [row.__tablename__ for row in (ImageRow, ChunkTableRow, HoldRow, DeletionRow, *sequence_rows)]

    def differences(connection: Connection) -> list[object]:
        options = {"include_name": lambda name, kind, _: kind != "table" or name in ours}
        metadata = MetaData()
        for name in ours:
            SQLModel.metadata.tables[str(name)].to_metadata(metadata)
        return list(compare_metadata(MigrationContext.configure(connection, opts=options), metadata))

    url = f"sqlite:///{catalog.directory / 'catalog.db'}"
    async with open_database(url) as database, database.engine.connect() as connection:
        assert await connection.run_sync(differences) == []


async def test_the_array_of_all_zero_chunks_is_enough_for_an_empty_disk(catalog: CatalogSite) -> None:
    image = await catalog.upload("empty", bytes(5 * CHUNK + 1))
    assert (image.zero_chunk_count, image.stored_bytes) == (6, 0)
    assert await catalog.content(image.name) == bytes(5 * CHUNK + 1)
    assert not np.any((await catalog.manifest(image.name)).digests)
    assert await catalog.delete(image.name) == 0


async def test_every_error_carries_its_reason(catalog: CatalogSite) -> None:
    with pytest.raises(FleetcastError) as caught:
        await catalog.upload("win11", b"")
    assert (caught.value.reason, caught.value.message) == ("IMAGE_EMPTY", "disk.img is empty")
