from statistics import fmean

import pytest
from fleetcast_sender.engine.policy import SlowAction, SlowPolicy
from fleetcast_sender.engine.rate import RatePolicy

from tests.unit.sender.engine.network_model import STEP_SECONDS, NetworkModel


def swing(rates: list[float]) -> float:
    """Returns by how much the highest rate of half a second is above the lowest."""
    step = round(0.5 / STEP_SECONDS)
    means = [fmean(rates[start : start + step]) for start in range(0, len(rates) - step + 1, step)]
    return max(means) / min(means) - 1


def test_a_link_of_the_sender_that_is_the_bottleneck_is_filled() -> None:
    model = NetworkModel([9, 9, 9], own_speed=1)
    model.run(4)
    assert fmean(model.seen(0.5)) == pytest.approx(1, rel=0.02)


@pytest.mark.parametrize("loss", [0.01, 0.05])
def test_independent_loss_does_not_slow_the_sender(loss: float) -> None:
    model = NetworkModel([9, 9, 9], own_speed=1, loss=loss)
    model.run(4)
    assert fmean(model.seen(0.5)) == pytest.approx(1, rel=0.02)


def test_the_known_rate_of_the_link_is_never_exceeded() -> None:
    model = NetworkModel([9, 9], link_speed=1)
    model.run(3)
    assert max(model.seen(0)) <= 1
    assert min(model.seen(1)) == 1


@pytest.mark.parametrize(
    ("links", "start"),
    [([0.1, 1], 0.1), ([1, 1], 1), ([2.5, 10], 1.25), ([10, 10], 5), ([0, 10], 1), ([1e-9, 10], 0.005)],
)
def test_it_begins_with_what_the_slowest_link_of_a_receiver_suggests(links: list[float], start: float) -> None:
    assert NetworkModel([9, 9], host_links=links).controller.rate == pytest.approx(start * 1e9)


def test_a_start_that_is_too_fast_for_the_hosts_loses_nothing_and_settles() -> None:
    model = NetworkModel([1.1, 1.15, 1.2, 1.3], host_links=[10] * 4)
    model.run(8)
    assert 0.9 * 1.1 <= fmean(model.seen(1)) <= 1.1 * 1.05
    assert sum(model.overflows) == 0


def test_hosts_that_slow_down_for_a_moment_do_not_slow_the_sender_for_long() -> None:
    model = NetworkModel([1.2] * 4)
    model.run(6)
    model.hosts = [0.3] * 4
    model.run(0.6)
    model.hosts, recovered_at = [1.2] * 4, model.now
    model.run(1.25)
    assert fmean(model.seen(recovered_at + 0.25)) > 0.7 * 1.2
    assert sum(model.overflows) == 0


@pytest.mark.parametrize("lateness", [0.01, 0.1])
def test_hosts_that_are_the_bottleneck_are_followed_and_lose_almost_nothing(lateness: float) -> None:
    model = NetworkModel([1.1, 1.15, 1.2, 1.3], lateness_seconds=lateness)
    model.run(3)
    lost = sum(model.overflows)
    model.run(9)
    assert 0.9 * 1.1 <= fmean(model.seen(3)) <= 1.1 * 1.02
    assert swing(model.seen(3)) < 0.2
    assert sum(model.overflows) == lost == 0


def test_late_reports_alone_never_slow_the_sender() -> None:
    model = NetworkModel([9] * 8, own_speed=0.2, lateness_seconds=0.3)
    model.run(8)
    assert fmean(model.seen(1)) == pytest.approx(0.2, rel=0.05)


def test_a_switch_that_drops_above_its_rate_is_followed() -> None:
    model = NetworkModel([9, 9, 9], port_speeds=[1, 1, 1], own_speed=5)
    model.run(10)
    assert 0.7 < fmean(model.seen(2)) < 1.15


def test_one_slow_port_of_four_does_not_slow_the_others_and_is_named() -> None:
    model = NetworkModel([9] * 4, port_speeds=[0.1, 2, 2, 2], own_speed=3)
    model.run(10)
    assert fmean(model.seen(2)) > 1.5
    assert model.controller.slowness.seats == {0}


def test_one_slow_host_of_four_does_not_slow_the_others_and_is_named() -> None:
    model = NetworkModel([0.2, 2, 2, 2])
    model.run(10)
    assert fmean(model.seen(3)) > 1.7
    assert model.controller.slowness.seats == {0}


def test_a_host_that_becomes_slow_is_told_from_those_that_wait_for_it() -> None:
    model = NetworkModel([2, 2, 2, 2])
    model.run(4)
    model.hosts[0] = 0.6
    model.run(10)
    assert fmean(model.seen(9)) > 1.7
    assert model.controller.slowness.seats == {0}


def test_a_host_that_falls_silent_holds_the_others_up_for_less_than_a_second() -> None:
    model = NetworkModel([2, 2])
    model.run(4)
    model.hosts[0] = 0
    model.run(4)
    assert len([rate for rate in model.seen(4) if not rate]) * STEP_SECONDS < 1
    assert fmean(model.seen(6)) > 1.7


def test_the_policy_to_keep_slow_receivers_follows_them() -> None:
    model = NetworkModel([0.3, 2, 2, 2])
    model.controller.slowness.policy = SlowPolicy(SlowAction.KEEP)
    model.run(10)
    assert fmean(model.seen(5)) < 0.45


def test_a_fixed_rate_stays_and_a_ceiling_can_change_while_running() -> None:
    model = NetworkModel([9, 9], policy=RatePolicy(fixed_bits_per_second=400_000_000))
    model.run(1)
    assert set(model.seen(0)) == {0.4}
    model.controller.policy = RatePolicy(ceiling_bits_per_second=100_000_000)
    model.run(1)
    assert max(model.seen(1.01)) == 0.1
    model.controller.policy = RatePolicy()
    model.run(2)
    assert fmean(model.seen(3)) > 1


def test_a_host_that_recovers_is_made_use_of_again() -> None:
    model = NetworkModel([2, 2])
    model.run(5)
    model.hosts = [0.5, 0.5]
    model.run(5)
    assert fmean(model.seen(8)) < 0.65
    model.hosts = [2, 2]
    model.run(10)
    assert fmean(model.seen(18)) > 1


def test_a_host_that_stalls_for_a_moment_loses_nothing() -> None:
    model = NetworkModel([1.2, 1.25, 1.3])
    model.run(3)
    model.hosts[0] = 0
    model.run(0.4)
    model.hosts[0] = 1.2
    model.run(3)
    assert sum(model.overflows) == 0
    assert fmean(model.seen(5)) > 1


def test_hosts_are_followed_from_the_first_moment_whatever_the_clock_shows() -> None:
    model = NetworkModel([1.1, 1.2], starts_at=5000)
    model.run(6)
    assert sum(model.overflows) == 0
    assert fmean(model.seen(5003)) > 0.9 * 1.1


def test_hosts_that_all_stood_still_and_go_on_are_followed_again() -> None:
    model = NetworkModel([1.1, 1.2, 1.3])
    model.run(3)
    speeds, model.hosts = model.hosts, [0, 0, 0]
    model.run(1.5)
    model.hosts = speeds
    model.run(2)
    lost = sum(model.overflows)
    model.run(6)
    assert sum(model.overflows) == lost
    assert fmean(model.seen(8)) > 0.85 * 1.1
