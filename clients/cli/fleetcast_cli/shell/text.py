"""Values as people read them, and the two consoles they go to."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import pairwise
from typing import Any

from fleetcast_kit.values.printable import printable
from fleetcast_kit.values.times import local_zone
from google.protobuf.timestamp_pb2 import Timestamp
from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

ABSENT = "-"
DIGEST_DIGITS = 12
"""Hexadecimal digits of a shortened digest. 48 bits: a catalog of 10,000 versions has two alike once in 5 million."""


UNBOUNDED_COLUMNS = 1000
"""Width of what is not a terminal: lines end where their text ends, and nothing is cut off."""


def output() -> Console:
    """Returns the console for what a command prints."""
    return _console(stderr=False)


def progress() -> Console:
    """Returns the console for what happens meanwhile."""
    return _console(stderr=True)


class _SafeConsole(Console):
    """A console on which nothing that is shown, whoever said it, can steer the terminal."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yields what is shown, with controls written out; those of the console itself are none of it."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)


def _console(*, stderr: bool) -> Console:
    console = _SafeConsole(stderr=stderr, highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = UNBOUNDED_COLUMNS
    return console


def format_bytes(size_bytes: float) -> str:
    """Returns a size with a decimal prefix and three digits: `524 MB`."""
    value = float(size_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if abs(value) < 999.5:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 99.95 else f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB"


def format_seconds(seconds: float) -> str:
    """Returns a duration of some work: `0.42 s`, `12 s`, `3:05`, `1:02:03`."""
    if 0 < seconds < 0.1:
        return "<0.1 s"
    if seconds < 10:
        return f"{seconds:.2g} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def format_percent(part: float, whole: float) -> str:
    """Returns `part` of `whole` in whole percent, rounded down: 100 % means all of it."""
    return f"{int(100 * part / whole)} %" if whole > 0 else ABSENT


def format_time(time: Timestamp) -> str:
    """Returns an instant in local time with its offset; `-` for none."""
    if not time.ToNanoseconds():
        return ABSENT
    return datetime.fromtimestamp(time.seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S %z")


def format_clock(time: Timestamp) -> str:
    """Returns an instant's time of day in local time, for screens that are watched; `-` for none."""
    return f"{datetime.fromtimestamp(time.seconds).astimezone():%H:%M:%S}" if time.ToNanoseconds() else ABSENT


def format_instant(time: Timestamp, *, now: datetime | None = None, zone: tzinfo | None = None) -> str:
    """Returns an instant so that nobody misreads it: local, in UTC, and how far away it is; `-` for none.

    `Tue 2026-12-01 02:00 +01:00 Europe/Berlin = 2026-12-01 01:00 UTC, in 6 h 12 min`
    """
    if not time.ToNanoseconds():
        return ABSENT
    instant = datetime.fromtimestamp(time.seconds, UTC)
    local = instant.astimezone(local_zone() if zone is None else zone)
    if local.utcoffset():
        name = getattr(local.tzinfo, "key", None)
        shown = f"{_clock(local, '%a %Y-%m-%d')} {local.isoformat()[-6:]}{f' {name}' if name else ''}"
        shown += f" = {_clock(instant, '%Y-%m-%d')} UTC"
    else:
        shown = f"{_clock(instant, '%a %Y-%m-%d')} UTC"
    return f"{shown}, {format_distance(instant - (now or datetime.now(UTC)))}"


def format_distance(distance: timedelta) -> str:
    """Returns how far away an instant is, in its two largest units: `in 6 h 12 min`, `3 days ago`, `now`."""
    whole = abs(round(distance.total_seconds()))
    units = ((86400, "days"), (3600, "h"), (60, "min"), (1, "s"), (1, ""))
    for (seconds, unit), (next_seconds, next_unit) in pairwise(units):
        count, rest = divmod(whole, seconds)
        if count:
            text = f"{count} {'day' if unit == 'days' and count == 1 else unit}"
            text += f" {rest // next_seconds} {next_unit}" if rest >= next_seconds else ""
            return f"in {text}" if distance > timedelta() else f"{text} ago"
    return "now"


def _clock(time: datetime, day: str) -> str:
    return time.strftime(f"{day} %H:%M:%S" if time.second else f"{day} %H:%M")


def plural(count: int, noun: str) -> str:
    """Returns `1 machine`, `2 machines`."""
    ending = "" if count == 1 else "es" if noun.endswith("s") else "s"
    return f"{count} {noun}{ending}"


class _SafeTable(Table):
    """A table whose columns are as wide as what is shown of text that nobody may steer the terminal with."""

    def add_row(self, *cells: RenderableType | None, **settings: Any) -> None:
        """Adds a row."""
        super().add_row(*(printable(cell) if isinstance(cell, str) else cell for cell in cells), **settings)


class _OneLineTable(_SafeTable):
    """A table whose rows have one line each, so that a screen knows how many fit."""

    def add_row(self, *cells: RenderableType | None, **settings: Any) -> None:
        """Adds a row; what does not fit ends in an ellipsis."""
        texts = [Text(printable(cell)) if isinstance(cell, str) else cell for cell in cells]
        for text in texts:
            if isinstance(text, Text):
                text.no_wrap, text.overflow = True, "ellipsis"
        super().add_row(*texts, **settings)


def table(*columns: str, right: tuple[str, ...] = (), one_line: bool = False) -> Table:
    """Returns an empty table with the given headings; those in `right` are aligned right.

    On a narrow terminal the first column, which people type again, stays whole and the others wrap, or with `one_line`
    are cut.
    """
    kind = _OneLineTable if one_line else _SafeTable
    empty = kind(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for index, column in enumerate(columns):
        empty.add_column(column, justify="right" if column in right else "left", no_wrap=index == 0, overflow="fold")
    return empty


def fields(rows: list[tuple[str, str]]) -> Table:
    """Returns name-and-value lines, without those that have no value."""
    grid = Table.grid(padding=(0, 2))
    for name, value in rows:
        if value:
            grid.add_row(Text(name, style="bold"), printable(value))
    return grid
