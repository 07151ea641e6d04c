import numpy as np
import pytest
from fleetcast_sender.engine.policy import TransmissionPolicy
from fleetcast_wire.geometry import Geometry
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.examples import examples
from tests.support.lossy import Bursts, Impairment
from tests.unit.agent.receiving.transmitting import make_image
from tests.unit.dataplane.pairing import Pair, PairReceiver

SMALL = Geometry(512, codeword_symbols=40, window_codewords=4, parity_symbols=32, codec="leopard-rs16")
PLAIN = Geometry(512, codeword_symbols=40, window_codewords=4)


def test_everybody_gets_an_image_in_one_pass_without_loss_and_without_repair() -> None:
    pair = Pair(make_image(1, 600_000), SMALL, receivers=3)
    pair.join_all()
    assert pair.run(20)
    assert pair.engine.totals.pass_count == 1
    assert pair.engine.totals.repair_symbol_count == 0


@pytest.mark.parametrize("geometry", [SMALL, PLAIN])
@pytest.mark.parametrize("loss", [0.01, 0.05])
def test_loss_is_repaired_within_the_pass(geometry: Geometry, loss: float) -> None:
    pair = Pair(make_image(2, 900_000), geometry, receivers=3, impairment=Impairment(loss=loss))
    pair.join_all()
    assert pair.run(30)
    assert pair.engine.totals.pass_count == 1
    assert 0 < pair.engine.totals.repair_symbol_count < 0.4 * pair.engine.totals.source_symbol_count


def test_parity_costs_less_than_repeating_what_anybody_lost() -> None:
    image = make_image(3, 1_500_000)
    repaired = []
    for geometry in (SMALL, PLAIN):
        pair = Pair(image, geometry, receivers=8, impairment=Impairment(loss=0.03))
        pair.join_all()
        assert pair.run(60)
        repaired.append(pair.engine.totals.repair_symbol_count)
    assert repaired[0] < 0.7 * repaired[1]


def test_a_late_joiner_collects_from_the_running_pass_and_the_next_brings_only_the_rest() -> None:
    pair = Pair(make_image(4, 2_000_000), SMALL, receivers=2)
    first, late = pair.receivers
    pair.join(first)
    pair.run_to(0.5)
    pair.join(late)
    assert pair.run(20)
    # Beyond what the late one missed, only the windows and chunks that it met in the middle are sent again.
    chunk_symbols = pair.image.manifest.chunk_size_bytes // 512
    assert pair.engine.totals.source_symbol_count <= 1.5 * pair.image_symbols + SMALL.window_symbols + 3 * chunk_symbols


def test_a_joiner_that_holds_a_part_gets_only_the_rest() -> None:
    pair = Pair(make_image(5, 900_000), SMALL)
    receiver = pair.receivers[0]
    half = pair.image.manifest.chunk_count // 2
    receiver.held[:half] = True
    pair.join(receiver)
    assert receiver.memory is not None
    receiver.memory.content[: half * pair.image.manifest.chunk_size_bytes] = pair.image.content[
        : half * pair.image.manifest.chunk_size_bytes
    ]
    assert pair.run(20)
    lacking = sum(len(stored) for stored in pair.image.stored[half:])
    assert pair.engine.totals.source_symbol_count <= lacking // 512 + 1


def test_a_receiver_that_stops_delays_nobody_and_is_forgotten_and_comes_back() -> None:
    pair = Pair(make_image(6, 1_500_000), SMALL, receivers=3, impairment=Impairment(loss=0.02))
    stopped = pair.receivers[0]
    pair.join_all()
    pair.run_to(0.5)
    stopped.stalled = True
    began = pair.now
    assert pair.run(20, lambda: all(receiver.complete for receiver in pair.receivers[1:]))
    alone = Pair(make_image(6, 1_500_000), SMALL, receivers=2, impairment=Impairment(loss=0.02))
    alone.join_all()
    alone.run_to(0.5)
    alone_began = alone.now
    assert alone.run(20)
    assert pair.now - began < (alone.now - alone_began) + 1
    assert pair.run(20, lambda: pair.engine.participant_count == 2)
    assert pair.run(5, lambda: pair.sender_idle)
    stopped.stalled = False
    pair.run(0.1, lambda: False)
    assert "nothing was heard" in stopped.dismissed
    pair.join(stopped)
    assert pair.run(30)


