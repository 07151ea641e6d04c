from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from fleetcast.scheduler.v1 import participation_service_pb2, run_service_pb2
from fleetcast.sender.v1 import transmission_service_pb2
from fleetcast.type.v1 import chunk_table_pb2
from fleetcast_agent.deployments import convert as running_convert
from fleetcast_agent.receiving import convert
from fleetcast_agent.receiving.errors import ChunkTableError, GroupUnusableError, TransmissionError
from fleetcast_agent.receiving.messages import Dismissal, DismissalReason, PassPlanned, ReceptionTotals, Welcome
from fleetcast_kit.errors import FleetcastError
from hypothesis import given
from hypothesis import strategies as st

from tests.support.protobufs import messages
from tests.unit.agent.receiving.transmitting import make_image

IMAGE = make_image(21, 300_000)
NAME = f"images/office@{IMAGE.manifest.digest}"
RAW, ZSTD = chunk_table_pb2.CHUNK_ENCODING_RAW, chunk_table_pb2.CHUNK_ENCODING_ZSTD


def table() -> transmission_service_pb2.GetChunkTableResponse:
    return transmission_service_pb2.GetChunkTableResponse(
        size_bytes=300_000,
        chunk_size_bytes=65536,
        table=chunk_table_pb2.ChunkTable(
            digests=IMAGE.manifest.digests.tobytes(),
            stored_size_bytes=IMAGE.sizes.tolist(),
            encodings=[ZSTD if zstd else RAW for zstd in IMAGE.zstd],
        ),
    )


def welcome(**changes: Any) -> transmission_service_pb2.ReceiveResponse:
    geometry = transmission_service_pb2.Geometry(symbol_bytes=1408, codeword_symbols=1000, window_codewords=32)
    fields: dict[str, Any] = {
        "group": "239.192.1.1",
        "port": 64000,
        "transmission_tag": 7,
        "key": bytes(32),
        "initialization_vector": bytes(12),
        "verification_key": bytes(32),
        "geometry": geometry,
        "report_interval_milliseconds": 200,
    }
    return transmission_service_pb2.ReceiveResponse(
        welcome=transmission_service_pb2.ReceiverWelcome(**(fields | changes))
    )


def test_a_table_that_gives_the_digest_is_taken() -> None:
    taken = convert.chunk_table_of([table()], NAME)
    assert taken.stored_size_bytes.tolist() == IMAGE.sizes.tolist()
    assert taken.compressed.tolist() == IMAGE.zstd.tolist()


def _flip_digest(message: transmission_service_pb2.GetChunkTableResponse) -> None:
    message.table.digests = b"\1" + message.table.digests[1:]


def _cut_digests(message: transmission_service_pb2.GetChunkTableResponse) -> None:
    message.table.digests = message.table.digests[:-1]


def _resize(message: transmission_service_pb2.GetChunkTableResponse) -> None:
    message.size_bytes += 1


def _huge_chunk(message: transmission_service_pb2.GetChunkTableResponse) -> None:
    message.table.stored_size_bytes[0] = 1 << 40


def _negative_chunk(message: transmission_service_pb2.GetChunkTableResponse) -> None:
    message.table.stored_size_bytes[0] = -1


def _strange_encoding(message: transmission_service_pb2.GetChunkTableResponse) -> None:
    message.table.encodings[0] = chunk_table_pb2.CHUNK_ENCODING_UNSPECIFIED


def _wrong_row(message: transmission_service_pb2.GetChunkTableResponse) -> None:
    message.table.first_chunk = 3


@pytest.mark.parametrize(
    "spoil", [_flip_digest, _cut_digests, _resize, _huge_chunk, _negative_chunk, _strange_encoding, _wrong_row]
)
def test_a_table_that_cannot_be_true_is_refused(
    spoil: Callable[[transmission_service_pb2.GetChunkTableResponse], None],
) -> None:
    message = table()
    spoil(message)
    with pytest.raises(ChunkTableError, match="chunk table"):
        convert.chunk_table_of([message], NAME)


def test_no_table_is_refused() -> None:
    with pytest.raises(ChunkTableError, match="empty"):
        convert.chunk_table_of([], NAME)


def test_a_welcome_has_what_is_needed_to_hear() -> None:
    taken = convert.from_sender(welcome(), 5)
    assert isinstance(taken, Welcome)
    assert taken.keys is not None
    assert (taken.group, taken.port, taken.keys.tag) == ("239.192.1.1", 64000, 7)
    assert taken.report_interval_seconds == 0.2


