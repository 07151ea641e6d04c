"""A catalog behind a real port, and what an administrator, a sender and a service ask of it."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
from fleetcast.catalog.v1 import catalog_service_pb2, image_pb2
from fleetcast.catalog.v1.catalog_service_pb2_grpc import CatalogServiceStub
from fleetcast.type.v1 import chunk_set_pb2
from fleetcast_catalog.app import CatalogApp, open_catalog
from fleetcast_kit.chunks.codec import ChunkEncoding, decode
from fleetcast_kit.errors import from_rpc_error
from fleetcast_kit.identity.authority import CertificateAuthority
from fleetcast_kit.identity.peer import Identity, Role
from fleetcast_kit.rpc.channel import open_channel
from fleetcast_wire.chunkset import pack_chunk_set
from fleetcast_wire.manifest import Manifest

from tests.support.trust import TrustedServer, serving

if TYPE_CHECKING:  # the class is in the stubs only
    from fleetcast.catalog.v1.catalog_service_pb2_grpc import CatalogServiceAsyncStub

BLOCK_BYTES = 1 << 20


@dataclass
class CatalogClient:
    """Calls to a catalog, each in the role that may make it; errors come as the catalog raised them."""

    administrator: CatalogServiceAsyncStub
    sender: CatalogServiceAsyncStub
    service: CatalogServiceAsyncStub

    async def upload(
        self, image: str, content: bytes, *, declared_bytes: int | None = None, **spec: Any
    ) -> image_pb2.Image:
        """Returns the version made of uploaded bytes."""
        size = len(content) if declared_bytes is None else declared_bytes
        blocks = [content[start : start + BLOCK_BYTES] for start in range(0, len(content), BLOCK_BYTES)]
        requests = [import_request(image, source_size_bytes=size, **spec), *(data_request(block) for block in blocks)]
        if size == -1:
            requests.append(catalog_service_pb2.ImportImageRequest(sent_bytes=len(content)))
        return (await self.import_messages(requests))[-1].image

    async def import_file(self, image: str, path: Path, **spec: Any) -> image_pb2.Image:
        """Returns the version made of a file on the catalog's host."""
        return (await self.import_messages([import_request(image, source_path=str(path), **spec)]))[-1].image

    async def import_messages(
        self, requests: Iterable[catalog_service_pb2.ImportImageRequest]
    ) -> list[catalog_service_pb2.ImportImageResponse]:
        """Returns all answers to an import with these messages."""

        async def sent() -> AsyncIterator[catalog_service_pb2.ImportImageRequest]:
            for request in requests:
                yield request

        try:
            return [answer async for answer in self.administrator.ImportImage(sent())]
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error

    async def get(self, name: str) -> image_pb2.Image:
        """Returns a version."""
        try:
            return (await self.administrator.GetImage(catalog_service_pb2.GetImageRequest(name=name))).image
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error

    async def page(self, **request: Any) -> list[image_pb2.Image]:
        """Returns a page of versions."""
        answer = await self.administrator.ListImages(catalog_service_pb2.ListImagesRequest(**request))
        return list(answer.images)

    async def delete(self, name: str, request_id: str = "") -> int:
        """Returns the bytes that the deletion of a version gave back."""
        try:
            request = catalog_service_pb2.DeleteImageRequest(name=name, request_id=request_id)
            return (await self.administrator.DeleteImage(request)).reclaimed_bytes
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error

    async def verify(self, name: str) -> tuple[image_pb2.Image, list[int]]:
        """Returns a version as its verification leaves it, and the chunks found damaged."""
        damaged: list[int] = []
        image = image_pb2.Image()
        try:
            async for answer in self.administrator.VerifyImage(catalog_service_pb2.VerifyImageRequest(name=name)):
                damaged += answer.damaged_chunks
                if answer.HasField("image"):
                    image = answer.image
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error
        return image, damaged

    async def hold(self, name: str, holder: str) -> image_pb2.Image:
        """Returns the version that is now held."""
        try:
            return (await self.service.HoldImage(catalog_service_pb2.HoldImageRequest(name=name, holder=holder))).image
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error

    async def manifest(self, name: str) -> Manifest:
        """Returns the manifest of a version, put together from its chunk table."""
        image, digests = image_pb2.Image(), b""
        async for answer in self.sender.GetChunkTable(catalog_service_pb2.GetChunkTableRequest(name=name)):
            image = answer.image if answer.HasField("image") else image
            digests += answer.table.digests
        return Manifest(image.size_bytes, image.chunk_size_bytes, np.frombuffer(digests, np.uint8).reshape(-1, 32))

    async def content(self, name: str) -> bytes:
        """Returns the content of a version, read and decoded chunk by chunk as a remote sender would."""
        manifest = await self.manifest(name)
        encodings: list[int] = []
        async for answer in self.sender.GetChunkTable(catalog_service_pb2.GetChunkTableRequest(name=name)):
            encodings += answer.table.encodings
        content = bytearray(manifest.size_bytes)
        bitmap, compressed = pack_chunk_set(np.ones(manifest.chunk_count, np.bool_))
        chunks = chunk_set_pb2.ChunkSet(chunk_count=manifest.chunk_count, bitmap=bitmap, compressed=compressed)
        async for read in self.sender.ReadChunks(catalog_service_pb2.ReadChunksRequest(name=name, chunks=chunks)):
            start = read.chunk * manifest.chunk_size_bytes
            size = manifest.chunk_bytes(read.chunk)
            content[start : start + size] = decode(ChunkEncoding(encodings[read.chunk]), read.stored, size)
        return bytes(content)


