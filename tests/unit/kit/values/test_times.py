"""Instants as people write them, across the changes of clocks."""

from datetime import UTC, datetime, time, timedelta
from functools import partial
from zoneinfo import ZoneInfo

import pytest
from fleetcast_kit.errors import InvalidArgumentError
from fleetcast_kit.values.times import local_zone, parse_time
from hypothesis import given
from hypothesis import strategies as st

from tests.support.refusals import refusal_of, takes_or_says_why

BERLIN = ZoneInfo("Europe/Berlin")
NOW = datetime(2026, 11, 23, 3, 40, tzinfo=UTC)  # a Monday, 04:40 in Berlin
ZONES = st.sampled_from(
    [
        BERLIN,
        ZoneInfo("America/New_York"),
        ZoneInfo("Australia/Lord_Howe"),  # its clocks change by half an hour
        ZoneInfo("America/Santiago"),  # at midnight
        ZoneInfo("Asia/Kathmandu"),
        ZoneInfo("UTC"),
    ]
)
INSTANTS = st.integers(
    int(datetime(2025, 1, 1, tzinfo=UTC).timestamp()), int(datetime(2030, 1, 1, tzinfo=UTC).timestamp())
).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))


def utc(text: str, zone: ZoneInfo = BERLIN, *, now: datetime = NOW, past: bool = False) -> str:
    return f"{parse_time(text, now=now, zone=zone, past=past).astimezone(UTC):%Y-%m-%d %H:%M:%S}"


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2026-12-01 02:00", "2026-12-01 01:00:00"),
        ("2026-12-01T02:00Z", "2026-12-01 02:00:00"),
        ("2026-12-01 02:00 UTC", "2026-12-01 02:00:00"),
        ("2026-12-01 02:00:30 +0530", "2026-11-30 20:30:30"),
        ("2026-12-01T02:00-05:00", "2026-12-01 07:00:00"),
        ("2026-12-01 02:00 America/New_York", "2026-12-01 07:00:00"),
        ("2026-12-01T01:00:00.000000Z", "2026-12-01 01:00:00"),
        ("tomorrow 2:00", "2026-11-24 01:00:00"),
        ("Tomorrow at 2:00", "2026-11-24 01:00:00"),
        ("today 02:00", "2026-11-23 01:00:00"),
        ("friday 18:00", "2026-11-27 17:00:00"),
        ("Mon 4:00", "2026-11-30 03:00:00"),
        ("monday 5:00", "2026-11-23 04:00:00"),
        ("+90m", "2026-11-23 05:10:00"),
        ("in 1h 30m", "2026-11-23 05:10:00"),
        ("-2h", "2026-11-23 01:40:00"),
        ("2h ago", "2026-11-23 01:40:00"),
        ("02:00", "2026-11-24 01:00:00"),
        ("05:00", "2026-11-23 04:00:00"),
        ("now", "2026-11-23 03:40:00"),
    ],
)
def test_times_are_read_as_people_write_them(text: str, instant: str) -> None:
    assert utc(text) == instant


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("02:00", "2026-11-23 01:00:00"),
        ("05:00", "2026-11-22 04:00:00"),
        ("friday 18:00", "2026-11-20 17:00:00"),
        ("monday 4:00", "2026-11-23 03:00:00"),
        ("monday 5:00", "2026-11-16 04:00:00"),
        ("yesterday 5:00", "2026-11-22 04:00:00"),
    ],
)
def test_in_the_past_the_last_such_time_is_meant(text: str, instant: str) -> None:
    assert utc(text, past=True) == instant


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "is not a time"),
        ("5", "is not a time"),
        ("friday", "is not a time"),
        ("2026-12-01", "is not a time"),
        ("next friday 18:00", "is not a time"),
        ("2026-02-30 01:00", "day"),
        ("24:00", "hour"),
        ("someday 1:00", "'someday' is not a day"),
        ("su 1:00", "'su' is not a day"),
        ("1066-10-14 09:00", "is not between 1970 and 2999"),
        ("1:00 Mars/Base", "'Mars/Base' is not a time zone"),
        ("1:00 +99:00", "a day or more"),
        ("+soon", "'+soon' is not a time"),
        ("long ago", "'long ago' is not a time"),
        ("+5x", "'5x' is not a duration"),
    ],
)
def test_what_is_no_time_is_refused_with_its_value(text: str, complaint: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        parse_time(text, now=NOW, zone=BERLIN, field="until")
    assert complaint in caught.value.message
    assert caught.value.field == "until"


def test_a_local_time_that_the_clocks_skip_is_refused() -> None:
    for text in ("2026-03-29 02:30", "2026-03-29 02:30 Europe/Berlin"):
        with pytest.raises(InvalidArgumentError, match="02:30 does not exist in Europe/Berlin"):
            utc(text)
    with pytest.raises(InvalidArgumentError, match="does not exist"):
        utc("02:30", now=datetime(2026, 3, 28, 12, tzinfo=UTC))
    assert utc("2026-03-29 02:30", ZoneInfo("Europe/London")) == "2026-03-29 01:30:00"


def test_a_local_time_that_comes_twice_is_refused_with_both_ways_to_write_it() -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        utc("2026-10-25 02:30")
    assert "comes twice in Europe/Berlin" in caught.value.message
    assert utc("2026-10-25T02:30+02:00") == "2026-10-25 00:30:00"
    assert utc("2026-10-25T02:30+01:00") == "2026-10-25 01:30:00"
    assert "2026-10-25T02:30+02:00 or 2026-10-25T02:30+01:00" in caught.value.message


def test_a_time_whose_first_coming_is_over_means_the_second() -> None:
    assert utc("02:30", now=datetime(2026, 10, 25, 0, 45, tzinfo=UTC)) == "2026-10-25 01:30:00"


def test_a_machines_own_clock_has_no_zone() -> None:
    shown = parse_time("tomorrow 2:30", now=NOW, zone=BERLIN, machine_clock=True)
    assert shown == datetime(2026, 11, 24, 2, 30)
    assert parse_time("2026-03-29 02:30", now=NOW, zone=BERLIN, machine_clock=True) == datetime(2026, 3, 29, 2, 30)
    for text in ("now", "+90m", "2026-12-01 02:00Z", "02:00 UTC"):
        with pytest.raises(InvalidArgumentError, match="machines' own clocks"):
            parse_time(text, now=NOW, zone=BERLIN, machine_clock=True)


@given(INSTANTS, ZONES)
def test_an_instant_with_its_offset_is_read_back_whatever_the_clocks_do(instant: datetime, zone: ZoneInfo) -> None:
    local = instant.astimezone(zone)
    for text in (local.isoformat(), f"{local:%Y-%m-%d %H:%M:%S %z}"):
        assert parse_time(text, now=NOW, zone=BERLIN) == instant


@given(INSTANTS, ZONES)
def test_a_local_time_without_offset_is_read_back_or_comes_twice(instant: datetime, zone: ZoneInfo) -> None:
    text = f"{instant.astimezone(zone):%Y-%m-%d %H:%M:%S}"
    refusal = refusal_of(lambda: parse_time(text, now=NOW, zone=zone))
    if refusal is None:
        assert parse_time(text, now=NOW, zone=zone) == instant
    else:
        assert "comes twice" in refusal.message
        wall = datetime.fromisoformat(text)
        assert wall.replace(tzinfo=zone).utcoffset() != wall.replace(tzinfo=zone, fold=1).utcoffset()


@given(INSTANTS, ZONES, st.times(), st.booleans())
def test_a_time_of_the_day_means_the_nearest_such_instant(
    instant: datetime, zone: ZoneInfo, clock: time, past: bool
) -> None:
    text = f"{clock:%H:%M}"
    refusal = refusal_of(lambda: parse_time(text, now=instant, zone=zone, past=past))
    if refusal is not None:
        assert "comes twice" in refusal.message or "does not exist" in refusal.message
        return
    found = parse_time(text, now=instant, zone=zone, past=past)
    assert f"{found.astimezone(zone):%H:%M}" == text
    assert found < instant if past else found > instant
    assert abs(found - instant) <= timedelta(hours=25, minutes=1)


@given(st.text() | st.from_regex(r"[a-z0-9: +:TZ-]{0,30}"), ZONES, st.booleans())
def test_no_text_raises_anything_but_the_error_of_the_kit(text: str, zone: ZoneInfo, flag: bool) -> None:
    for machine_clock in (False, True):
        read = partial(parse_time, text, now=NOW, zone=zone, past=flag, machine_clock=machine_clock)
        assert takes_or_says_why(read)


def test_the_local_zone_is_that_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    assert local_zone() == BERLIN
    monkeypatch.setenv("TZ", ":/usr/share/zoneinfo/Europe/Berlin")
    assert local_zone().key in ("Europe/Berlin", "UTC")  # UTC where the system has no such files
    monkeypatch.setenv("TZ", "CET-1CEST")
    with pytest.raises(InvalidArgumentError, match="'CET-1CEST' is not a time zone"):
        local_zone()
    monkeypatch.delenv("TZ")
    assert local_zone().utcoffset(NOW) is not None
