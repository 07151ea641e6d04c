"""Messages of the API as domain objects, and back; fields are checked here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path, PurePosixPath

import numpy as np
from fleetcast.catalog.v1 import catalog_service_pb2, image_pb2
from fleetcast.type.v1 import chunk_set_pb2, chunk_table_pb2
from fleetcast_kit.errors import InvalidArgumentError
from fleetcast_kit.rpc.fields import timestamp
from fleetcast_kit.rpc.request_ids import checked_request_id
from fleetcast_wire.chunkset import unpack_chunk_set
from fleetcast_wire.errors import ChunkSetError
from numpy.typing import NDArray

from fleetcast_catalog.images.chunk_table import ChunkTable
from fleetcast_catalog.images.domain import Hold, Image, ImageFormat, ImageName, ImageState, check_series
from fleetcast_catalog.images.importing.image_import import ImageImport, ImportSpec
from fleetcast_catalog.images.importing.preparation import ImportPhase
from fleetcast_catalog.images.inspection.contents import ContentKind, ImageContents
from fleetcast_catalog.images.verification import VerifyProgress

RUN_ROWS = 16384
"""Rows of the chunk table in one message: 700 KB."""

_MAX_NAME_CHARACTERS = 255
_STATES = {
    ImageState.CREATING: image_pb2.Image.STATE_CREATING,
    ImageState.READY: image_pb2.Image.STATE_READY,
    ImageState.FAILED: image_pb2.Image.STATE_FAILED,
}


def import_spec(message: catalog_service_pb2.ImportSpec) -> ImportSpec:
    """Returns what to import.

    Raises:
        InvalidArgumentError: a field is wrong.
    """
    path = Path(message.source_path) if message.source_path else None
    if path is not None and not path.is_absolute():
        raise InvalidArgumentError(
            f"the path on the server {message.source_path!r} is not absolute: start it with /",
            field="spec.source_path",
        )
    if "\0" in message.source_path:
        raise InvalidArgumentError("a path on the server has no NUL character", field="spec.source_path")
    if message.source_size_bytes < -1:
        raise InvalidArgumentError(
            f"source_size_bytes is {message.source_size_bytes}: give the size, or -1 if it is not known",
            field="spec.source_size_bytes",
        )
    return ImportSpec(
        image=check_series(message.image, field="spec.image"),
        format=_format(message.format),
        source_path=path,
        source_file=file_name(message.source_file or message.source_path, field="spec.source_file"),
        declared_bytes=message.source_size_bytes,
        request_id=checked_request_id(message.request_id, field="spec.request_id"),
        is_directory=message.source_is_directory,
    )


def file_name(path: str, *, field: str) -> str:
    """Returns the last part of a path.

    Raises:
        InvalidArgumentError: it cannot be the name of a file.
    """
    name = PurePosixPath(path).name
    if not name.isprintable() or len(name) > _MAX_NAME_CHARACTERS:
        raise InvalidArgumentError(
            f"{name[:80]!r} cannot be the name of a file: use at most {_MAX_NAME_CHARACTERS} printable characters",
            field=field,
        )
    return name


def holder(name: str) -> str:
    """Returns `name` if it can be that of a resource.

    Raises:
        InvalidArgumentError: it cannot.
    """
    collection, _, rest = name.partition("/")
    if not collection or not rest or not name.isprintable() or len(name) > _MAX_NAME_CHARACTERS:
        raise InvalidArgumentError(
            f"{name[:80]!r} is not the name of a resource, such as sessions/20261201-1", field="holder"
        )
    return name


def pinned_name(name: str) -> ImageName:
    """Returns the parts of a name that must have a digest.

    Raises:
        InvalidArgumentError: it is not `images/{image}@sha256:{hex}`.
    """
    parsed = ImageName.parse(name)
    if not parsed.version:
        raise InvalidArgumentError(f"{name!r} has no digest: write images/NAME@sha256:DIGEST", field="name")
    return parsed


def chunks_of(message: chunk_set_pb2.ChunkSet, image: Image) -> NDArray[np.intp]:
    """Returns the indices in a chunk set of `image`, ascending.

    Raises:
        InvalidArgumentError: the set is not one of this image.
    """
    if message.bitmap and message.chunk_count != image.chunk_count:
        raise InvalidArgumentError(
            f"the chunk set is of {message.chunk_count} chunks, {image.name} has {image.chunk_count}",
            field="chunks.chunk_count",
        )
    try:
        members = unpack_chunk_set(message.bitmap, message.compressed, image.chunk_count)
    except ChunkSetError as error:
        raise InvalidArgumentError(f"the chunk set cannot be read: {error}", field="chunks.bitmap") from error
    return np.flatnonzero(members)


def image_message(image: Image) -> image_pb2.Image:
    """Returns an image version as a message."""
    return image_pb2.Image(
        name=image.name,
        image=image.image,
        digest=image.digest,
        state=_STATES[image.state],
        format=_format_message(image.format),
        size_bytes=image.size_bytes,
        chunk_size_bytes=image.chunk_size_bytes,
        chunk_count=image.chunk_count,
        zero_chunk_count=image.zero_chunk_count,
        stored_bytes=image.stored_bytes,
        added_bytes=image.added_bytes,
        create_time=timestamp(image.create_time),
        ready_time=timestamp(image.ready_time),
        wim_images=[image_pb2.WimImage(**asdict(wim_image)) for wim_image in image.wim_images],
        source_file=image.source_file,
        owner=image.owner,
        verify_time=timestamp(image.verify_time),
        damaged_chunk_count=image.damaged_chunk_count,
        holders=image.holders,
        contents=_contents_message(image.contents) if image.contents.kind is not ContentKind.UNKNOWN else None,
    )


def _contents_message(contents: ImageContents) -> image_pb2.ImageContents:
    return image_pb2.ImageContents(
        kind=image_pb2.ImageContents.Kind.Value(f"KIND_{contents.kind.name}"),
        partition_table=contents.partition_table,
        sector_size_bytes=contents.sector_size_bytes,
        used_bytes=contents.used_bytes,
        partitions=[
            image_pb2.ImagePartition(
                number=partition.number,
                type_id=partition.type_id,
                type_name=partition.type_name,
                display_name=partition.name,
                offset_bytes=partition.offset_bytes,
                size_bytes=partition.size_bytes,
                used_bytes=partition.used_bytes,
                filesystem=partition.filesystem,
                label=partition.label,
            )
            for partition in contents.partitions
        ],
        filesystem=contents.filesystem,
        label=contents.label,
    )


def import_message(work: ImageImport) -> catalog_service_pb2.ImportImageResponse:
    """Returns how far an import is as a message."""
    return catalog_service_pb2.ImportImageResponse(
        phase=_phase_message(work.meter.phase),
        done_bytes=work.meter.done(),
        total_bytes=work.meter.total_bytes,
        image=image_message(work.image) if work.image else None,
    )


def failed_message(work: ImageImport) -> catalog_service_pb2.ImportImageResponse:
    """Returns what tells the sender of an upload to stop."""
    return catalog_service_pb2.ImportImageResponse(
        phase=catalog_service_pb2.ImportImageResponse.PHASE_FAILED,
        done_bytes=work.meter.done(),
        total_bytes=work.meter.total_bytes,
    )


def imported_message(image: Image) -> catalog_service_pb2.ImportImageResponse:
    """Returns the last message of an import."""
    return catalog_service_pb2.ImportImageResponse(
        phase=catalog_service_pb2.ImportImageResponse.PHASE_DONE,
        done_bytes=image.size_bytes,
        total_bytes=image.size_bytes,
        image=image_message(image),
    )


def verify_message(progress: VerifyProgress) -> catalog_service_pb2.VerifyImageResponse:
    """Returns how far a verification is as a message."""
    return catalog_service_pb2.VerifyImageResponse(
        done_chunk_count=progress.done_chunk_count,
        total_chunk_count=progress.total_chunk_count,
        damaged_chunks=progress.damaged_chunks,
        image=image_message(progress.image) if progress.image else None,
    )


def table_messages(table: ChunkTable) -> Iterator[chunk_table_pb2.ChunkTable]:
    """Yields a chunk table in runs, at least one."""
    for first in range(0, max(len(table), 1), RUN_ROWS):
        rows = slice(first, first + RUN_ROWS)
        yield chunk_table_pb2.ChunkTable(
            first_chunk=first,
            digests=table.digests[rows].tobytes(),
            stored_size_bytes=table.stored_sizes[rows].tolist(),
            encodings=table.encodings[rows].tolist(),
        )


def hold_message(hold: Hold) -> catalog_service_pb2.Hold:
    """Returns a hold as a message."""
    return catalog_service_pb2.Hold(name=hold.name, holder=hold.holder)


def _format(value: image_pb2.ImageFormat.ValueType) -> ImageFormat | None:
    if value == image_pb2.IMAGE_FORMAT_UNSPECIFIED:
        return None
    try:
        return ImageFormat(value)
    except ValueError:
        raise InvalidArgumentError(f"format {value} is not known: leave it out", field="spec.format") from None


def _format_message(image_format: ImageFormat) -> image_pb2.ImageFormat.ValueType:
    return image_pb2.ImageFormat.Value(f"IMAGE_FORMAT_{image_format.name}")


def _phase_message(phase: ImportPhase) -> catalog_service_pb2.ImportImageResponse.Phase.ValueType:
    return catalog_service_pb2.ImportImageResponse.Phase.Value(f"PHASE_{phase.name}")