def test_a_partition_of_seconds_is_survived() -> None:
    image = make_image(7, 1_500_000)
    pair = Pair(image, SMALL, receivers=2, impairment=Impairment(partitions=((100.25, 102.5),)))
    pair.join_all()
    assert pair.run(60)


def test_a_sender_that_restarts_sends_only_what_is_still_lacking() -> None:
    pair = Pair(make_image(8, 1_500_000), SMALL, receivers=2, impairment=Impairment(loss=0.01))
    pair.join_all()
    pair.run_to(0.5)
    sent = pair.engine.totals.source_symbol_count
    pair.restart_sender()
    pair.join_all()
    assert pair.run(30)
    assert pair.engine.totals.source_symbol_count < pair.image_symbols - sent + 3 * SMALL.window_symbols


def test_a_receiver_that_restarts_loses_nothing_that_it_holds() -> None:
    pair = Pair(make_image(9, 1_500_000), SMALL, receivers=2)
    pair.join_all()
    pair.run_to(0.5)
    restarted = pair.receivers[0]
    pair.leave(restarted)
    pair.run(0.2, lambda: False)
    pair.join(restarted)
    assert pair.run(30)


def test_a_lone_receiver_is_served_by_unicast_slice_by_slice() -> None:
    policy = TransmissionPolicy(unicast_slice_bytes=100_000, unicast_total_bytes=0)
    pair = Pair(make_image(10, 900_000), SMALL, policy=policy)
    pair.join_all()
    assert pair.run(20)
    assert pair.engine.totals.pass_count == 0
    assert pair.receivers[0].unicast_chunks > 0


def test_a_second_receiver_turns_unicast_into_a_pass() -> None:
    policy = TransmissionPolicy(unicast_slice_bytes=10_000, unicast_total_bytes=0)
    pair = Pair(make_image(11, 900_000), SMALL, receivers=2, policy=policy)
    pair.join(pair.receivers[0])
    pair.run(0.02, lambda: False)
    pair.join(pair.receivers[1])
    assert pair.run(20)
    assert pair.engine.totals.pass_count >= 1


def test_a_receiver_that_takes_no_multicast_gets_everything_by_unicast() -> None:
    pair = Pair(make_image(12, 600_000), SMALL, receivers=3)
    pair.receivers[1].unicast_only = True
    pair.join_all()
    assert pair.run(20)
    assert pair.receivers[1].unicast_chunks > 0
    assert pair.receivers[0].unicast_chunks == 0


def test_nobody_left_means_nothing_sent() -> None:
    pair = Pair(make_image(13, 1_500_000), SMALL, receivers=2)
    pair.join_all()
    pair.run_to(0.5)
    for receiver in pair.receivers:
        pair.leave(receiver)
    pair.run(1, lambda: pair.sender_idle)
    sent = pair.sent_datagrams
    pair.run(3, lambda: False)
    assert pair.sent_datagrams - sent <= 2
    assert pair.sender_idle


def test_when_all_fall_silent_at_once_the_sender_stops_within_seconds() -> None:
    pair = Pair(make_image(14, 6_000_000), SMALL, receivers=2)
    pair.join_all()
    pair.run_to(0.5)
    for receiver in pair.receivers:
        receiver.stalled = True
    pair.run(1.5, lambda: False)
    sent = pair.engine.totals.source_symbol_count
    pair.run(8, lambda: False)
    assert pair.engine.totals.source_symbol_count == sent
    assert pair.engine.participant_count == 0
    assert pair.sender_idle


