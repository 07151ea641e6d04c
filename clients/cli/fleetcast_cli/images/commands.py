"""`fleetcast image`: list, show, verify, delete."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import Annotated

import typer
from fleetcast.catalog.v1 import catalog_service_pb2, image_pb2
from fleetcast.catalog.v1.catalog_service_pb2_grpc import CatalogServiceStub
from fleetcast_kit.errors import DataLossError
from rich.table import Table

from fleetcast_cli.images.lookup import find_image
from fleetcast_cli.shell.command import Json, command
from fleetcast_cli.shell.connection import UNARY_SECONDS, connection, every_page
from fleetcast_cli.shell.plain import Plain, short_name, to_plain, write_json
from fleetcast_cli.shell.progress import WorkProgress
from fleetcast_cli.shell.references import identifier, image_reference, series_name, short_image
from fleetcast_cli.shell.text import ABSENT, fields, format_bytes, format_percent, format_time, output, plural, table

group = typer.Typer(no_args_is_help=True)

Reference = Annotated[
    str,
    typer.Argument(
        metavar="NAME[@DIGEST]",
        help="An image, in its newest version unless a digest follows. The first digits of the digest are enough.",
        show_default=False,
    ),
]


@command(group, "list", span="fleetcast image list")
async def list_images(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Only versions of this image.")] = None,
    as_json: Json = False,
) -> None:
    """List image versions, newest first."""
    series = "" if name is None else series_name(name.removeprefix("images/"))
    images: list[image_pb2.Image] = []
    async with connection(context).dial_catalog() as channel:
        request = catalog_service_pb2.ListImagesRequest(image=series)
        async for answer in every_page(CatalogServiceStub(channel).ListImages, request):
            images += answer.images
    if as_json:
        write_json({"images": [to_plain(image) for image in images]})
        return
    if not images:
        output().print("no images; import one with: fleetcast image import FILE --name NAME")
        return
    rows = table("image", "state", "format", "size", "stored", "added", "ready", right=("size", "stored", "added"))
    for image in images:
        rows.add_row(
            short_image(image.name),
            short_name(image, "state"),
            short_name(image, "format"),
            format_bytes(image.size_bytes),
            format_bytes(image.stored_bytes),
            format_bytes(image.added_bytes),
            format_time(image.ready_time),
        )
    output().print(rows)


@command(group, "show", span="fleetcast image show")
async def show(context: typer.Context, image: Reference, as_json: Json = False) -> None:
    """Show one image version and, for WIM and ESD files, the images inside."""
    reference = image_reference(image)
    async with connection(context).dial_catalog() as channel:
        catalog = CatalogServiceStub(channel)
        request = catalog_service_pb2.GetImageRequest(name=await find_image(catalog, reference))
        found = (await catalog.GetImage(request, timeout=UNARY_SECONDS)).image
    if as_json:
        write_json(to_plain(found))
        return
    print_image(found)


@command(group, "verify", span="fleetcast image verify")
async def verify(context: typer.Context, image: Reference, as_json: Json = False) -> None:
    """Read every stored chunk of an image back and prove its digest."""
    reference = image_reference(image)
    damaged: list[int] = []
    proven: image_pb2.Image | None = None
    async with connection(context).dial_catalog() as channel:
        catalog = CatalogServiceStub(channel)
        request = catalog_service_pb2.VerifyImageRequest(name=await find_image(catalog, reference))
        with WorkProgress("chunks") as progress:
            async for answer in catalog.VerifyImage(request):
                progress.update("verifying", answer.done_chunk_count, answer.total_chunk_count)
                damaged += answer.damaged_chunks
                if answer.HasField("image"):
                    proven = answer.image
    if proven is None:
        raise DataLossError(f"the verification of {image} ended without a result: run it again")
    if as_json:
        chunks: list[Plain] = list(damaged)
        write_json({"image": to_plain(proven), "damaged_chunks": chunks})
    elif not damaged:
        output().print(f"{short_image(proven.name)}: {plural(proven.chunk_count, 'chunk')} proven, none damaged")
    if damaged:
        few = ", ".join(map(str, damaged[:10])) + (", …" if len(damaged) > 10 else "")
        raise DataLossError(
            f"{short_image(proven.name)}: {plural(len(damaged), 'damaged chunk')} of {proven.chunk_count} ({few}); "
            "import the same file under the same name to repair them",
            reason="IMAGE_DAMAGED",
        )


@command(group, "delete", span="fleetcast image delete")
async def delete(context: typer.Context, image: Reference, as_json: Json = False) -> None:
    """Delete an image version and reclaim its space; refused while a session uses it."""
    reference = image_reference(image)
    async with connection(context).dial_catalog() as channel:
        catalog = CatalogServiceStub(channel)
        name = await find_image(catalog, reference)
        answer = await catalog.DeleteImage(
            catalog_service_pb2.DeleteImageRequest(name=name, request_id=str(uuid.uuid4())), timeout=UNARY_SECONDS
        )
    if as_json:
        write_json({"name": name, **to_plain(answer)})
        return
    output().print(f"deleted {short_image(name)}, reclaimed {format_bytes(answer.reclaimed_bytes)}")


def print_image(image: image_pb2.Image) -> None:
    """Prints everything about one image version for people."""
    nonzero = image.chunk_count - image.zero_chunk_count
    console = output()
    console.print(
        fields(
            [
                ("image", image.name.removeprefix("images/")),
                ("state", short_name(image, "state")),
                ("format", short_name(image, "format")),
                ("file", image.source_file),
                ("belongs to", f"{identifier(image.owner)}: a saved user state" if image.owner else ""),
                ("size", f"{format_bytes(image.size_bytes)} ({image.size_bytes} bytes)"),
                (
                    "chunks",
                    f"{image.chunk_count} of {format_bytes(image.chunk_size_bytes)}: {nonzero} with content, "
                    f"{image.zero_chunk_count} zero",
                ),
                (
                    "stored",
                    f"{format_bytes(image.stored_bytes)}, "
                    f"{format_percent(image.stored_bytes, image.size_bytes)} of the size",
                ),
                *_inside(image.contents),
                ("added", f"{format_bytes(image.added_bytes)}, the rest was stored already"),
                ("created", format_time(image.create_time)),
                ("ready", format_time(image.ready_time)),
                ("verified", format_time(image.verify_time)),
                ("damaged", plural(image.damaged_chunk_count, "chunk") if image.damaged_chunk_count else ""),
                ("used by", ", ".join(image.holders)),
            ]
        )
    )
    if image.contents.partitions:
        console.print()
        console.print(_partitions(image.contents.partitions))
    if image.wim_images:
        console.print()
        rows = table("index", "name", "edition", "arch", "languages", "size", "files", right=("index", "size", "files"))
        for wim_image in image.wim_images:
            rows.add_row(
                str(wim_image.index),
                wim_image.display_name or ABSENT,
                wim_image.edition or ABSENT,
                wim_image.architecture or ABSENT,
                ", ".join(wim_image.languages) or ABSENT,
                format_bytes(wim_image.total_bytes),
                str(wim_image.file_count),
            )
        console.print(rows)


def _inside(contents: image_pb2.ImageContents) -> list[tuple[str, str]]:
    """Returns what is inside an image, but for its partitions."""
    kinds = image_pb2.ImageContents
    if contents.kind == kinds.KIND_DISK:
        sectors = f", sectors of {contents.sector_size_bytes} bytes" if contents.sector_size_bytes else ""
        count = plural(len(contents.partitions), "partition")
        what = f"a disk: {contents.partition_table.upper()} with {count}{sectors}"
    elif contents.kind == kinds.KIND_VOLUME:
        label = f" {contents.label!r}" if contents.label else ""
        what = f"one volume, without a partition table: {contents.filesystem}{label}"
    elif contents.kind == kinds.KIND_WINDOWS_IMAGES:
        what = "Windows images, to be applied to a volume"
    elif contents.kind == kinds.KIND_FILE:
        what = "a file: no partition table, no file system"
    else:
        return [("content", "unknown: imported before this was looked at, until the server is started again")]
    return [("content", what), ("used", format_bytes(contents.used_bytes))]


def _partitions(partitions: Iterable[image_pb2.ImagePartition]) -> Table:
    rows = table("partition", "type", "size", "used", "content", "label", right=("partition", "size", "used"))
    for partition in partitions:
        rows.add_row(
            str(partition.number),
            partition.type_name or partition.type_id,
            format_bytes(partition.size_bytes),
            format_bytes(partition.used_bytes),
            partition.filesystem or ABSENT,
            partition.label or partition.display_name or ABSENT,
        )
    return rows
