"""How fast a sender sends, and what becomes of machines that cannot keep up."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo


@dataclass(frozen=True, slots=True)
class DailyCeiling:
    """A ceiling that holds every day between two times of a time zone."""

    start_minute: int
    """Minutes since midnight, 0 to 1439."""
    end_minute: int
    """Minutes since midnight, 0 to 1440; before `start_minute` it means the next day."""
    time_zone: str
    ceiling_bits_per_second: int

    def holds(self, now: float) -> bool:
        """Returns whether it holds at `now`."""
        local = datetime.fromtimestamp(now, ZoneInfo(self.time_zone))
        minute = local.hour * 60 + local.minute
        if self.start_minute < self.end_minute:
            return self.start_minute <= minute < self.end_minute
        return minute >= self.start_minute or minute < self.end_minute

    def next_change(self, now: float) -> float:
        """Returns the next instant after `now` at which it begins or ends to hold.

        A local time that a daylight-saving change skips or repeats counts as `datetime` resolves it; the ceiling is
        looked at again there, which is all that is asked.
        """
        zone = ZoneInfo(self.time_zone)
        today = datetime.fromtimestamp(now, zone).replace(hour=0, minute=0, second=0, microsecond=0)
        times = [
            (today + timedelta(days=days, minutes=minute)).timestamp()
            for days in (0, 1, 2)
            for minute in (self.start_minute, self.end_minute)
        ]
        return min(time for time in times if time > now)


@dataclass(frozen=True, slots=True)
class RatePolicy:
    """How fast a session sends, in bits per second; 0 means automatic, and no ceiling."""

    fixed_bits_per_second: int = 0
    ceiling_bits_per_second: int = 0
    daily_ceilings: tuple[DailyCeiling, ...] = ()

    def at(self, now: float) -> RatePolicy:
        """Returns what holds at `now`, without daily ceilings."""
        ceilings = [daily.ceiling_bits_per_second for daily in self.daily_ceilings if daily.holds(now)]
        if self.ceiling_bits_per_second:
            ceilings.append(self.ceiling_bits_per_second)
        return replace(self, ceiling_bits_per_second=min(ceilings, default=0), daily_ceilings=())

    def next_change(self, now: float) -> float | None:
        """Returns when something else may hold; None if never."""
        return min((daily.next_change(now) for daily in self.daily_ceilings), default=None)


class SlowAction(StrEnum):
    """What is done with a machine that cannot keep up."""

    KEEP = "KEEP"
    UNICAST = "UNICAST"
    SEPARATE = "SEPARATE"
    DISCONNECT = "DISCONNECT"


@dataclass(frozen=True, slots=True)
class SlowPolicy:
    """What becomes of machines that cannot keep up."""

    action: SlowAction = SlowAction.UNICAST
    threshold_bits_per_second: int = 0
    """0 lets the sender decide."""
