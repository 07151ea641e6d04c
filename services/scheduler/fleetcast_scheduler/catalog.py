"""The catalog, as the scheduler uses it: images are resolved, pinned and held while a session needs them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc
from fleetcast.catalog.v1 import catalog_service_pb2 as messages
from fleetcast.catalog.v1.catalog_service_pb2_grpc import CatalogServiceStub
from fleetcast_kit.channel import open_channel
from fleetcast_kit.credentials import Credentials
from fleetcast_kit.errors import UnavailableError, from_rpc_error

if TYPE_CHECKING:  # the asynchronous form of the stub exists for type checkers only
    from fleetcast.catalog.v1.catalog_service_pb2_grpc import CatalogServiceAsyncStub

CALL_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class PinnedImage:
    """An image version."""

    name: str
    """`images/{image}@sha256:{hex}`."""
    size_bytes: int


class Catalog:
    """The catalog service at one address."""

    def __init__(self) -> None:
        self._channel: grpc.aio.Channel | None = None
        self._stub: CatalogServiceAsyncStub | None = None
        self._address = ""
        self._resolving: dict[str, asyncio.Task[PinnedImage]] = {}

    def open(self, address: str, credentials: Credentials) -> None:
        """Dials the catalog at `address`, HOST:PORT."""
        self._address = address
        self._channel = open_channel(address, credentials)
        self._stub = CatalogServiceStub(self._channel)

    async def close(self) -> None:
        """Ends the connection."""
        if self._channel is not None:
            await self._channel.close()
            self._channel = self._stub = None

    async def resolve(self, image: str) -> PinnedImage:
        """Returns the version that `image` names now. Those who ask at the same time share one call.

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
            request = messages.HoldImageRequest(name=image, holder=holder)
            held = (await stub.HoldImage(request, timeout=CALL_SECONDS)).image
        return PinnedImage(held.name, held.size_bytes)

    async def release(self, image: str, holder: str) -> None:
        """Ends a hold. Releasing what is not held succeeds."""
        async with self._calling() as stub:
            await stub.ReleaseImage(messages.ReleaseImageRequest(name=image, holder=holder), timeout=CALL_SECONDS)

    async def holds(self, holder_prefix: str) -> list[tuple[str, str]]:
        """Returns image and holder of each hold whose holder starts with a prefix."""
        async with self._calling() as stub:
            request = messages.ListHoldsRequest(holder_prefix=holder_prefix)
            answer = await stub.ListHolds(request, timeout=CALL_SECONDS)
        return [(hold.name, hold.holder) for hold in answer.holds]

    async def _get(self, image: str) -> PinnedImage:
        async with self._calling() as stub:
            found = (await stub.GetImage(messages.GetImageRequest(name=image), timeout=CALL_SECONDS)).image
        return PinnedImage(found.name, found.size_bytes)

    @asynccontextmanager
    async def _calling(self) -> AsyncIterator[CatalogServiceAsyncStub]:
        if self._stub is None:
            raise UnavailableError("the scheduler is starting: try again", reason="STARTING")
        try:
            yield self._stub
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, address=self._address) from error
