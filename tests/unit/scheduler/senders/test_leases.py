from __future__ import annotations

from fleetcast_scheduler.senders.domain.sender import choose_lease
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.scheduler.sessions.actors import registration


def test_a_group_that_nobody_uses_comes_first() -> None:
    offer = registration(last_group="239.192.0.1", last_port=7501)
    first = choose_lease(offer, set(), "a")
    assert first is not None
    second = choose_lease(offer, {first}, "a")
    assert second is not None
    assert first[0] != second[0]


@given(groups=st.integers(1, 4), ports=st.integers(1, 4), seeds=st.lists(st.text(max_size=8), min_size=1, max_size=20))
def test_leases_are_unique_until_the_range_is_used_up(groups: int, ports: int, seeds: list[str]) -> None:
    offer = registration(last_group=f"239.192.0.{groups - 1}", last_port=7500 + ports - 1)
    taken: set[tuple[str, int]] = set()
    for seed in seeds:
        lease = choose_lease(offer, taken, seed)
        if lease is None:
            assert len(taken) == groups * ports
        else:
            assert lease not in taken
            taken.add(lease)
    assert len(taken) == min(groups * ports, len(seeds))


def test_leases_of_others_in_the_same_range_are_avoided() -> None:
    offer = registration(last_group="239.192.0.0", last_port=7500)
    assert choose_lease(offer, {("239.192.0.0", 7500)}, "x") is None
    assert choose_lease(offer, {("239.192.0.9", 7500)}, "x") == ("239.192.0.0", 7500)


def test_groups_of_ipv6_work_alike() -> None:
    offer = registration(first_group="ff05::1:0", last_group="ff05::1:ffff")
    lease = choose_lease(offer, set(), "x")
    assert lease is not None
    assert lease[0].startswith("ff05::1:")
