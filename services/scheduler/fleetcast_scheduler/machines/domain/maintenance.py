"""Maintenance windows: when required deployments may begin, clocks that change included."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from dateutil.rrule import rrule
from fleetcast_kit.errors import InvalidArgumentError

from fleetcast_scheduler.calendar.local_time import instant_of, local_of, time_zone
from fleetcast_scheduler.calendar.recurrence import HORIZON as NEVER
from fleetcast_scheduler.calendar.recurrence import parse_rule

MAX_DURATION_SECONDS = 86400.0
MAX_WINDOW_COUNT = 64
HORIZON = timedelta(days=400)
"""How far ahead the next occurrence is looked for: a yearly one is found."""
_CLOCK_CHANGE = timedelta(hours=3)
"""More than any clock is ever changed by at once in this century."""


@dataclass(frozen=True, slots=True)
class MaintenanceWindow:
    """A recurring time in which required deployments may begin."""

    start: datetime
    """Its first day and time on the clock of the time zone, without the time zone."""
    duration_seconds: float
    recurrence: str = ""
    """Recurrence rule of RFC 5545; empty for once."""
    time_zone: str = ""
    """Empty means each machine's own."""

    def __str__(self) -> str:
        """Returns it as the record shows it."""
        parts = (f"{self.start:%Y-%m-%d %H:%M}", f"{self.duration_seconds:g} s", self.recurrence, self.time_zone)
        return f"({', '.join(filter(None, parts))})"

    def check(self) -> None:
        """Makes sure that a window with these values can exist.

        Raises:
            InvalidArgumentError: a field is wrong, or it never opens.
        """
        field = "collection.maintenance_windows"
        if not 0 < self.duration_seconds <= MAX_DURATION_SECONDS:
            raise InvalidArgumentError(
                f"a maintenance window lasts {self.duration_seconds:g} s: it must last at most a day", field=field
            )
        if not 2000 <= self.start.year < 2200:
            raise InvalidArgumentError(
                f"a maintenance window starts in the year {self.start.year}: write one from 2000 on", field=field
            )
        if self.time_zone:
            time_zone(self.time_zone, field)
        if self.recurrence:
            rule = parse_rule(self.recurrence, self.time_zone, field=field)
            soon = self.start + NEVER
            until = soon if rule._until is None else min(soon, rule._until)  # type: ignore[attr-defined]
            if next(iter(rule.replace(dtstart=self.start, count=None, until=until)), None) is None:
                raise InvalidArgumentError(f"the recurrence {self.recurrence!r} never comes", field=field)

    def open_until(self, now: float, machine_zone: ZoneInfo) -> float | None:
        """Returns when the occurrence that is open at `now` ends, the latest of several; None if none is open."""
        zone = ZoneInfo(self.time_zone) if self.time_zone else machine_zone
        local = local_of(now, zone)
        earliest = local - timedelta(seconds=self.duration_seconds) - _CLOCK_CHANGE
        starts = [instant_of(start, zone) for start in self._starts(earliest, local + _CLOCK_CHANGE, zone)]
        ends = [start + self.duration_seconds for start in starts if start <= now < start + self.duration_seconds]
        return max(ends, default=None)

    def openings(self, now: float, machine_zone: ZoneInfo) -> Iterator[float]:
        """Yields when it opens after `now`, in order."""
        zone = ZoneInfo(self.time_zone) if self.time_zone else machine_zone
        local = local_of(now, zone)
        for start in self._starts(local - _CLOCK_CHANGE, local + HORIZON, zone):
            opening = instant_of(start, zone)
            if opening > now:
                yield opening

    def _starts(self, earliest: datetime, latest: datetime, zone: ZoneInfo) -> Iterator[datetime]:
        if not self.recurrence:
            if earliest <= self.start <= latest:
                yield self.start
            return
        yield from _rule(self.recurrence, self.start, zone.key).between(earliest, latest, inc=True)


def fits(windows: Collection[MaintenanceWindow], now: float, zone: ZoneInfo, needed_seconds: float) -> bool:
    """Returns whether what takes `needed_seconds` may begin at `now`: windows that touch or overlap count as one.

    No windows at all let everything begin.
    """
    if not windows:
        return True
    covered_until = now
    while covered_until < now + needed_seconds:
        ends = [end for window in windows if (end := window.open_until(covered_until, zone)) is not None]
        if not ends:
            return False
        covered_until = max(ends)
    return True


def next_fit(windows: Collection[MaintenanceWindow], now: float, zone: ZoneInfo, needed_seconds: float) -> float | None:
    """Returns when what takes `needed_seconds` may next begin, `now` included; None if not within the horizon."""
    if fits(windows, now, zone, needed_seconds):
        return now
    firsts = [
        next((opening for opening in window.openings(now, zone) if fits(windows, opening, zone, needed_seconds)), None)
        for window in windows
    ]
    return min((first for first in firsts if first is not None), default=None)


@lru_cache(maxsize=256)
def _rule(recurrence: str, start: datetime, zone: str) -> rrule:
    """Returns the rule; it remembers the occurrences that it was asked for."""
    return parse_rule(recurrence, zone).replace(dtstart=start, cache=True)
