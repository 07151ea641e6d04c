"""A series: at each recurrence of its start time, the next session opens by itself."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from fleetcast_scheduler.calendar.recurrence import Recurrence


@dataclass(frozen=True, slots=True)
class Series:
    """How a session recurs, and which of its occurrences this one is."""

    recurrence: Recurrence
    length_seconds: float | None
    """From the start to the end of the admission on the clock of the time zone; None if it has no end."""
    occurrence: int = 1
    next_time: float | None = None
    """When the next occurrence begins; None if this is the last one."""
    missed_count: int = 0
    """How often its time came again before it could start."""

    @classmethod
    def begin(
        cls, rule: str, time_zone: str, start_time: float, until_time: float | None, occurrence: int = 1
    ) -> Series:
        """Returns the series whose pattern is a session from `start_time` until `until_time`.

        Raises:
            InvalidArgumentError: the text is not a recurrence rule.
        """
        zone = Recurrence(rule, time_zone, datetime.min)
        first = zone.local(start_time)
        length = None if until_time is None else (zone.local(until_time) - first).total_seconds()
        return cls(replace(zone, first=first), length, occurrence).after(start_time)

    def after(self, start_time: float) -> Series:
        """Returns the series with the recurrence that follows on `start_time` as the next one."""
        following = self.recurrence.next_after(self.recurrence.local(start_time))
        return replace(self, next_time=None if following is None else self.recurrence.instant(following))

    def until(self, start_time: float) -> float | None:
        """Returns until when an occurrence that begins at `start_time` admits machines; None for ever."""
        if self.length_seconds is None:
            return None
        end = self.recurrence.local(start_time) + timedelta(seconds=self.length_seconds)
        return self.recurrence.instant(end)

    def due(self, now: float) -> float | None:
        """Returns the time of the next occurrence, as seen at `now`; None if there is none.

        Of those that passed in the meantime the last counts, unless its end passed as well.
        """
        if self.next_time is None or self.next_time > now:
            return self.next_time
        clock = self.recurrence
        passed = clock.last_between(clock.local(self.next_time) - timedelta(seconds=1), clock.local(now))
        time = self.next_time if passed is None else clock.instant(passed)
        end = self.until(time)
        if end is None or end > now:
            return time
        following = clock.next_after(clock.local(now))
        return None if following is None else clock.instant(following)
