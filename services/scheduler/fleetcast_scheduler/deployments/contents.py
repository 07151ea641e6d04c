"""What deployments have machines run: pinned, and held at the catalog for as long as they are open."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from fleetcast_kit.errors import FleetcastError

from fleetcast_scheduler.catalog import Catalog, PinnedImage, PinnedSequence
from fleetcast_scheduler.deployments.domain.deployment import Content, DeployedImage, Deployment
from fleetcast_scheduler.deployments.pump import RunPump

_logger = logging.getLogger(__name__)

PREFIX = "deployments/"
RECONCILE_SECONDS = 600.0
"""A call that timed out may have left a hold; it is found after this."""
_PAUSE_SECONDS = 5.0
"""Between attempts while the catalog does not answer."""


@dataclass(frozen=True, slots=True)
class PinnedContent:
    """What a deployment has machines run."""

    name: str
    """The pinned version."""
    content: Content
    required_variables: tuple[str, ...] = ()


class Contents:
    """Pins what is deployed, and releases what ended deployments held; tries until it succeeds."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._news = asyncio.Event()
        self._opening: set[str] = set()

    async def resolve(self, content: str) -> PinnedContent:
        """Returns what `content` names now.

        Raises:
            NotFoundError: there is no such version.
            FailedPreconditionError: something that it refers to is not there.
        """
        if content.startswith("images/"):
            return _of_image(await self._catalog.resolve(content))
        return _of_sequence(await self._catalog.resolve_sequence(content))

    @asynccontextmanager
    async def held(self, deployment: Deployment) -> AsyncIterator[PinnedContent]:
        """Yields what a new deployment pins, held; released soon if the deployment is not made after all.

        Raises:
            NotFoundError: there is no such version.
            FailedPreconditionError: something that it refers to is not there.
        """
        self._opening.add(deployment.name)
        try:
            if deployment.is_image:
                yield _of_image(await self._catalog.hold(deployment.content, deployment.name))
            else:
                yield _of_sequence(await self._catalog.hold_sequence(deployment.content, deployment.name))
        except BaseException:
            self._news.set()
            raise
        finally:
            self._opening.discard(deployment.name)

    def deployment_ended(self, _name: str) -> None:
        """Has what an ended deployment holds released."""
        self._news.set()

    async def run(self, pump: RunPump) -> None:
        """Makes the catalog hold what open deployments need and nothing else, at once and at every change."""
        while True:
            self._news.clear()
            try:
                await self._reconcile(pump)
                pause_seconds = RECONCILE_SECONDS
            except FleetcastError as error:
                _logger.warning("cannot reconcile what deployments hold, trying again: %s", error.message)
                pause_seconds = _PAUSE_SECONDS * random.uniform(0.8, 1.2)  # noqa: S311 - jitter
            with suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), pause_seconds)

    async def _reconcile(self, pump: RunPump) -> None:
        held = {holder for _, holder in await self._catalog.holds(PREFIX)}
        held |= await self._catalog.sequence_holders(PREFIX)
        deployments = pump.ledger.deployments
        for name in held - self._opening:
            deployment = deployments.get(name)
            if deployment is None or _is_over(deployment):
                await self._catalog.release_everything(name)
        for deployment in list(deployments.values()):
            if _is_over(deployment):
                if not deployment.settled:
                    deployment.settled = True
                    pump.ledger.record(deployment)
                    pump.wake()
            elif deployment.name not in held:
                with suppress(FleetcastError):  # it is gone: machines will say so
                    await self._hold_again(deployment)

    async def _hold_again(self, deployment: Deployment) -> None:
        if deployment.is_image:
            await self._catalog.hold(deployment.content, deployment.name)
        else:
            await self._catalog.hold_sequence(deployment.content, deployment.name)


def _is_over(deployment: Deployment) -> bool:
    return deployment.state.final and not deployment.open_runs


def _of_image(image: PinnedImage) -> PinnedContent:
    return PinnedContent(image.name, Content(images=(DeployedImage(image.name, image.size_bytes, image.is_wim),)))


def _of_sequence(sequence: PinnedSequence) -> PinnedContent:
    content = Content(
        images=tuple(DeployedImage(image.name, image.size_bytes, image.is_wim) for image in sequence.images),
        task_sequence=sequence.canonical_form,
        digest=sequence.digest,
        uploads=sequence.uploads,
    )
    return PinnedContent(sequence.name, content, sequence.required_variables)
