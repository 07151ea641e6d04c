"""What deployments install: pinned to one version, and held at the catalog while the deployment is open."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial

from fleetcast_kit.errors import FleetcastError

from fleetcast_scheduler.catalog import Catalog, PinnedSequence
from fleetcast_scheduler.deployments.domain.deployment import Content, DeployedImage, Deployment
from fleetcast_scheduler.deployments.pump import RunPump
from fleetcast_scheduler.holds import HoldKeeper
from fleetcast_scheduler.images import DiskDemand, PinnedImage

PREFIX = "deployments/"


@dataclass(frozen=True, slots=True)
class PinnedContent:
    """What a deployment has machines run."""

    name: str
    """The pinned version."""
    content: Content
    required_variables: tuple[str, ...] = ()
    image: PinnedImage | None = None
    """The image, if it is deployed as it is."""


class Contents:
    """Pins what is deployed, and releases what ended deployments held."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self.keeper = HoldKeeper("deployments")

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
        with self.keeper.opens(deployment.name):
            if deployment.is_image:
                yield _of_image(await self._catalog.hold(deployment.content, deployment.name))
            else:
                yield _of_sequence(await self._catalog.hold_sequence(deployment.content, deployment.name))

    async def run(self, pump: RunPump) -> None:
        """Keeps the holds until cancelled."""
        await self.keeper.run(partial(self._reconcile, pump))

    async def _reconcile(self, pump: RunPump) -> None:
        held = {holder for _, holder in await self._catalog.holds(PREFIX)}
        held |= await self._catalog.sequence_holders(PREFIX)
        deployments = pump.ledger.deployments
        for name in held - self.keeper.opening:
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
    deployed = DeployedImage(image.name, image.size_bytes, image.is_wim)
    demand = DiskDemand(image.size_bytes, image.sector_size_bytes)
    return PinnedContent(image.name, Content(images=(deployed,), disk_demands=(demand,)), image=image)


def _of_sequence(sequence: PinnedSequence) -> PinnedContent:
    content = Content(
        images=tuple(DeployedImage(image.name, image.size_bytes, image.is_wim) for image in sequence.images),
        task_sequence=sequence.canonical_form,
        digest=sequence.digest,
        uploads=sequence.uploads,
        disk_demands=sequence.disk_demands,
    )
    return PinnedContent(sequence.name, content, sequence.required_variables)
