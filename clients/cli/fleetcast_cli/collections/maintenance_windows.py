"""Maintenance windows as people write them: `22:00 8h weekdays@Europe/Berlin`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from fleetcast.scheduler.v1.collection_service_pb2 import MaintenanceWindow
from fleetcast_kit.errors import InvalidArgumentError
from fleetcast_kit.values.durations import format_duration, parse_duration
from fleetcast_kit.values.times import parse_time

from fleetcast_cli.shell.instants import Clock
from fleetcast_cli.shell.recurrences import recurrence

MAINTENANCE_HELP = (
    "WINDOW is START DURATION [RULE][@ZONE], such as '22:00 8h daily', '2026-12-05 20:00 10h weekly@Europe/Berlin' or "
    "'friday 18:00 1d FREQ=MONTHLY;BYDAY=1FR': its first start (the last one, if it is open now), how long it lasts (a "
    "day at most), and how it repeats: daily, weekdays, weekly or a recurrence rule of iCalendar; without one it opens "
    "once. Without a zone it goes by each machine's own clock. 'none' removes all windows: required deployments then "
    "begin at any time."
)

FIELD = "maintenance_window"
_WINDOW = re.compile(
    r"(?P<start>.*?\d{1,2}:\d\d(?::\d\d)?)\s+(?P<duration>\d\S*)(?:\s+(?P<rule>[^\s@]+))?\s*(?:@\s*(?P<zone>\S+))?",
    re.ASCII,
)


def parse_maintenance_windows(texts: Sequence[str], clock: Clock | None = None) -> list[MaintenanceWindow]:
    """Returns the windows that `texts` say.

    Raises:
        InvalidArgumentError: one says none.
    """
    return [] if list(texts) == ["none"] else [_window(text, clock or Clock()) for text in texts]


def format_maintenance_window(window: MaintenanceWindow) -> str:
    """Returns a window for people: `from Tue 2026-12-01 22:00 for 8h, FREQ=DAILY, Europe/Berlin`."""
    start = datetime.fromisoformat(window.start)
    zone = window.time_zone or "each machine's own clock"
    length = format_duration(window.duration.ToTimedelta())
    return f"from {start:%a %Y-%m-%d %H:%M} for {length}, {window.recurrence or 'once'}, {zone}"


def _window(text: str, clock: Clock) -> MaintenanceWindow:
    match = _WINDOW.fullmatch(text.strip())
    if match is None:
        raise InvalidArgumentError(
            f"{text!r} is not a maintenance window: write START DURATION [RULE][@ZONE], like '22:00 8h daily'",
            field=FIELD,
        )
    if match["zone"]:
        try:
            clock = Clock(clock.now, ZoneInfo(match["zone"]))
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise InvalidArgumentError(
                f"{match['zone']!r} is not a time zone: write a name like Europe/Berlin", field=FIELD
            ) from error
    length = parse_duration(match["duration"], field=FIELD)
    window = MaintenanceWindow(
        start=_first_start(match["start"], length, clock).isoformat(timespec="minutes"),
        recurrence=recurrence(match["rule"] or ""),
        time_zone=match["zone"] or "",
    )
    window.duration.FromTimedelta(length)
    return window


def _first_start(text: str, length: timedelta, clock: Clock) -> datetime:
    """Returns when a window first opens: a time of the day, or a weekday, that has come may mean one open now."""
    latest, following = (
        parse_time(text, now=clock.now, zone=clock.zone, field=FIELD, machine_clock=True, past=past)
        for past in (True, False)
    )
    return latest if latest + length > clock.now.astimezone(clock.zone).replace(tzinfo=None) else following
