"""Content from the servers: images by the sessions of the scheduler, captures into the catalog."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path

import grpc
from fleetcast.catalog.v1 import catalog_service_pb2
from fleetcast.catalog.v1.catalog_service_pb2_grpc import CatalogServiceStub
from fleetcast_kit.errors import UnavailableError, from_rpc_error
from fleetcast_kit.rpc.channel import open_channel

from fleetcast_agent.receiving.errors import InterruptedReceptionError
from fleetcast_agent.receiving.messages import Assignment, Totals, Waiting
from fleetcast_agent.receiving.receive import Observer, ReceiveRequest, receive_image
from fleetcast_agent.sequence.content.content import Delivery, Examine, ImageDescription, Progress, Verified
from fleetcast_agent.sequence.control import Control
from fleetcast_agent.sequence.errors import StepError

_logger = logging.getLogger(__name__)

_BLOCK_BYTES = 1 << 20
_NO_MULTICAST = "the task sequence wants unicast"


class ServerContent:
    """Images from the servers that this machine is enrolled with."""

    def __init__(
        self,
        request: ReceiveRequest,
        images: Mapping[str, ImageDescription],
        *,
        control: Control | None = None,
        observer: Observer | None = None,
        upload_grant: str = "",
        catalog_address: str = "",
    ) -> None:
        """Takes how to receive, and what the deployment says of the images it pinned, by their names.

        A pause of `control` lets go of the session until it ends; `observer` hears how receptions go; `upload_grant`
        permits the uploads of the run, which go to `catalog_address`, HOST:PORT, if it has one of its own.
        """
        self._request = request
        self._images = images
        self._control = control or Control()
        self._observer = observer
        self._upload_grant = upload_grant
        self._catalog_address = catalog_address or request.server

    async def describe(self, image: str) -> ImageDescription:
        """Returns what the deployment says about an image."""
        name = image.removeprefix("images/")
        if name not in self._images:
            raise StepError(f"the image {name!r} is not one that this deployment pinned")
        return self._images[name]

    async def fetch(
        self,
        image: str,
        target: Path,
        *,
        delivery: Delivery,
        progress: Progress,
        verified: Verified | None = None,
        examine: Examine | None = None,
    ) -> None:
        """Takes part in a session until the whole image is verified and on the target."""
        request = replace(
            self._request,
            image=image.removeprefix("images/"),
            session="",
            output=target,
            keep_size=True,
            examine=examine,
            no_multicast_reason=_NO_MULTICAST if delivery == "unicast" else self._request.no_multicast_reason,
        )
        while not await self._receive(request, delivery, progress, verified):
            await self._control.go()

    async def _receive(
        self, request: ReceiveRequest, delivery: Delivery, progress: Progress, verified: Verified | None
    ) -> bool:
        """Receives to the end, and returns True; or, False, until the run is paused."""
        stop, paused = asyncio.Event(), False

        def held(pausing: bool) -> None:
            nonlocal paused
            if pausing:
                paused = True
                stop.set()

        observer = _Observer(progress, stop if delivery == "multicast-only" else None, self._observer)
        unwatch = self._control.watch(held)
        reception = asyncio.ensure_future(receive_image(request, observer, stop, verified=verified))
        try:
            await asyncio.wait([reception])
        except asyncio.CancelledError:
            stop.set()
            await asyncio.wait([reception])
            reception.exception()  # that it was stopped is no news
            raise
        finally:
            unwatch()
        if observer.unicast:
            raise StepError(
                f"{request.image} came by unicast, and this step takes multicast only: see why, or change its delivery"
            )
        if paused and isinstance(reception.exception(), InterruptedReceptionError):
            return False
        reception.result()
        return True

    async def publish(self, source: Path, image: str, *, progress: Progress) -> str:
        """Uploads the file to the catalog; returns the name of the version it became."""
        spec = catalog_service_pb2.ImportSpec(
            image=image.removeprefix("images/"),
            source_file=source.name,
            source_size_bytes=(await asyncio.to_thread(source.stat)).st_size,
            request_id=str(uuid.uuid4()),
            upload_grant=self._upload_grant,
        )
        address, answered, ended = self._catalog_address, asyncio.Event(), asyncio.Event()
        try:
            async with open_channel(address, self._request.credentials) as channel:
                call = CatalogServiceStub(channel).ImportImage(self._requests(spec, source, answered, ended))
                async for answer in call:
                    answered.set()
                    if answer.phase == catalog_service_pb2.ImportImageResponse.PHASE_DONE:
                        return str(answer.image.name)
                    if answer.phase == catalog_service_pb2.ImportImageResponse.PHASE_FAILED:
                        ended.set()
                    elif answer.total_bytes > 0:
                        progress(answer.done_bytes / answer.total_bytes)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, address=address) from error
        finally:
            ended.set()
            answered.set()
        raise UnavailableError(f"the server ended the import of {image} without a result")

    async def _requests(
        self, spec: catalog_service_pb2.ImportSpec, source: Path, answered: asyncio.Event, ended: asyncio.Event
    ) -> AsyncIterator[catalog_service_pb2.ImportImageRequest]:
        yield catalog_service_pb2.ImportImageRequest(spec=spec)
        # What the server says against the upload would be lost in gRPC if it met a message on its way.
        await answered.wait()
        sent_bytes = 0
        with open(source, "rb") as file:  # noqa: ASYNC230 - opening is quick, reading is not
            while block := await asyncio.to_thread(file.read, _BLOCK_BYTES):
                await self._control.go()
                if ended.is_set():
                    return
                yield catalog_service_pb2.ImportImageRequest(data=block)
                sent_bytes += len(block)
        yield catalog_service_pb2.ImportImageRequest(sent_bytes=sent_bytes)


class _Observer:
    """Turns the news of a reception into progress; stops it when content comes by unicast that must not."""

    def __init__(self, progress: Progress, stop_at_unicast: asyncio.Event | None, observer: Observer | None) -> None:
        self._progress = progress
        self._stop = stop_at_unicast
        self._observer = observer
        self.unicast = False

    def waiting(self, waiting: Waiting) -> None:
        self._progress(0)
        if self._observer is not None:
            self._observer.waiting(waiting)

    def assigned(self, assignment: Assignment) -> None:
        self._progress(0)
        if self._observer is not None:
            self._observer.assigned(assignment)

    def progressed(self, totals: Totals) -> None:
        self._progress(totals.written_bytes / max(totals.size_bytes, 1))
        if self._observer is not None:
            self._observer.progressed(totals)
        if self._stop is not None and totals.unicast_bytes > 0:
            self.unicast = True
            self._stop.set()

    def noticed(self, sentence: str) -> None:
        if self._observer is not None:
            self._observer.noticed(sentence)
        else:
            _logger.info("%s", sentence)