@dataclass
class CatalogSite(CatalogClient):
    """A running catalog and the calls to it."""

    app: CatalogApp
    server: TrustedServer
    directory: Path

    def stored_chunks(self) -> set[bytes]:
        """Returns the digests of all chunks in the store."""
        return set(self.app.chunk_store.digests())

    def residue(self) -> list[Path]:
        """Returns what unfinished imports left outside the chunks."""
        return [*(self.directory / "incoming").iterdir(), *(self.directory / "store").glob("unfinished/*")]


@asynccontextmanager
async def dialling(port: int, authority: CertificateAuthority) -> AsyncIterator[CatalogClient]:
    """Give calls to the catalog on a port of this host."""
    async with AsyncExitStack() as stack:
        stubs = []
        for role in (Role.ADMINISTRATOR, Role.SENDER, Role.SERVICE):
            credentials = authority.issue_credentials(Identity.of(role, "test"))
            channel = await stack.enter_async_context(open_channel(f"localhost:{port}", credentials))
            stubs.append(CatalogServiceStub(channel))
        yield CatalogClient(*stubs)


@asynccontextmanager
async def serving_catalog(directory: Path, authority: CertificateAuthority | None = None) -> AsyncIterator[CatalogSite]:
    """Give a catalog on `directory`; it stops at the end."""
    authority = authority or CertificateAuthority.create()
    app = await open_catalog(directory, authority=authority.certificate)
    try:
        await app.start()
        async with (
            serving(app.services, authority=authority) as server,
            dialling(server.server.port, server.authority) as client,
        ):
            yield CatalogSite(client.administrator, client.sender, client.service, app, server, directory)
    finally:
        await app.stop()


def import_request(image: str, **spec: Any) -> catalog_service_pb2.ImportImageRequest:
    """Returns the first message of an import."""
    defaults: dict[str, Any] = {"source_file": "disk.img", "request_id": str(uuid.uuid4())}
    return catalog_service_pb2.ImportImageRequest(spec=catalog_service_pb2.ImportSpec(image=image, **(defaults | spec)))


def data_request(data: bytes) -> catalog_service_pb2.ImportImageRequest:
    """Returns a message with bytes of an upload."""
    return catalog_service_pb2.ImportImageRequest(data=data)
