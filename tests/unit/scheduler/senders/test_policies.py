from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from fleetcast_scheduler.senders.domain.policies import DailyCeiling, RatePolicy
from hypothesis import given
from hypothesis import strategies as st

BERLIN = "Europe/Berlin"


def at(text: str, zone: str = BERLIN) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


def test_a_daily_ceiling_holds_between_its_times_only() -> None:
    office = DailyCeiling(8 * 60, 18 * 60, BERLIN, 100)
    rate = RatePolicy(0, 1000, (office,))
    assert rate.at(at("2027-03-01 07:59")).ceiling_bits_per_second == 1000
    assert rate.at(at("2027-03-01 08:00")).ceiling_bits_per_second == 100
    assert rate.at(at("2027-03-01 17:59")).ceiling_bits_per_second == 100
    assert rate.at(at("2027-03-01 18:00")).ceiling_bits_per_second == 1000
    assert rate.next_change(at("2027-03-01 07:00")) == at("2027-03-01 08:00")
    assert rate.next_change(at("2027-03-01 08:00")) == at("2027-03-01 18:00")
    assert rate.next_change(at("2027-03-01 20:00")) == at("2027-03-02 08:00")


def test_a_daily_ceiling_may_reach_over_midnight() -> None:
    night = DailyCeiling(22 * 60, 6 * 60, BERLIN, 100)
    assert night.holds(at("2027-03-01 23:00"))
    assert night.holds(at("2027-03-02 05:59"))
    assert not night.holds(at("2027-03-02 06:00"))


@pytest.mark.parametrize(
    ("now", "change"),
    [
        ("2027-03-27 20:00", "2027-03-28 08:00"),  # clocks go forward in the night between
        ("2027-10-30 20:00", "2027-10-31 08:00"),  # and back
    ],
)
def test_daily_ceilings_follow_the_wall_clock_across_daylight_saving(now: str, change: str) -> None:
    assert DailyCeiling(8 * 60, 18 * 60, BERLIN, 100).next_change(at(now)) == at(change)


@given(
    start=st.integers(0, 1439),
    end=st.integers(0, 1440),
    zone=st.sampled_from([BERLIN, "UTC", "America/New_York", "Asia/Kathmandu"]),
    now=st.floats(at("2027-01-01 00:00"), at("2028-01-01 00:00")),
)
def test_the_next_change_comes_within_two_days(start: int, end: int, zone: str, now: float) -> None:
    change = DailyCeiling(start, end, zone, 1).next_change(now)
    assert now < change < now + 2 * 86400
