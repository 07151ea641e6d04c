"""Images that people name by part of a digest, found in the catalog."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fleetcast.catalog.v1 import catalog_service_pb2
from fleetcast_kit.errors import InvalidArgumentError, NotFoundError

from fleetcast_cli.shell.connection import every_page
from fleetcast_cli.shell.references import FULL_DIGITS

if TYPE_CHECKING:
    from fleetcast.catalog.v1.catalog_service_pb2_grpc import CatalogServiceAsyncStub


async def find_image(catalog: CatalogServiceAsyncStub, reference: str) -> str:
    """Returns `reference` with its digest in full.

    Raises:
        NotFoundError: no version's digest starts so.
        InvalidArgumentError: the digests of several versions do.
    """
    series, separator, digest = reference.removeprefix("images/").partition("@sha256:")
    if not separator or len(digest) == FULL_DIGITS:
        return reference
    request = catalog_service_pb2.ListImagesRequest(image=series)
    found: set[str] = set()
    async for answer in every_page(catalog.ListImages, request):
        found |= {image.name for image in answer.images if image.digest.startswith(f"sha256:{digest}")}
    if not found:
        raise NotFoundError(
            f"no version of image {series!r} has a digest that starts with {digest}; see: fleetcast image list",
            reason="IMAGE_NOT_FOUND",
        )
    if len(found) > 1:
        raise InvalidArgumentError(
            f"{len(found)} versions of image {series!r} have digests that start with {digest}: write more digits",
            field="image",
        )
    return found.pop()
