"""A session's rates and policies, as people write them and as they read them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum

from fleetcast.scheduler.v1.session_pb2 import AdmissionRules, DailyCeiling, RatePolicy, SlowPolicy, StartRules
from fleetcast_kit.errors import InvalidArgumentError
from fleetcast_kit.values.durations import format_duration
from fleetcast_kit.values.rates import format_rate, parse_rate
from fleetcast_kit.values.times import local_zone

from fleetcast_cli.shell.text import format_instant, format_time

NONE = "none"
"""What clears a value."""

_DAILY = re.compile(r"(\d{1,2}):(\d\d)\s*-\s*(\d{1,2}):(\d\d)\s*=\s*([^@]+)(?:@(.+))?", re.ASCII)


class Late(StrEnum):
    """What becomes of a machine that joins after the start."""

    JOIN = "join"
    NEXT = "next"
    REFUSE = "refuse"

    @property
    def message(self) -> AdmissionRules.LatePolicy.ValueType:
        """The enumerator that says so to the server."""
        return AdmissionRules.LatePolicy.Value(f"LATE_POLICY_{'NEXT_RUN' if self is Late.NEXT else self.name}")


class AtEnd(StrEnum):
    """What becomes of the machines that receive when the end comes."""

    FINISH = "finish"
    STOP = "stop"

    @property
    def message(self) -> AdmissionRules.EndPolicy.ValueType:
        """The enumerator that says so to the server."""
        return AdmissionRules.EndPolicy.Value(f"END_POLICY_{self.name}")


class Match(StrEnum):
    """How start rules combine."""

    ANY = "any"
    ALL = "all"

    @property
    def message(self) -> StartRules.Match.ValueType:
        """The enumerator that says so to the server."""
        return StartRules.Match.Value(f"MATCH_{self.name}")


def parse_slow_policy(text: str) -> SlowPolicy:
    """Returns the policy that `keep|unicast|separate|disconnect[:RATE]` says.

    Raises:
        InvalidArgumentError: it says none.
    """
    action, separator, threshold = text.partition(":")
    names = [name.removeprefix("ACTION_").lower() for name in SlowPolicy.Action.keys()[1:]]
    if action.lower() not in names:
        raise InvalidArgumentError(
            f"{text!r} is not a slow policy: write {', '.join(names)}, perhaps with a threshold like unicast:50M",
            field="slow_policy",
        )
    return SlowPolicy(
        action=SlowPolicy.Action.Value(f"ACTION_{action.upper()}"),
        threshold_bits_per_second=parse_rate(threshold, field="slow_policy") if separator else 0,
    )


def parse_daily_ceilings(texts: Sequence[str]) -> list[DailyCeiling]:
    """Returns the ceilings that texts like `08:00-18:00=200M@Europe/Berlin` say; without a zone, in the local one.

    Raises:
        InvalidArgumentError: one says none.
    """
    return [] if list(texts) == [NONE] else [_daily_ceiling(text) for text in texts]


def _daily_ceiling(text: str) -> DailyCeiling:
    match = _DAILY.fullmatch(text.strip())
    if match is None:
        raise InvalidArgumentError(
            f"{text!r} is not a daily ceiling: write it like 08:00-18:00=200M or 08:00-18:00=200M@Europe/Berlin",
            field="daily_ceiling",
        )
    start_hour, start, end_hour, end = map(int, match.groups()[:4])
    start_minute, end_minute = 60 * start_hour + start, 60 * end_hour + end
    if start > 59 or end > 59 or start_minute > 1439 or end_minute > 1440 or start_minute == end_minute:
        raise InvalidArgumentError(
            f"{text!r} is not a daily ceiling: the times are 00:00 to 24:00 and differ", field="daily_ceiling"
        )
    zone = (match[6] or local_zone().key or "").strip()
    if not zone:
        raise InvalidArgumentError(
            f"{text!r} names no zone, and the local one has no name: add one like @Europe/Berlin", field="daily_ceiling"
        )
    return DailyCeiling(
        start_minute=start_minute,
        end_minute=end_minute,
        time_zone=zone,
        ceiling_bits_per_second=parse_rate(match[5], field="daily_ceiling"),
    )


def format_rate_policy(rate: RatePolicy) -> str:
    """Returns how fast a session sends: `auto, at most 1 Gbit/s, 200 Mbit/s 08:00-18:00 Europe/Berlin`."""
    parts = [format_rate(rate.fixed_bits_per_second) if rate.fixed_bits_per_second else "auto"]
    if rate.ceiling_bits_per_second:
        parts.append(f"at most {format_rate(rate.ceiling_bits_per_second)}")
    for daily in rate.daily_ceilings:
        start, end = (f"{minute // 60:02}:{minute % 60:02}" for minute in (daily.start_minute, daily.end_minute))
        ceiling = format_rate(daily.ceiling_bits_per_second)
        parts.append(f"at most {ceiling} {start}-{end} {daily.time_zone or 'UTC'}")
    return ", ".join(parts)


def format_start_rules(rules: StartRules, *, short: bool = False) -> str:
    """Returns when a session starts, in a few words; `short` with an instant that fits into a table."""
    parts = [f"{rules.min_clients} machines"] if rules.min_clients else []
    if rules.HasField("start_delay"):
        parts.append(f"{format_duration(rules.start_delay.ToTimedelta())} after the first")
    if rules.HasField("quiet_time"):
        parts.append(f"{format_duration(rules.quiet_time.ToTimedelta())} after the last")
    if rules.HasField("start_time"):
        parts.append(f"at {(format_time if short else format_instant)(rules.start_time)}")
    if rules.manual:
        parts.append("by hand")
    return (" and " if rules.match == StartRules.MATCH_ALL else " or ").join(parts) or "first machine"


def format_late_policy(admission: AdmissionRules) -> str:
    """Returns what becomes of machines that come late; empty if they join, as usual."""
    return {
        AdmissionRules.LATE_POLICY_NEXT_RUN: "wait for the next run",
        AdmissionRules.LATE_POLICY_REFUSE: "are refused",
    }.get(admission.late_policy, "")


def format_end(admission: AdmissionRules) -> str:
    """Returns until when machines are admitted, and what happens then; empty if there is no end."""
    if not admission.HasField("until_time"):
        return ""
    then = "what runs is stopped" if admission.end_policy == AdmissionRules.END_POLICY_STOP else "what runs finishes"
    return f"{format_instant(admission.until_time)}; then {then}"


def format_slow_policy(policy: SlowPolicy) -> str:
    """Returns what becomes of slow machines; empty if nothing was chosen."""
    chosen = {
        SlowPolicy.ACTION_KEEP: "stay in the group",
        SlowPolicy.ACTION_UNICAST: "go on by unicast",
        SlowPolicy.ACTION_SEPARATE: "get a transmission of their own",
        SlowPolicy.ACTION_DISCONNECT: "are taken out",
    }.get(policy.action, "")
    threshold = policy.threshold_bits_per_second
    if policy.action in (SlowPolicy.ACTION_UNSPECIFIED, SlowPolicy.ACTION_UNICAST) and not threshold:
        return ""
    return f"{chosen} below {format_rate(threshold)}" if threshold else chosen
