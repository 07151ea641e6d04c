from __future__ import annotations

import contextlib
from datetime import UTC, datetime

import pytest
from fleetcast_kit.errors import InvalidArgumentError
from fleetcast_scheduler.calendar.recurrence import Recurrence, parse_rule
from hypothesis import given
from hypothesis import strategies as st


def recurrence(rule: str, first: str, time_zone: str = "Europe/Berlin") -> Recurrence:
    return Recurrence(rule, time_zone, datetime.fromisoformat(first))


def in_utc(recurrence: Recurrence, count: int) -> list[str]:
    found, local = [], recurrence.first
    for _ in range(count):
        found.append(datetime.fromtimestamp(recurrence.instant(local), UTC).strftime("%m-%d %H:%M"))
        following = recurrence.next_after(local)
        if following is None:
            break
        local = following
    return found


def test_two_in_the_morning_stays_two_on_the_clock_when_summer_begins() -> None:
    assert in_utc(recurrence("FREQ=DAILY", "2027-03-27T02:00"), 3) == ["03-27 01:00", "03-28 01:00", "03-29 00:00"]


def test_a_time_that_summer_skips_comes_an_hour_later_on_the_clock() -> None:
    assert in_utc(recurrence("FREQ=DAILY", "2027-03-27T02:30"), 3) == ["03-27 01:30", "03-28 01:30", "03-29 00:30"]


def test_a_time_that_winter_repeats_counts_once_the_first_time() -> None:
    nights = recurrence("FREQ=DAILY", "2027-10-30T02:30")
    assert in_utc(nights, 3) == ["10-30 00:30", "10-31 00:30", "11-01 01:30"]


def test_what_the_clock_says_is_known_on_both_sides_of_a_change() -> None:
    nights = recurrence("FREQ=DAILY", "2027-03-27T02:00")
    assert nights.local(nights.instant(datetime(2027, 3, 29, 2))) == datetime(2027, 3, 29, 2)


def test_weekdays_are_those_of_the_clock_and_not_of_utc() -> None:
    # Monday 00:30 in Berlin is Sunday in UTC.
    mondays = recurrence("FREQ=WEEKLY;BYDAY=MO", "2027-01-04T00:30")
    assert in_utc(mondays, 3) == ["01-03 23:30", "01-10 23:30", "01-17 23:30"]


def test_a_count_counts_from_the_first_and_then_there_is_none() -> None:
    thrice = recurrence("FREQ=DAILY;COUNT=3", "2027-01-01T02:00")
    assert len(in_utc(thrice, 10)) == 3
    assert thrice.next_after(datetime(2027, 1, 3, 2)) is None


def test_an_end_in_utc_is_an_instant() -> None:
    until = recurrence("FREQ=DAILY;UNTIL=20270703T000000Z", "2027-07-01T02:00")
    assert in_utc(until, 10) == ["07-01 00:00", "07-02 00:00", "07-03 00:00"]


def test_the_last_of_those_that_passed_is_found() -> None:
    nights = recurrence("FREQ=DAILY", "2027-01-01T02:00")
    assert nights.last_between(datetime(2027, 1, 1, 2), datetime(2027, 1, 5, 1)) == datetime(2027, 1, 4, 2)
    assert nights.last_between(datetime(2027, 1, 4, 2), datetime(2027, 1, 5, 1)) is None


def test_what_never_comes_is_found_to_be_none() -> None:
    never = recurrence("FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30", "2027-01-01T02:00")
    assert never.next_after(never.first) is None


@pytest.mark.parametrize(
    ("rule", "sentence"),
    [
        ("", "is no recurrence rule"),
        ("every day", "NAME=VALUE"),
        ("FREQ=HOURLY", "FREQ must be one of"),
        ("FREQ=DAILY;INTERVAL=0", "1 or more"),
        ("FREQ=DAILY;COUNT=2;UNTIL=20270101T000000", "exclude each other"),
        ("FREQ=DAILY;UNTIL=20271301T000000Z", "is no recurrence rule"),
        ("FREQ=DAILY;BYDAY=XX", "invalid"),
        ("FREQ=DAILY;BYHOUR=25", "is no recurrence rule"),
        ("DTSTART:20270101T000000;FREQ=DAILY", "is no recurrence rule"),
        ("FREQ=DAILY\nRDATE:20270101T000000", "NAME=VALUE"),
        ("FREQ=DAILY;" * 100, "NAME=VALUE"),
    ],
)
def test_what_is_no_rule_is_refused_in_one_sentence(rule: str, sentence: str) -> None:
    with pytest.raises(InvalidArgumentError, match=sentence):
        parse_rule(rule)


NAMES = ["INTERVAL", "COUNT", "UNTIL", "BYDAY", "BYMONTH", "BYMONTHDAY", "BYSETPOS", "BYYEARDAY", "WKST", "X"]
VALUES = ["MO", "-1FR", "0", "31", "366", "20261231T230000Z", "00010101T000000Z", "99991231T235959Z", "20261301"]
PARTS = st.builds(
    "{}={}".format,
    st.sampled_from(NAMES),
    st.sampled_from(VALUES) | st.integers(-400, 400).map(str) | st.text("0123456789MOTUWE,+-TZ:;=", max_size=12),
)
RULES = st.text(max_size=60) | st.builds(
    lambda frequency, parts: ";".join([f"FREQ={frequency}", *parts]),
    st.sampled_from(["DAILY", "WEEKLY", "MONTHLY", "YEARLY", "HOURLY"]),
    st.lists(PARTS, max_size=4),
)


@given(RULES, st.sampled_from(["", "Europe/Berlin", "Pacific/Kiritimati", "America/New_York"]))
def test_no_text_raises_anything_but_the_error_of_the_kit(text: str, zone: str) -> None:
    with contextlib.suppress(InvalidArgumentError):
        parse_rule(text, zone)
