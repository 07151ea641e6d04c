"""The catalog, as the scheduler uses it: content is resolved, pinned and held while something needs it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc
from fleetcast.catalog.v1 import catalog_service_pb2, image_pb2, task_sequence_pb2, task_sequence_service_pb2
from fleetcast.catalog.v1.catalog_service_pb2_grpc import CatalogServiceStub
from fleetcast.catalog.v1.task_sequence_service_pb2_grpc import TaskSequenceServiceStub
from fleetcast_kit.errors import UnavailableError, from_rpc_error
from fleetcast_kit.identity.credentials import Credentials
from fleetcast_kit.rpc.channel import open_channel

from fleetcast_scheduler.images import DiskDemand, ImageKind, PinnedImage

if TYPE_CHECKING:  # the asynchronous forms of the stubs exist for type checkers only
    from fleetcast.catalog.v1.catalog_service_pb2_grpc import CatalogServiceAsyncStub
    from fleetcast.catalog.v1.task_sequence_service_pb2_grpc import TaskSequenceServiceAsyncStub

CALL_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class PinnedSequence:
    """A task sequence version as machines run it, everything in it pinned."""

    name: str
    """`taskSequences/{id}@sha256:{hex}`."""
    canonical_form: bytes
    digest: str
    """Of the canonical form, `sha256:{hex}`."""
    images: tuple[PinnedImage, ...]
    required_variables: tuple[str, ...]
    uploads: tuple[str, ...]
    """Images that it uploads, as written."""
    disk_demands: tuple[DiskDemand, ...] = ()


class Catalog:
    """The catalog service at one address."""

    def __init__(self) -> None:
        self._channel: grpc.aio.Channel | None = None
        self._stub: CatalogServiceAsyncStub | None = None
        self._sequence_stub: TaskSequenceServiceAsyncStub | None = None
        self._address = ""
        self._resolving: dict[str, asyncio.Task[PinnedImage]] = {}

    def open(self, address: str, credentials: Credentials) -> None:
        """Dials the catalog at `address`, HOST:PORT."""
        self._address = address
        self._channel = open_channel(address, credentials)
        self._stub = CatalogServiceStub(self._channel)
        self._sequence_stub = TaskSequenceServiceStub(self._channel)

    async def close(self) -> None:
        """Ends the connection."""
        if self._channel is not None:
            await self._channel.close()
            self._channel = self._stub = self._sequence_stub = None

    async def resolve(self, image: str) -> PinnedImage:
        """Returns the version that `image` names now. Requests for it at the same time share one call.

        Raises:
            NotFoundError: there is no such READY version.
        """
        task = self._resolving.get(image)
        if task is None:
            task = self._resolving[image] = asyncio.create_task(self._get(image))
            task.add_done_callback(lambda _: self._resolving.pop(image, None))
        return await asyncio.shield(task)

    async def hold(self, image: str, holder: str) -> PinnedImage:
        """Returns the version that `image` names, which can no longer be deleted until `holder` releases it.

        Raises:
            NotFoundError: there is no such READY version.
        """
        async with self._calling() as stub:
            request = catalog_service_pb2.HoldImageRequest(name=image, holder=holder)
            return _pinned((await stub.HoldImage(request, timeout=CALL_SECONDS)).image)

    async def release(self, image: str, holder: str) -> None:
        """Ends a hold. Releasing what is not held succeeds."""
        async with self._calling() as stub:
            await stub.ReleaseImage(
                catalog_service_pb2.ReleaseImageRequest(name=image, holder=holder), timeout=CALL_SECONDS
            )

    async def holds(self, holder_prefix: str) -> list[tuple[str, str]]:
        """Returns image and holder of each hold whose holder starts with a prefix."""
        async with self._calling() as stub:
            request = catalog_service_pb2.ListHoldsRequest(holder_prefix=holder_prefix)
            answer = await stub.ListHolds(request, timeout=CALL_SECONDS)
        return [(hold.name, hold.holder) for hold in answer.holds]

    # Task sequences

    async def resolve_sequence(self, sequence: str) -> PinnedSequence:
        """Returns the version that `sequence` names now, as machines run it.

        Raises:
            NotFoundError: there is no such version.
            FailedPreconditionError: something that it refers to is not there (BROKEN_REFERENCE).
        """
        async with self._calling_sequences() as stub:
            request = task_sequence_service_pb2.ResolveTaskSequenceRequest(name=sequence)
            return _pinned_sequence((await stub.ResolveTaskSequence(request, timeout=CALL_SECONDS)).resolved)

    async def hold_sequence(self, sequence: str, holder: str) -> PinnedSequence:
        """Returns what `resolve_sequence` does; none of it can be deleted until `holder` releases everything.

        Raises:
            NotFoundError: there is no such version.
            FailedPreconditionError: something that it refers to is not there (BROKEN_REFERENCE).
        """
        async with self._calling_sequences() as stub:
            request = task_sequence_service_pb2.HoldTaskSequenceRequest(name=sequence, holder=holder)
            return _pinned_sequence((await stub.HoldTaskSequence(request, timeout=CALL_SECONDS)).resolved)

    async def release_everything(self, holder: str) -> None:
        """Ends all holds of a holder, of task sequences and of images."""
        async with self._calling_sequences() as stub:
            request = task_sequence_service_pb2.ReleaseTaskSequenceRequest(holder=holder)
            await stub.ReleaseTaskSequence(request, timeout=CALL_SECONDS)

    async def sequence_holders(self, holder_prefix: str) -> set[str]:
        """Returns the holders of task sequences whose names start with a prefix."""
        async with self._calling_sequences() as stub:
            request = task_sequence_service_pb2.ListTaskSequenceHoldsRequest(holder_prefix=holder_prefix)
            return {hold.holder for hold in (await stub.ListTaskSequenceHolds(request, timeout=CALL_SECONDS)).holds}

    async def _get(self, image: str) -> PinnedImage:
        async with self._calling() as stub:
            return _pinned(
                (await stub.GetImage(catalog_service_pb2.GetImageRequest(name=image), timeout=CALL_SECONDS)).image
            )

    @asynccontextmanager
    async def _calling(self) -> AsyncIterator[CatalogServiceAsyncStub]:
        if self._stub is None:
            raise _starting()
        try:
            yield self._stub
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, address=self._address) from error

    @asynccontextmanager
    async def _calling_sequences(self) -> AsyncIterator[TaskSequenceServiceAsyncStub]:
        if self._sequence_stub is None:
            raise _starting()
        try:
            yield self._sequence_stub
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, address=self._address) from error


def _starting() -> UnavailableError:
    return UnavailableError("the scheduler is starting: try again", reason="STARTING")


def _pinned(image: image_pb2.Image) -> PinnedImage:
    is_wim = image.format in (image_pb2.IMAGE_FORMAT_WIM, image_pb2.IMAGE_FORMAT_ESD)
    contents = image.contents
    kind = ImageKind(image_pb2.ImageContents.Kind.Name(contents.kind).removeprefix("KIND_"))
    disk = (contents.sector_size_bytes, contents.filesystem)
    return PinnedImage(image.name, image.size_bytes, is_wim, kind, *disk, image.owner)


def _pinned_sequence(resolved: task_sequence_pb2.ResolvedTaskSequence) -> PinnedSequence:
    return PinnedSequence(
        name=resolved.task_sequence.name,
        canonical_form=resolved.canonical_form,
        digest=resolved.digest,
        images=tuple(PinnedImage(image.name, image.size_bytes, image.is_wim) for image in resolved.images),
        required_variables=tuple(resolved.required_variables),
        uploads=tuple(resolved.uploads),
        disk_demands=tuple(DiskDemand(demand.size_bytes, demand.sector_size_bytes) for demand in resolved.disk_demands),
    )
