from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from fleetcast_cli.shell.text import (
    format_bytes,
    format_distance,
    format_instant,
    format_percent,
    format_seconds,
    format_time,
    output,
    plural,
    table,
)
from google.protobuf.timestamp_pb2 import Timestamp


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (1234, "1.23 kB"), (419_430_400, "419 MB"), (99_960_000, "100 MB"),
     (999_600_000, "1 GB"), (5.4e12, "5.4 TB")],
)  # fmt: skip
def test_sizes_have_three_digits(size_bytes: float, text: str) -> None:
    assert format_bytes(size_bytes) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.423, "0.42 s"), (12.4, "12 s"), (185, "3:05"), (3723, "1:02:03"), (59.6, "60 s")]
)
def test_durations_read_like_a_clock_from_a_minute_on(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


def test_a_hundred_percent_means_all_of_it() -> None:
    assert format_percent(999, 1000) == "99 %"
    assert format_percent(1000, 1000) == "100 %"
    assert format_percent(0, 0) == "-"


def test_no_time_is_a_dash() -> None:
    assert format_time(Timestamp()) == "-"
    assert format_time(Timestamp(seconds=1_764_554_400)).startswith("2025-12-01")


def test_plurals() -> None:
    assert (plural(1, "machine"), plural(2, "machine"), plural(3, "pass")) == ("1 machine", "2 machines", "3 passes")


@pytest.mark.parametrize(
    ("zone", "text"),
    [
        ("Europe/Berlin", "Tue 2026-12-01 00:30 +01:00 Europe/Berlin = 2026-11-30 23:30 UTC, in 6 h 12 min"),
        ("America/New_York", "Mon 2026-11-30 18:30 -05:00 America/New_York = 2026-11-30 23:30 UTC, in 6 h 12 min"),
        ("UTC", "Mon 2026-11-30 23:30 UTC, in 6 h 12 min"),
    ],
)
def test_an_instant_to_act_on_is_shown_in_every_way_that_matters(zone: str, text: str) -> None:
    instant = Timestamp(seconds=int(datetime(2026, 11, 30, 23, 30, tzinfo=UTC).timestamp()))
    now = datetime(2026, 11, 30, 17, 18, tzinfo=UTC)
    assert format_instant(instant, now=now, zone=ZoneInfo(zone)) == text
    assert format_instant(Timestamp()) == "-"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "now"),
        (40, "in 40 s"),
        (-40, "40 s ago"),
        (3600, "in 1 h"),
        (86400 + 7300, "in 1 day 2 h"),
        (-3 * 86400, "3 days ago"),
        (90061, "in 1 day 1 h"),
    ],
)
def test_distances_have_two_units_at_most(seconds: float, text: str) -> None:
    assert format_distance(timedelta(seconds=seconds)) == text


def test_what_machines_say_of_themselves_cannot_steer_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    rows = table("machine", "model")
    rows.add_row("pc\u202e1", "\x1b]0;owned\x07\x9b2J")
    output().print(rows)
    output().print("said \x1b[2J", "caf\udce9")
    shown = capsys.readouterr().out
    assert "pc\\u202e1" in shown
    assert "\\x1b]0;owned" in shown
    assert "\x1b]" not in shown
    assert "\x1b[2J" not in shown
    assert "\x9b" not in shown
    assert "caf\\xe9" in shown
