"""Times of day on a machine's own clock, and the instants that they mean."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from fleetcast_kit.errors import InvalidArgumentError


@dataclass(frozen=True, slots=True)
class ScheduleTime:
    """A time that is the same instant everywhere, or each machine's own; one of the two is set."""

    utc: float | None = None
    local: datetime | None = None
    """Without a time zone."""

    def instant(self, zone: ZoneInfo) -> float:
        """Returns the instant that it means for a machine in a time zone."""
        return instant_of(self.local, zone) if self.local is not None else self.utc or 0.0

    def after(self, other: ScheduleTime) -> bool:
        """Returns whether it comes after another everywhere; an instant and a local time cannot be compared so."""
        if self.local is not None and other.local is not None:
            return self.local > other.local
        return self.utc is not None and other.utc is not None and self.utc > other.utc

    def __str__(self) -> str:
        if self.local is not None:
            return f"{self.local:%Y-%m-%d %H:%M:%S} on each machine's clock"
        return datetime.fromtimestamp(self.utc or 0.0, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def time_zone(name: str, field: str = "time_zone") -> ZoneInfo:
    """Returns a time zone of the IANA database.

    Raises:
        InvalidArgumentError: there is none of that name.
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InvalidArgumentError(
            f"{name!r} is not a time zone: write a name like Europe/Berlin", field=field
        ) from None


def instant_of(local: datetime, zone: ZoneInfo) -> float:
    """Returns the instant of a local time.

    A time that a change of clocks leaves out means the instant of the change; one that comes twice, its first coming.
    """
    earlier = local.replace(tzinfo=zone, fold=0).astimezone(UTC)
    if earlier.astimezone(zone).replace(tzinfo=None) == local:
        return earlier.timestamp()
    # PEP 495: in a gap, fold=0 takes the offset before the change and so comes after it; fold=1 is the other way round.
    later = local.replace(tzinfo=zone, fold=1).astimezone(UTC)
    return float(_change_between(zone, int(later.timestamp()), int(earlier.timestamp())))


def local_of(instant: float, zone: ZoneInfo) -> datetime:
    """Returns what a clock in a time zone shows at an instant, without the time zone."""
    return datetime.fromtimestamp(instant, zone).replace(tzinfo=None)


def describe_instant(instant: float, zone: ZoneInfo) -> str:
    """Returns an instant with the offset of a time zone, RFC 3339."""
    return datetime.fromtimestamp(instant, zone).isoformat(timespec="seconds")


@lru_cache(maxsize=1024)
def _change_between(zone: ZoneInfo, before: int, after: int) -> int:
    """Returns the first second of the new offset."""
    offset = datetime.fromtimestamp(before, zone).utcoffset()
    while after - before > 1:
        middle = (before + after) // 2
        if datetime.fromtimestamp(middle, zone).utcoffset() == offset:
            before = middle
        else:
            after = middle
    return after
