from fleetcast_sender.engine.policy import SlowPolicy
from fleetcast_sender.engine.rate import RatePolicy

from tests.unit.sender.engine.network_model import NetworkModel


def slow_machines(threshold_bits_per_second: int) -> frozenset[int]:
    model = NetworkModel([9] * 4, port_speeds=[0.6, 2, 2, 2], policy=RatePolicy(fixed_bits_per_second=1_000_000_000))
    model.controller.slowness.policy = SlowPolicy(bits_per_second=threshold_bits_per_second)
    model.run(10)
    return model.controller.slowness.seats


def test_a_machine_below_the_rate_that_the_session_wants_is_slow() -> None:
    assert slow_machines(700_000_000) == {0}


def test_a_machine_above_that_rate_is_not_slow_whatever_the_others_take() -> None:
    assert slow_machines(100_000_000) == frozenset()


def test_nobody_is_slow_who_takes_what_the_others_take() -> None:
    assert slow_machines(9_000_000_000) == {0}, "below it are all"
