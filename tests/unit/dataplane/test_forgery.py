"""A member with the key of its transmission forges any field of any datagram: the others end right, and in time."""

import pytest
from fleetcast_wire.geometry import Geometry
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.support.examples import examples
from tests.support.lossy import Impairment
from tests.unit.agent.receiving.transmitting import make_image
from tests.unit.dataplane.forger import ALL_WAYS, Forger
from tests.unit.dataplane.pairing import Pair

GEOMETRY = Geometry(512, codeword_symbols=80, window_codewords=4, parity_symbols=64, codec="leopard-rs16")
IMAGE = make_image(3, 3_000_000, chunk_bytes=16384)


PASS_SECONDS = 0.3
"""What another pass takes, however short: what was forged before the first forgery was noticed may need one."""


def cost(*, loss: float, seed: int, ways: list[str], share: float, ahead: bool) -> tuple[float, int]:
    """Returns in how many seconds and datagrams of the sender three machines have the exact bytes beside a forger."""
    pair = Pair(IMAGE, GEOMETRY, receivers=3, impairment=Impairment(loss=loss), seed=seed, ring=8)
    if ways:
        pair.forge = Forger(pair.keys.public, seed, ways, share=share, ahead=ahead)
    pair.join_all()
    began = pair.now
    assert pair.run(60), [(receiver.complete, receiver.dismissed) for receiver in pair.receivers]
    for receiver in pair.receivers:
        assert receiver.memory is not None
        assert bytes(receiver.memory.content) == IMAGE.content
    return pair.now - began, pair.sent_datagrams


def assert_in_time(*, loss: float, seed: int, ways: list[str], share: float, ahead: bool) -> None:
    usual_seconds, usual_datagrams = cost(loss=loss, seed=seed, ways=[], share=0, ahead=False)
    seconds, datagrams = cost(loss=loss, seed=seed, ways=ways, share=share, ahead=ahead)
    assert seconds <= 1.2 * usual_seconds + PASS_SECONDS
    assert datagrams <= 1.2 * usual_datagrams


@pytest.mark.parametrize("way", ALL_WAYS)
@pytest.mark.parametrize("loss", [0.0, 0.01])
def test_no_way_of_forging_slows_the_others(way: str, loss: float) -> None:
    assert_in_time(loss=loss, seed=7, ways=[way], share=0.1, ahead=True)


@settings(max_examples=examples(8), suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    loss=st.sampled_from([0.0, 0.005, 0.02]),
    seed=st.integers(1, 1_000_000),
    ways=st.lists(st.sampled_from(ALL_WAYS), min_size=1, max_size=4, unique=True),
    share=st.sampled_from([0.002, 0.05, 0.5]),
    ahead=st.booleans(),
)
# Symbols of later windows that come first; marks by the thousand; parity that is sent again.
@example(loss=0.02, seed=303, ways=["other window"], share=0.5, ahead=False)
@example(loss=0.02, seed=1, ways=["mark"], share=0.5, ahead=True)
@example(loss=0.02, seed=1, ways=["mark"], share=0.5, ahead=False)
@example(loss=0.02, seed=31849, ways=["replay", "other body"], share=0.5, ahead=True)
def test_whatever_a_member_forges_the_others_end_right_and_in_time(
    loss: float, seed: int, ways: list[str], share: float, ahead: bool
) -> None:
    assert_in_time(loss=loss, seed=seed, ways=ways, share=share, ahead=ahead)
