from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from fleetcast.scheduler.v1.session_pb2 import AdmissionRules, Session, SlowPolicy, StartRules
from fleetcast_cli.sessions.flags import SessionFlags, recurrence_zone
from fleetcast_cli.sessions.policies import (
    AtEnd,
    Late,
    Match,
    format_end,
    format_late_policy,
    format_rate_policy,
    format_slow_policy,
    format_start_rules,
    parse_slow_policy,
)
from fleetcast_cli.shell.instants import Clock
from fleetcast_kit.errors import InvalidArgumentError

CLOCK = Clock(datetime(2026, 11, 23, 3, 40, tzinfo=UTC), ZoneInfo("Europe/Berlin"))


@pytest.fixture(autouse=True)
def _in_berlin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")


def apply(**flags: Any) -> tuple[Session, list[str]]:
    session = Session()
    return session, SessionFlags(**flags).apply(session, CLOCK)


def refused(**flags: Any) -> str:
    with pytest.raises(InvalidArgumentError) as caught:
        apply(**flags)
    return caught.value.message


def test_nothing_given_changes_nothing() -> None:
    assert apply() == (Session(), [])


def test_every_flag_sets_its_field_and_names_it() -> None:
    session, paths = apply(
        min_clients=30,
        start_delay="10m",
        quiet_time="2m",
        start_at="2026-12-01 02:00",
        manual=True,
        match=Match.ALL,
        late=Late.NEXT,
        until="2026-12-01 06:00",
        at_end=AtEnd.STOP,
        max_machines=50,
        rate="500M",
        max_rate="1G",
        daily_ceiling=["08:00-18:00=200M", "22:00-24:00=50M@UTC"],
        priority=-5,
        slow_policy="unicast:50M",
        site="north",
    )
    assert paths == [
        "start_rules.min_clients",
        "start_rules.start_delay",
        "start_rules.quiet_time",
        "start_rules.start_time",
        "start_rules.manual",
        "start_rules.match",
        "admission.late_policy",
        "admission.until_time",
        "admission.end_policy",
        "admission.max_participants",
        "rate.fixed_bits_per_second",
        "rate.ceiling_bits_per_second",
        "rate.daily_ceilings",
        "priority",
        "slow_policy",
        "site",
    ]
    rules, admission = session.start_rules, session.admission
    assert (rules.min_clients, rules.start_delay.seconds, rules.quiet_time.seconds) == (30, 600, 120)
    assert rules.start_time.ToJsonString() == "2026-12-01T01:00:00Z"
    assert (rules.manual, rules.match) == (True, StartRules.MATCH_ALL)
    assert admission.until_time.ToJsonString() == "2026-12-01T05:00:00Z"
    assert admission.late_policy == AdmissionRules.LATE_POLICY_NEXT_RUN
    assert admission.end_policy == AdmissionRules.END_POLICY_STOP
    assert admission.max_participants == 50
    first, second = session.rate.daily_ceilings
    assert (first.start_minute, first.end_minute, first.time_zone) == (480, 1080, "Europe/Berlin")
    assert (second.start_minute, second.end_minute, second.time_zone) == (1320, 1440, "UTC")
    assert session.slow_policy == SlowPolicy(action=SlowPolicy.ACTION_UNICAST, threshold_bits_per_second=50_000_000)
    assert (session.priority, session.site) == (-5, "north")


def test_what_was_set_is_shown_unambiguously() -> None:
    session, _ = apply(
        start_when="30 machines or at 2026-12-01 02:00",
        until="2026-12-01 06:00",
        at_end=AtEnd.STOP,
        late=Late.REFUSE,
        max_rate="1G",
        daily_ceiling=["08:00-18:00=200M"],
        slow_policy="separate",
    )
    shown = format_start_rules(session.start_rules)
    assert shown.startswith("30 machines or at Tue 2026-12-01 02:00 +01:00 Europe/Berlin = 2026-12-01 01:00 UTC, ")
    assert "06:00 +01:00" in format_end(session.admission)
    assert "stopped" in format_end(session.admission)
    assert format_late_policy(session.admission) == "are refused"
    assert format_rate_policy(session.rate) == "auto, at most 1 Gbit/s, at most 200 Mbit/s 08:00-18:00 Europe/Berlin"
    assert format_slow_policy(session.slow_policy) == "get a transmission of their own"
    assert format_slow_policy(parse_slow_policy("unicast:50M")) == "go on by unicast below 50 Mbit/s"
    assert format_slow_policy(SlowPolicy()) == format_end(AdmissionRules()) == ""


def test_none_and_zero_clear_what_is_set() -> None:
    session, paths = apply(
        start_delay="0",
        start_at="none",
        until="none",
        max_rate="none",
        rate="auto",
        daily_ceiling=["none"],
        min_clients=0,
    )
    assert len(paths) == 7
    assert not session.start_rules.HasField("start_delay")
    assert not session.start_rules.HasField("start_time")
    assert not session.admission.HasField("until_time")
    assert not session.rate.daily_ceilings


def test_an_expression_and_flags_cannot_both_say_when_it_starts() -> None:
    assert apply(start_when="manual")[1] == ["start_rules"]
    assert "--start-when and --min-clients" in refused(start_when="manual", min_clients=3)


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ({"until": "2026-11-23 04:00"}, "is in the past, 40 min ago"),
        ({"start_at": "2020-01-01 00:00"}, "is in the past"),
        ({"until": "soon"}, "'soon' is not a time"),
        ({"rate": "fast"}, "'fast' is not a rate"),
        ({"max_rate": "0"}, "is not between"),
        ({"slow_policy": "punish"}, "'punish' is not a slow policy: write keep, unicast, separate, disconnect"),
        ({"slow_policy": "unicast:slow"}, "'slow' is not a rate"),
        ({"daily_ceiling": ["8-18=200M"]}, "is not a daily ceiling"),
        ({"daily_ceiling": ["08:00-08:00=200M"]}, "differ"),
        ({"daily_ceiling": ["08:00-25:00=200M"]}, "00:00 to 24:00"),
        ({"daily_ceiling": ["08:00-18:00=much"]}, "is not a rate"),
        ({"start_delay": "soon"}, "'soon' is not a duration"),
    ],
)
def test_bad_values_are_refused_with_the_value_and_what_to_write(flags: dict[str, Any], complaint: str) -> None:
    assert complaint in refused(**flags)


def test_a_recurrence_goes_by_the_local_clock_unless_told_otherwise() -> None:
    assert recurrence_zone("daily", "") == "Europe/Berlin"
    assert recurrence_zone("daily", "UTC") == "UTC"
    assert recurrence_zone("", "") == ""
    with pytest.raises(InvalidArgumentError, match="without a rule"):
        recurrence_zone("", "UTC")
