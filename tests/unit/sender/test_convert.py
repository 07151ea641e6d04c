"""Whatever an admitted machine or the scheduler says is understood or refused, and takes nothing from the others."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from fleetcast.scheduler.v1 import session_pb2
from fleetcast.sender.v1 import transmission_service_pb2
from fleetcast_kit.errors import FleetcastError
from fleetcast_sender import convert
from fleetcast_sender.engine.geometry_choice import GeometryOverrides, choose_geometry
from fleetcast_sender.engine.messages import UnicastReason
from fleetcast_sender.engine.policy import SlowPolicy
from fleetcast_sender.engine.rate import RateController, RatePolicy
from fleetcast_wire.errors import RunsError
from fleetcast_wire.geometry import Geometry
from google.protobuf.message import Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.examples import examples
from tests.support.protobufs import messages
from tests.unit.agent.receiving.transmitting import make_image
from tests.unit.dataplane.pairing import Pair

CHUNKS = 30
GEOMETRY = Geometry(512, codeword_symbols=40, window_codewords=4, parity_symbols=32, codec="leopard-rs16")

READERS: list[tuple[type[Message], Callable[[Any], object]]] = [
    (transmission_service_pb2.ReceiverJoin, lambda message: convert.join_of(message, "machines/a", CHUNKS)),
    (transmission_service_pb2.HoldingReport, lambda message: convert.holding_of(message, CHUNKS)),
    (transmission_service_pb2.FetchChunksRequest, lambda message: convert.members_of(message.chunks, CHUNKS, "chunks")),
    (session_pb2.RatePolicy, convert.rate_policy_of),
    (session_pb2.SlowPolicy, lambda message: convert.slow_policy_of(message, SlowPolicy())),
]


@pytest.mark.parametrize(("kind", "read"), READERS, ids=lambda it: getattr(it, "__name__", ""))
@given(data=st.data())
def test_every_message_is_understood_or_refused(
    kind: type[Message], read: Callable[[Any], object], data: st.DataObject
) -> None:
    with suppress(FleetcastError):
        read(data.draw(messages(kind)))


@given(st.lists(messages(transmission_service_pb2.ReceiverJoin), min_size=1, max_size=3))
def test_whatever_receivers_say_of_themselves_a_geometry_is_found(
    said: list[transmission_service_pb2.ReceiverJoin],
) -> None:
    for message in said:
        message.ClearField("held")
    joins = [convert.join_of(message, "machines/a", CHUNKS) for message in said]
    geometry = choose_geometry(
        joins, receiver_count=3, stream_bytes=1 << 30, mtu_bytes=1500, ip_version=4, overrides=GeometryOverrides()
    )
    assert geometry.window_codewords >= 4


@settings(max_examples=examples(20), suppress_health_check=[HealthCheck.too_slow])
@given(
    said=st.lists(messages(transmission_service_pb2.ReceiveRequest), max_size=12),
    aimed=st.lists(
        st.builds(
            transmission_service_pb2.DeficitReport,
            window=st.integers(0, 4),
            round=st.integers(0, 3),
            run_values=st.lists(st.integers(-3, 50), max_size=4),
            run_lengths=st.lists(st.integers(-1, 4), max_size=4),
        ),
        max_size=12,
    ),
)
def test_a_machine_that_lies_takes_nothing_from_the_others(
    said: list[transmission_service_pb2.ReceiveRequest], aimed: list[transmission_service_pb2.DeficitReport]
) -> None:
    image = make_image(21, 200_000, chunk_bytes=8192)
    pair = Pair(image, GEOMETRY, receivers=3)
    liar, *honest = pair.receivers
    pair.join_all()
    assert liar.memory is not None
    liar.memory.reception.end_pass = lambda pass_number: None  # it says what it is made to say, and nothing else
    controller = RateController(RatePolicy(), link_bits_per_second=10**9, datagram_bits=4600)
    for seat in (1, 2, 3):
        controller.join(seat, 0, pair.now)
    lies = iter([*said, *(transmission_service_pb2.ReceiveRequest(deficits=report) for report in aimed)])

    def told_a_lie() -> bool:
        if (message := next(lies, None)) is not None:
            with suppress(FleetcastError, RunsError):
                tell(pair, controller, liar.seat, message)
        return all(receiver.complete for receiver in honest)

    assert pair.run(60, told_a_lie)
    assert pair.run(40, lambda: pair.sender_idle)
    for receiver in honest:
        assert receiver.memory is not None
        assert bytes(receiver.memory.content) == image.content


def tell(pair: Pair, controller: RateController, seat: int, message: transmission_service_pb2.ReceiveRequest) -> None:
    """Hand in what a machine says, as its stream and the pump do."""
    chunk_count = pair.image.manifest.chunk_count
    match message.WhichOneof("message"):
        case "report":
            controller.report(seat, convert.reception_of(message.report), pair.sent_datagrams, pair.now)
            controller.update(pair.sent_datagrams, pair.now, 0.05)
            assert np.isfinite(controller.rate)
            controller.may_send(pair.sent_datagrams, pair.now)
            assert controller.lag_seconds(pair.now) >= 0
        case "deficits":
            report = message.deficits
            if not getattr(report, "pass"):
                setattr(report, "pass", pair.engine.pass_number % 65536)
            pair.engine.deficits(seat, convert.deficits_of(report), pair.now)
        case "holding":
            pair.engine.holding(seat, convert.holding_of(message.holding, chunk_count), pair.now)
        case "ready":
            pair.engine.ready(seat, pair.now)
        case "done":
            pair.engine.done(seat, pair.now)


def test_a_machine_that_cannot_take_the_datagrams_is_told_apart_from_one_that_wants_none() -> None:
    small = transmission_service_pb2.ReceiverJoin(max_payload_bytes=500)
    unwilling = transmission_service_pb2.ReceiverJoin(unicast_only=True)
    reasons = [convert.join_of(message, "machines/a", CHUNKS).unicast_reason for message in (small, unwilling)]
    assert reasons == [UnicastReason.LIMITS, UnicastReason.NO_MULTICAST]


def test_every_reason_for_unicast_has_its_value_in_the_report() -> None:
    groups = convert.unicast_messages({reason: ["machines/a", "machines/b"] for reason in UnicastReason})
    assert len({group.reason for group in groups}) == len(UnicastReason)
    assert {group.machine_count for group in groups} == {2}
