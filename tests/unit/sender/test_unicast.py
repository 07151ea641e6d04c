import pytest
from fleetcast_sender.rate import RatePolicy
from fleetcast_sender.unicast import unicast_limit

MIB = 1 << 20


def test_alone_only_the_operator_limits_unicast() -> None:
    assert unicast_limit(RatePolicy(), 0, 5, MIB) == 0
    assert unicast_limit(RatePolicy(ceiling_bits_per_second=300), 0, 5, MIB) == 300
    assert unicast_limit(RatePolicy(fixed_bits_per_second=200, ceiling_bits_per_second=300), 0, 5, MIB) == 200


def test_beside_a_group_unicast_takes_a_twentieth_of_what_it_gets() -> None:
    assert unicast_limit(RatePolicy(), 1_000_000_000, 1, MIB) == 50_000_000
    assert unicast_limit(RatePolicy(ceiling_bits_per_second=40_000_000), 1_000_000_000, 1, MIB) == 40_000_000


@pytest.mark.parametrize("apart_count", [1, 40, 1000])
def test_everybody_apart_gets_a_chunk_before_it_gives_up(apart_count: int) -> None:
    limit = unicast_limit(RatePolicy(), 100_000_000, apart_count, 4 * MIB)
    assert apart_count * 4 * MIB * 8 / limit <= 7


def test_a_chunk_never_waits_for_long_however_little_the_group_is_sent() -> None:
    assert unicast_limit(RatePolicy(), 1, 0, 1 << 20) >= (1 << 20) * 8 / 5