def test_a_sender_that_signs_nothing_is_heard_by_unicast_alone_and_the_sentence_says_what_to_do() -> None:
    with pytest.raises(GroupUnusableError, match="older than this agent, update the server"):
        convert.from_sender(welcome(verification_key=b""), 5)


def test_a_report_never_fails_whatever_was_counted() -> None:
    totals = ReceptionTotals(1, (1 << 64) - 1, 1 << 70, -5, 0, 0, 0, 1, 0)
    report = convert.report_message(totals).report
    assert (report.highest_packet_counter, report.datagram_count) == ((1 << 63) - 1, (1 << 63) - 1)
    assert report.overflow_datagram_count == -1


@pytest.mark.parametrize(
    "changes",
    [
        {"key": bytes(31)},
        {"initialization_vector": b""},
        {"transmission_tag": 1 << 32},
        {"transmission_tag": -1},
        {"port": 0},
        {"port": 65536},
        {"geometry": transmission_service_pb2.Geometry()},
        {
            "geometry": transmission_service_pb2.Geometry(
                symbol_bytes=1408, codeword_symbols=1000, window_codewords=1 << 30
            )
        },
        {
            "geometry": transmission_service_pb2.Geometry(
                symbol_bytes=1408, codeword_symbols=10, window_codewords=1, parity_symbols=4, codec="unknown"
            )
        },
    ],
)
def test_a_welcome_that_cannot_be_used_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(TransmissionError):
        convert.from_sender(welcome(**changes), 5)


def test_a_plan_of_another_image_is_refused() -> None:
    chunks = convert.chunk_set_message(np.ones(6, np.bool_))
    message = transmission_service_pb2.ReceiveResponse(
        plan=transmission_service_pb2.PassPlan(chunks=chunks, **{"pass": 1})
    )
    assert isinstance(convert.from_sender(message, 6), PassPlanned)
    with pytest.raises(TransmissionError, match="6 chunks, the image has 5"):
        convert.from_sender(message, 5)


def test_an_unknown_reason_of_dismissal_is_a_failure() -> None:
    message = participation_service_pb2.ParticipateResponse(dismissal=participation_service_pb2.Dismissal(detail="why"))
    assert convert.from_scheduler(message) == Dismissal(DismissalReason.SESSION_FAILED, "why")


@given(messages(transmission_service_pb2.ReceiveResponse), st.integers(1, 100))
def test_whatever_a_sender_says_is_understood_or_refused(
    message: transmission_service_pb2.ReceiveResponse, chunk_count: int
) -> None:
    with suppress(TransmissionError):
        convert.from_sender(message, chunk_count)


@given(st.lists(messages(transmission_service_pb2.GetChunkTableResponse), max_size=3))
def test_whatever_a_table_is_it_is_true_or_refused(
    responses: list[transmission_service_pb2.GetChunkTableResponse],
) -> None:
    with pytest.raises(ChunkTableError):
        convert.chunk_table_of(responses, NAME)


@given(messages(participation_service_pb2.ParticipateResponse))
def test_whatever_the_scheduler_says_of_a_session_is_understood_or_refused(
    message: participation_service_pb2.ParticipateResponse,
) -> None:
    with suppress(FleetcastError):
        convert.from_scheduler(message)


@given(messages(run_service_pb2.AttendResponse))
def test_whatever_the_scheduler_says_of_runs_is_understood_or_refused(
    message: run_service_pb2.AttendResponse,
) -> None:
    with suppress(FleetcastError):
        running_convert.from_scheduler(message)


@given(st.integers(0, 2), st.integers(0, 400), st.binary(min_size=1, max_size=8))
def test_a_damaged_frame_never_passes(chunk: int, at: int, damage: bytes) -> None:
    taken = convert.chunk_table_of([table()], NAME)
    chunk = int(np.flatnonzero(~IMAGE.manifest.zero)[chunk % 2])
    stored = bytearray(IMAGE.stored[chunk])
    at %= len(stored)
    before = bytes(stored)
    stored[at : at + len(damage)] = damage
    content = taken.prove(chunk, bytes(stored))
    expected = IMAGE.content[chunk * 65536 : (chunk + 1) * 65536]
    assert content is None or bytes(content) == expected
    assert bytes(taken.prove(chunk, before) or b"") == expected
