"""Whatever anybody sends to the catalog is understood or refused with a sentence."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime

import pytest
from fleetcast.catalog.v1 import catalog_service_pb2
from fleetcast.type.v1 import chunk_set_pb2
from fleetcast_catalog.images import convert
from fleetcast_catalog.images.domain import Image, ImageFormat, ImageState
from fleetcast_catalog.task_sequences import convert as sequence_convert
from fleetcast_kit.errors import FleetcastError
from fleetcast_kit.rpc.request_ids import checked_request_id
from hypothesis import given
from hypothesis import strategies as st

from tests.support.protobufs import messages


@given(messages(catalog_service_pb2.ImportSpec))
def test_every_import_is_understood_or_refused(message: catalog_service_pb2.ImportSpec) -> None:
    with suppress(FleetcastError):
        convert.import_spec(message)


@given(messages(chunk_set_pb2.ChunkSet), st.integers(0, 100))
def test_every_chunk_set_is_understood_or_refused(message: chunk_set_pb2.ChunkSet, chunk_count: int) -> None:
    image = Image(
        id=1,
        image="office",
        version="importing-1",
        state=ImageState.READY,
        format=ImageFormat.RAW,
        source_file="office.img",
        create_time=datetime(2026, 1, 1, tzinfo=UTC),
        chunk_count=chunk_count,
    )
    with suppress(FleetcastError):
        assert all(chunk < chunk_count for chunk in convert.chunks_of(message, image).tolist())


@pytest.mark.parametrize(
    "read",
    [
        lambda text: convert.file_name(text, field="file"),
        checked_request_id,
        convert.holder,
        convert.pinned_name,
        sequence_convert.source_file,
    ],
)
@given(text=st.text(max_size=40))
def test_every_name_is_taken_or_refused(read: Callable[[str], object], text: str) -> None:
    with suppress(FleetcastError):
        read(text)
