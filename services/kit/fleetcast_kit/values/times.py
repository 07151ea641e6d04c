"""Instants as people write them: `2026-12-01 02:00`, `tomorrow 2:00`, `friday 18:00`, `+90m`, `02:00`, `now`.

A small parser of our own, because python-dateutil guesses what is left out and takes times that a clock change skips.
"""

from __future__ import annotations

import os
import re
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from fleetcast_kit.errors import InvalidArgumentError
from fleetcast_kit.values.durations import parse_duration

TIME_HELP = (
    "TIME is like '2026-12-01 02:00', 'tomorrow 2:00', 'friday 18:00', 02:00 (the next one), +90m or now, in the local "
    "zone or the one that follows, as in '2026-12-01T02:00Z' or '02:00 Europe/Berlin'."
)
"""What the help of a command says of its times."""

_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_NEAR_DAYS = {"yesterday": -1, "today": 0, "tomorrow": 1}
_RELATIVE = re.compile(r"(?:(?P<sign>[+-])|in\s+)(?P<ahead>\d.*)|(?P<behind>\d.*?)\s+ago", re.IGNORECASE)
_CALENDAR = re.compile(
    r"(?:(?P<date>\d{4}-\d{1,2}-\d{1,2})(?:\s+|t)|(?P<word>[a-z]+)\s+)?(?:at\s+)?"
    r"(?P<hour>\d{1,2}):(?P<minute>\d\d)(?::(?P<second>\d\d)(?:\.(?P<fraction>\d{1,6}))?)?"
    r"\s*(?P<zone>z|[+-]\d\d:?\d\d|[a-z][a-z0-9_+/-]*)?",
    re.IGNORECASE | re.ASCII,
)
_YEARS = range(1970, 3000)


def parse_time(
    text: str, *, now: datetime, zone: tzinfo, field: str = "", past: bool = False, machine_clock: bool = False
) -> datetime:
    """Returns the instant that `text` says, in its own zone if it names one, else in `zone`.

    A time of the day or a weekday alone means the next such time after `now`, or with `past` the last one before it.
    With `machine_clock` the result is naive: what any clock shows, wherever it stands; `zone` says which day it is.

    Raises:
        InvalidArgumentError: it says none, or a local time that does not exist or comes twice; `field` names the value.
    """
    compact = " ".join(text.split())
    match = _RELATIVE.fullmatch(compact)
    if (match or compact.lower() == "now") and machine_clock:
        raise InvalidArgumentError(
            f"{text!r} is one instant for all: machines' own clocks need a day and a time", field=field
        )
    if compact.lower() == "now":
        return now.astimezone(zone)
    if match:
        length = parse_duration(match["ahead"] or match["behind"], field=field)
        return (now + (-length if match["behind"] or match["sign"] == "-" else length)).astimezone(zone)
    match = _CALENDAR.fullmatch(compact)
    if match is None:
        raise InvalidArgumentError(
            f"{text!r} is not a time: write it like '2026-12-01 02:00', 'tomorrow 2:00', 'friday 18:00', 02:00 or +90m",
            field=field,
        )
    if match["zone"]:
        if machine_clock:
            raise InvalidArgumentError(
                f"{text!r} names a zone, and machines' own clocks are wanted: leave it out", field=field
            )
        zone = _zone(match["zone"], field)
    try:
        days = _days(match["date"], (match["word"] or "").lower(), now.astimezone(zone).date(), past=past)
        hour, minute, second = (int(match[name] or 0) for name in ("hour", "minute", "second"))
        clock = time(hour, minute, second, int((match["fraction"] or "").ljust(6, "0")))
        walls = [datetime.combine(day, clock) for day in days]
    except (ValueError, OverflowError) as error:
        raise InvalidArgumentError(f"{text!r} is not a time: {error}", field=field) from error
    if walls[0].year not in _YEARS:
        raise InvalidArgumentError(f"{text!r} is not between {_YEARS[0]} and {_YEARS[-1]}", field=field)
    return _chosen(walls, now, zone, text, field, past=past, machine_clock=machine_clock)


def local_zone() -> ZoneInfo:
    """Returns the time zone of this process; its `key` is None where the system does not tell the name.

    Raises:
        InvalidArgumentError: TZ names none.
    """
    name = os.environ.get("TZ", "").removeprefix(":") or "/etc/localtime"
    try:
        if not name.startswith("/"):
            return ZoneInfo(name)
        path = os.path.realpath(name)
        if key := path.partition("/zoneinfo/")[2]:
            return ZoneInfo(key)
        with open(path, "rb") as file:
            return ZoneInfo.from_file(file)
    except FileNotFoundError:
        return ZoneInfo("UTC")
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise InvalidArgumentError(
            f"TZ {name!r} is not a time zone: write a name like Europe/Berlin", field="TZ"
        ) from error


def _zone(text: str, field: str) -> tzinfo:
    if text[0] in "+-":
        digits = text.replace(":", "")
        offset = timedelta(hours=int(digits[1:3]), minutes=int(digits[3:]))
        if offset >= timedelta(hours=24):
            raise InvalidArgumentError(f"the offset {text!r} is a day or more: write it like +01:00", field=field)
        return timezone(-offset if text[0] == "-" else offset)
    try:
        return UTC if text.upper() in ("Z", "UTC") else ZoneInfo(text)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise InvalidArgumentError(
            f"{text!r} is not a time zone: write an offset like +01:00, UTC, or a name like Europe/Berlin", field=field
        ) from error


def _days(written: str | None, word: str, today: date, *, past: bool) -> list[date]:
    """Returns the days that can be meant, the most likely first."""
    if written:
        return [date(*map(int, written.split("-")))]
    if word in _NEAR_DAYS:
        return [today + timedelta(days=_NEAR_DAYS[word])]
    step = -1 if past else 1
    if not word:
        return [today, today + timedelta(days=step)]
    numbers = [number for number, name in enumerate(_WEEKDAYS) if len(word) > 2 and name.startswith(word)]
    if not numbers:
        raise ValueError(f"{word!r} is not a day: write a date, today, tomorrow or a weekday")
    first = today + timedelta(days=step * (step * (numbers[0] - today.weekday()) % 7))
    return [first, first + timedelta(days=7 * step)]


def _chosen(
    walls: list[datetime], now: datetime, zone: tzinfo, text: str, field: str, *, past: bool, machine_clock: bool
) -> datetime:
    """Returns the one instant that the first suitable of `walls` means."""
    for wall in walls:
        probes = {wall.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1)}
        instants = sorted(at for at in probes if at.astimezone(zone).replace(tzinfo=None) == wall)
        if len(walls) > 1:
            wanted = [at for at in instants or probes if (at < now if past else at > now)]
            if not wanted:
                continue
            instants = [at for at in instants if at in wanted]
        if machine_clock:
            return wall
        if not instants:
            raise InvalidArgumentError(
                f"{text!r}: {wall:%Y-%m-%d %H:%M} does not exist in {zone}, the clocks skip it: choose another time",
                field=field,
            )
        if len(instants) > 1:
            offsets = " or ".join(f"{wall:%Y-%m-%dT%H:%M}{at.astimezone(zone).isoformat()[-6:]}" for at in instants)
            raise InvalidArgumentError(
                f"{text!r}: {wall:%Y-%m-%d %H:%M} comes twice in {zone}, the clocks are put back: write {offsets}",
                field=field,
            )
        return instants[0].astimezone(zone)
    raise InvalidArgumentError(f"{text!r} means no time: write a date", field=field)