IMPAIRMENTS = st.builds(
    Impairment,
    loss=st.sampled_from([0.0, 0.01, 0.05, 0.15, 0.4, 1.0]),
    bursts=st.sampled_from([None, Bursts(0.01, 20), Bursts(0.02, 60)]),
    duplication=st.sampled_from([0.0, 0.05]),
    reordering=st.sampled_from([0.0, 0.1]),
    corruption=st.sampled_from([0.0, 0.01]),
    partitions=st.sampled_from([(), ((100.1, 100.4),), ((100.3, 101.8),), ((100.05, 104.0), (104.5, 107.0))]),
)
INCIDENTS = st.lists(
    st.tuples(
        st.sampled_from([0.02, 0.1, 0.3]),
        st.sampled_from(["sender restarts", "receiver restarts", "receiver comes back empty", "stall", "long stall"]),
        st.integers(0, 2),
    ),
    max_size=4,
)
"""What happens, how many seconds after what happened before, and to which receiver."""


@settings(max_examples=examples(25), suppress_health_check=[HealthCheck.too_slow])
@given(
    impairment=IMPAIRMENTS,
    seed=st.integers(1, 1_000_000),
    geometry=st.sampled_from([SMALL, PLAIN, Geometry(512, codeword_symbols=64, window_codewords=1)]),
    incidents=INCIDENTS,
    unicast=st.booleans(),
)
def test_whatever_the_link_does_everybody_ends_with_the_exact_bytes_and_the_sender_ends(
    impairment: Impairment, seed: int, geometry: Geometry, incidents: list[tuple[float, str, int]], unicast: bool
) -> None:
    policy = TransmissionPolicy(
        unicast_receiver_count=int(unicast), unicast_total_bytes=20_000, start_grace_seconds=0.2
    )
    pair = Pair(
        make_image(seed % 1000, 300_000, chunk_bytes=8192),
        geometry,
        receivers=3,
        impairment=impairment,
        seed=seed,
        policy=policy,
    )
    pair.join_all()
    for seconds, incident, index in incidents:
        pair.run(seconds, pair.let_dismissed_join)
        befall(pair, incident, pair.receivers[index])
    assert pair.run(120, pair.let_dismissed_join), [(r.complete, r.dismissed) for r in pair.receivers]
    assert pair.run(8, lambda: pair.sender_idle and not pair.engine.lacking)
    for receiver in pair.receivers:
        assert receiver.memory is not None
        assert bytes(receiver.memory.content) == pair.image.content
        assert not np.any(receiver.memory.wanted)


def befall(pair: Pair, incident: str, receiver: PairReceiver) -> None:
    match incident:
        case "sender restarts":
            pair.restart_sender()
            pair.run(0.05, lambda: False)
            pair.join_all()
        case "receiver restarts" | "receiver comes back empty":
            pair.leave(receiver)
            pair.run(0.05, lambda: False)
            if incident == "receiver comes back empty":
                receiver.lose_everything()
            pair.join(receiver)
        case "stall" | "long stall":
            receiver.stalled = True
            pair.run(0.5 if incident == "stall" else 6.0, lambda: False)
            receiver.stalled = False


def test_a_receiver_that_lives_and_does_not_answer_is_served_by_unicast() -> None:
    policy = TransmissionPolicy(unicast_receiver_count=0, start_grace_seconds=0.2, answer_seconds=1.0)
    pair = Pair(make_image(15, 600_000), SMALL, receivers=2, policy=policy)
    mute = pair.receivers[0]
    pair.join_all()
    pair.run_to(0.3)
    assert mute.memory is not None
    mute.memory.reception.end_pass = lambda pass_number: None
    mute.link.impairment = Impairment(loss=0.9)
    assert pair.run(30)
    assert mute.unicast_chunks > 0
