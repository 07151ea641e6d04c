from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
from fleetcast.catalog.v1 import catalog_service_pb2, image_pb2
from fleetcast.catalog.v1.catalog_service_pb2_grpc import CatalogServiceStub
from fleetcast_agent.receiving.receive import ReceiveRequest
from fleetcast_agent.sequence.content.server_content import ServerContent
from fleetcast_kit.errors import FleetcastError, PermissionDeniedError, from_rpc_error
from fleetcast_kit.identity.authority import CertificateAuthority
from fleetcast_kit.identity.grants import issue_upload_grant
from fleetcast_kit.identity.peer import Role

from tests.support.catalog import CatalogSite, data_request, import_request, serving_catalog

CONTENT = b"what the machine captured" * 1000
HOUR = timedelta(hours=1)


@pytest.fixture
async def catalog(tmp_path: Path) -> AsyncIterator[CatalogSite]:
    async with serving_catalog(tmp_path / "catalog") as site:
        yield site


def grant(catalog: CatalogSite, *, machine: str = "m1", lifetime: timedelta = HOUR) -> str:
    return issue_upload_grant(
        catalog.server.authority,
        machine=f"machines/{machine}",
        images=["captured", "state"],
        owned=["state"],
        lifetime=lifetime,
    )


async def upload(
    catalog: CatalogSite, upload_grant: str, *, image: str = "captured", machine: str = "m1", **spec: str
) -> image_pb2.Image:
    """Returns the version that machine `machine` uploaded."""
    size = {} if spec else {"source_size_bytes": len(CONTENT)}
    answered = asyncio.Event()
    answers: list[catalog_service_pb2.ImportImageResponse] = []

    async def sent() -> AsyncIterator[catalog_service_pb2.ImportImageRequest]:
        yield import_request(image, upload_grant=upload_grant, **size, **spec)
        await answered.wait()
        yield data_request(CONTENT)

    async with catalog.server.dial(Role.MACHINE, machine) as channel:
        try:
            async for answer in CatalogServiceStub(channel).ImportImage(sent()):
                answers.append(answer)
                answered.set()
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error
        finally:
            answered.set()
    return answers[-1].image


async def test_a_machine_uploads_what_it_was_granted_several_times_if_it_must(catalog: CatalogSite) -> None:
    permit = grant(catalog)
    first = await upload(catalog, permit)
    assert await catalog.content(first.name) == CONTENT
    assert (await upload(catalog, permit)).name == first.name
    assert (await upload(catalog, permit, image="state")).image == "state"


async def test_a_saved_user_state_belongs_to_its_machine_and_a_captured_image_to_nobody(catalog: CatalogSite) -> None:
    permit = grant(catalog)
    assert (await upload(catalog, permit, image="state")).owner == "machines/m1"
    assert (await upload(catalog, permit, image="captured")).owner == ""
    assert (await catalog.upload("state", CONTENT + b"of an administrator")).owner == ""


async def test_what_a_machine_was_not_granted_is_refused_and_leaves_nothing(catalog: CatalogSite) -> None:
    permit = grant(catalog)
    other = issue_upload_grant(CertificateAuthority.create(), machine="machines/m1", images=["captured"], lifetime=HOUR)
    prefix, payload, signature = permit.split(".")
    wrong: list[tuple[str, dict[str, str], str]] = [
        ("", {}, "machines/m1 may not upload captured: a machine needs the grant"),
        (permit, {"machine": "m2"}, "machines/m2 shows an upload grant that was issued to machines/m1"),
        (permit, {"image": "win11"}, "is for captured, state, not for win11"),
        (grant(catalog, lifetime=timedelta(seconds=-1)), {}, "the upload grant of machines/m1 expired at"),
        (other, {}, "damaged, or of another installation"),
        (f"{prefix}.{payload[:-4]}.{signature}", {}, "damaged, or of another installation"),
        (permit, {"source_path": "/etc/hostname"}, "machines/m1 may upload only: /etc/hostname is a file"),
    ]
    for shown, fields, sentence in wrong:
        with pytest.raises(PermissionDeniedError) as raised:
            await upload(catalog, shown, **fields)
        assert sentence in raised.value.message
        assert raised.value.reason == "UPLOAD_NOT_GRANTED"
    assert await catalog.page() == []
    assert not catalog.residue()


async def test_an_administrator_needs_no_grant(catalog: CatalogSite) -> None:
    assert (await catalog.upload("captured", CONTENT)).image == "captured"


async def test_an_agent_publishes_with_the_grant_of_its_run(catalog: CatalogSite, tmp_path: Path) -> None:
    file = tmp_path / "capture.wim"
    file.write_bytes(CONTENT)
    request = ReceiveRequest(catalog.server.address, catalog.server.credentials(Role.MACHINE, "m1"), tmp_path / "state")
    name = await ServerContent(request, {}, upload_grant=grant(catalog)).publish(file, "state", progress=lambda _: None)
    assert await catalog.content(name) == CONTENT
    with pytest.raises(FleetcastError, match="needs the grant"):
        await ServerContent(request, {}).publish(file, "state", progress=lambda _: None)


def test_grants_are_small_enough_for_any_message() -> None:
    images = [f"{uuid.uuid4()}-state" for _ in range(100)]
    authority = CertificateAuthority.create()
    assert len(issue_upload_grant(authority, machine="machines/m1", images=images, lifetime=HOUR)) < 10_000
