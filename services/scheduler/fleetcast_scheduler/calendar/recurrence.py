"""Recurrence rules of iCalendar (RFC 5545) on the clock of a time zone. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any
from zoneinfo import ZoneInfo

from dateutil.rrule import rrule, rrulestr
from fleetcast_kit.errors import InvalidArgumentError

HORIZON = timedelta(days=6 * 366)
"""What has not recurred for so long never does: the rarest, the 29th of February, comes every four years."""

MAX_RULE_LENGTH = 500
_FREQUENCIES = "YEARLY|MONTHLY|WEEKLY|DAILY"
_UNTIL = re.compile(r"UNTIL=(\d{8}T\d{6})Z")


@dataclass(frozen=True, slots=True)
class Recurrence:
    """A rule with its first instant, on the clock of a time zone."""

    rule: str
    """Such as `FREQ=WEEKLY;BYDAY=MO,FR`."""
    time_zone: str
    """Name in the IANA database; empty means UTC."""
    first: datetime
    """On the clock of the time zone, without one."""

    def next_after(self, local: datetime) -> datetime | None:
        """Returns the first recurrence after `local`, both on the clock of the time zone; None if there is none.

        A rule that recurs daily and never, such as each 30th of February, is searched for seconds.
        """
        return next((found for found in self._until(local + HORIZON) if found > local), None)

    def last_between(self, after: datetime, until: datetime) -> datetime | None:
        """Returns the last recurrence later than `after` and not later than `until`; None if there is none."""
        return max((found for found in self._until(until) if found > after), default=None)

    def local(self, instant: float) -> datetime:
        """Returns what the clock of the time zone says at an instant."""
        return datetime.fromtimestamp(instant, self._zone).replace(tzinfo=None)

    def instant(self, local: datetime) -> float:
        """Returns when the clock of the time zone says `local`.

        As RFC 5545 wants it (section 3.3.5): what a change of the clocks skips is as much later, what it repeats counts
        the first time.
        """
        return local.replace(tzinfo=self._zone, fold=0).timestamp()

    @property
    def _zone(self) -> ZoneInfo:
        return ZoneInfo(self.time_zone or "UTC")

    def _until(self, end: datetime) -> Iterator[datetime]:
        """Yields the recurrences in order, the last one not later than `end`."""
        parsed: Any = parse_rule(self.rule, self.time_zone)
        until = end if parsed._until is None else min(parsed._until, end)
        return islice(parsed.replace(dtstart=self.first, count=None, until=until), parsed._count)


def parse_rule(text: str, time_zone: str = "", *, field: str = "recurrence") -> rrule:
    """Returns a recurrence rule.

    Raises:
        InvalidArgumentError: the text is not a rule, or recurs more often than daily.
    """
    # Recurrences are on the clock of the zone, and so has the end to be, which RFC 5545 wants in UTC.
    written = text.strip().upper().removeprefix("RRULE:")
    local = _UNTIL.sub(lambda match: f"UNTIL={_on_clock(match[1], time_zone, text, field)}", written)
    parts = dict(part.partition("=")[::2] for part in local.split(";"))
    try:
        if len(text) > MAX_RULE_LENGTH or not re.fullmatch(r"[A-Z0-9=;,+:-]+", local):
            raise ValueError("a rule is one line of NAME=VALUE;NAME=VALUE")
        if not re.fullmatch(_FREQUENCIES, parts.get("FREQ", "")):
            raise ValueError(f"FREQ must be one of {_FREQUENCIES.replace('|', ', ')}")
        if int(parts.get("INTERVAL", "1")) < 1 or int(parts.get("COUNT", "1")) < 1:
            raise ValueError("INTERVAL and COUNT must be 1 or more")
        if "COUNT" in parts and "UNTIL" in parts:
            raise ValueError("COUNT and UNTIL exclude each other")
        parsed = rrulestr(local, dtstart=datetime(2000, 1, 1))
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise InvalidArgumentError(
            f"{text[:MAX_RULE_LENGTH]!r} is no recurrence rule: {error}; write one of RFC 5545, such as "
            "FREQ=WEEKLY;BYDAY=MO,FR",
            field=field,
        ) from error
    if not isinstance(parsed, rrule):
        raise InvalidArgumentError(f"{text!r} is more than one recurrence rule: give one", field=field)
    return parsed


def _on_clock(utc: str, time_zone: str, text: str, field: str) -> str:
    try:
        instant = datetime.strptime(utc, "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
        return instant.astimezone(ZoneInfo(time_zone or "UTC")).strftime("%Y%m%dT%H%M%S")
    except (ValueError, OverflowError) as error:
        raise InvalidArgumentError(f"{text!r} is no recurrence rule: {error}", field=field) from error
