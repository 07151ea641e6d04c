"""CatalogService: converts, calls, converts back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace

from cryptography import x509
from fleetcast.catalog.v1 import catalog_service_pb2
from fleetcast.catalog.v1.catalog_service_pb2_grpc import (
    CatalogServiceServicer,
    add_CatalogServiceServicer_to_server,
)
from fleetcast_kit.errors import FleetcastError, InvalidArgumentError, PermissionDeniedError
from fleetcast_kit.identity.grants import check_upload_grant
from fleetcast_kit.identity.peer import Role, current_identity
from fleetcast_kit.rpc import paging
from fleetcast_kit.rpc.context import Context
from fleetcast_kit.rpc.request_ids import checked_request_id
from fleetcast_kit.rpc.server import Service

from fleetcast_catalog.images import convert
from fleetcast_catalog.images.catalog import Catalog
from fleetcast_catalog.images.domain import Image, ImageName, check_series
from fleetcast_catalog.images.importing.image_import import ImportSpec
from fleetcast_catalog.images.importing.sources import UploadSource

_PROGRESS_SECONDS = 0.5
_STOP_SECONDS = 5.0
"""How long the caller of a failed import may take to stop sending: a status that meets a message is lost in gRPC."""
_MAX_DATA_BYTES = 1 << 20


class CatalogServicer(CatalogServiceServicer):
    """The API of a catalog."""

    def __init__(self, catalog: Catalog, authority: x509.Certificate) -> None:
        self._catalog = catalog
        self._authority = authority

    async def ImportImage(
        self, request_iterator: AsyncIterator[catalog_service_pb2.ImportImageRequest], context: Context
    ) -> AsyncIterator[catalog_service_pb2.ImportImageResponse]:
        """Imports an image. However the call ends without the READY image, nothing is left of it."""
        requests = aiter(request_iterator)
        first = await anext(requests, None)
        if first is None or first.WhichOneof("part") != "spec":
            raise InvalidArgumentError("the first message of an import must be its spec", field="spec")
        spec = convert.import_spec(first.spec)
        spec = replace(spec, owner=self._owner(spec, first.spec.upload_grant))
        running = self._catalog.start_import(spec)
        feeding = None if spec.source_path else asyncio.create_task(_feed(requests, running.work.upload))
        try:
            while not running.task.done():
                yield convert.import_message(running.work)
                await asyncio.wait([running.task], timeout=_PROGRESS_SECONDS)
            if feeding is not None and not feeding.done() and _has_failed(running.task):
                running.work.upload.discard()
                yield convert.failed_message(running.work)
                await asyncio.wait([feeding], timeout=_STOP_SECONDS)
            yield convert.imported_message(await running.task)
        finally:
            running.abandon()
            if feeding is not None:
                feeding.cancel()

    def _owner(self, spec: ImportSpec, upload_grant: str) -> str:
        """Returns the machine that the version will belong to; empty for none.

        Raises:
            PermissionDeniedError: the caller may not import this: an administrator may import anything, a machine
                uploads that it was granted.
        """
        caller = current_identity()
        if caller.role is not Role.MACHINE:
            return ""
        if spec.source_path:
            raise PermissionDeniedError(
                f"{caller} may upload only: {spec.source_path} is a file of the server", reason="UPLOAD_NOT_GRANTED"
            )
        owned = check_upload_grant(upload_grant, self._authority, machine=caller.name, image=spec.image)
        return caller.name if owned else ""

    async def GetImage(
        self, request: catalog_service_pb2.GetImageRequest, context: Context
    ) -> catalog_service_pb2.GetImageResponse:
        """Returns one version."""
        image = await self._catalog.images.get(ImageName.parse(request.name))
        return catalog_service_pb2.GetImageResponse(image=convert.image_message(image))

    async def ListImages(
        self, request: catalog_service_pb2.ListImagesRequest, context: Context
    ) -> catalog_service_pb2.ListImagesResponse:
        """Returns a page of versions."""
        page = paging.by_number(request)
        image = check_series(request.image, field="image") if request.image else ""
        found = await self._catalog.images.page(image, page.after, page.limit)
        shown, token = page.cut(found, lambda version: version.id)
        return catalog_service_pb2.ListImagesResponse(images=map(convert.image_message, shown), next_page_token=token)

    async def VerifyImage(
        self, request: catalog_service_pb2.VerifyImageRequest, context: Context
    ) -> AsyncIterator[catalog_service_pb2.VerifyImageResponse]:
        """Verifies a version; says at most twice a second how far it is, and at once what is damaged."""
        said_at = 0.0
        async for progress in self._catalog.verify(ImageName.parse(request.name)):
            now = time.monotonic()
            if progress.image or progress.damaged_chunks or now - said_at >= _PROGRESS_SECONDS:
                said_at = now
                yield convert.verify_message(progress)

    async def DeleteImage(
        self, request: catalog_service_pb2.DeleteImageRequest, context: Context
    ) -> catalog_service_pb2.DeleteImageResponse:
        """Deletes a version."""
        request_id = checked_request_id(request.request_id)
        reclaimed_bytes = await self._catalog.delete(ImageName.parse(request.name), request_id)
        return catalog_service_pb2.DeleteImageResponse(reclaimed_bytes=reclaimed_bytes)

    async def GetChunkTable(
        self, request: catalog_service_pb2.GetChunkTableRequest, context: Context
    ) -> AsyncIterator[catalog_service_pb2.GetChunkTableResponse]:
        """Streams a chunk table."""
        image, table = await self._catalog.table(convert.pinned_name(request.name))
        shown = convert.image_message(image)
        for run in convert.table_messages(table):
            yield catalog_service_pb2.GetChunkTableResponse(image=None if run.first_chunk else shown, table=run)

    async def ReadChunks(
        self, request: catalog_service_pb2.ReadChunksRequest, context: Context
    ) -> AsyncIterator[catalog_service_pb2.ReadChunksResponse]:
        """Streams stored chunks."""
        image, table = await self._catalog.table(convert.pinned_name(request.name))
        async for chunk, stored in self._catalog.read_chunks(table, convert.chunks_of(request.chunks, image)):
            yield catalog_service_pb2.ReadChunksResponse(chunk=chunk, stored=stored)

    async def HoldImage(
        self, request: catalog_service_pb2.HoldImageRequest, context: Context
    ) -> catalog_service_pb2.HoldImageResponse:
        """Holds a version."""
        image = await self._catalog.images.hold(ImageName.parse(request.name), convert.holder(request.holder))
        return catalog_service_pb2.HoldImageResponse(image=convert.image_message(image))

    async def ReleaseImage(
        self, request: catalog_service_pb2.ReleaseImageRequest, context: Context
    ) -> catalog_service_pb2.ReleaseImageResponse:
        """Ends a hold."""
        await self._catalog.images.release(convert.pinned_name(request.name), convert.holder(request.holder))
        return catalog_service_pb2.ReleaseImageResponse()

    async def ListHolds(
        self, request: catalog_service_pb2.ListHoldsRequest, context: Context
    ) -> catalog_service_pb2.ListHoldsResponse:
        """Returns holds."""
        holds = await self._catalog.images.holds(request.holder_prefix)
        return catalog_service_pb2.ListHoldsResponse(holds=map(convert.hold_message, holds))


def _has_failed(task: asyncio.Task[Image]) -> bool:
    return task.cancelled() or task.exception() is not None


async def _feed(requests: AsyncIterator[catalog_service_pb2.ImportImageRequest], upload: UploadSource) -> None:
    """Passes the bytes of an upload on; what is wrong with the messages fails the import."""
    sent_bytes: int | None = None
    try:
        async for request in requests:
            part = request.WhichOneof("part")
            if sent_bytes is not None or part not in ("data", "sent_bytes"):
                raise InvalidArgumentError(
                    "an upload is one spec, then data, then at most one sent_bytes", field="part"
                )
            if part == "sent_bytes":
                sent_bytes = request.sent_bytes
            elif len(request.data) > _MAX_DATA_BYTES:
                raise InvalidArgumentError(
                    f"a message has {len(request.data)} bytes of data: send at most 1 MiB at a time", field="data"
                )
            elif request.data:
                await upload.feed(request.data)
    except FleetcastError as error:
        upload.fail(error)
    else:
        upload.end(sent_bytes)


def catalog_service(catalog: Catalog, authority: x509.Certificate) -> Service:
    """Returns the service, ready to be served; `authority` is that of the installation, which signs upload grants."""
    administrator = frozenset({Role.ADMINISTRATOR})
    service = frozenset({Role.SERVICE})
    readers = frozenset({Role.ADMINISTRATOR, Role.SENDER, Role.SERVICE})
    return Service(
        add=add_CatalogServiceServicer_to_server,
        servicer=CatalogServicer(catalog, authority),
        full_name="fleetcast.catalog.v1.CatalogService",
        roles={
            "ImportImage": administrator | {Role.MACHINE},
            "GetImage": readers,
            "ListImages": administrator,
            "VerifyImage": administrator,
            "DeleteImage": administrator,
            "GetChunkTable": readers,
            "ReadChunks": frozenset({Role.SENDER, Role.SERVICE}),
            "HoldImage": service,
            "ReleaseImage": service,
            "ListHolds": service,
        },
    )
