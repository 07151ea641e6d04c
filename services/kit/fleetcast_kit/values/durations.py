"""Durations as people write them: `90s`, `15m`, `2h`, `1d`, `1h30m`."""

from __future__ import annotations

import re
from datetime import timedelta

from fleetcast_kit.errors import InvalidArgumentError

_UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_TEXT = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?")
_MAX_SECONDS = 100 * 365 * 86400


def parse_duration(text: str, *, field: str = "") -> timedelta:
    """Returns the duration that `text` says: days, hours, minutes and seconds, each once, largest first, or `0`.

    Raises:
        InvalidArgumentError: it says none, or more than 100 years; `field` is the name given to the value.
    """
    compact = text.strip().lower().replace(" ", "")
    match = _TEXT.fullmatch(compact)
    if compact == "0":
        return timedelta()
    if not match or not compact:
        raise InvalidArgumentError(f"{text!r} is not a duration: write it like 90s, 15m, 2h, 1d or 1h30m", field=field)
    seconds = sum(float(number or 0) * unit for number, unit in zip(match.groups(), _UNITS.values(), strict=True))
    if seconds > _MAX_SECONDS:
        raise InvalidArgumentError(f"{text!r} is longer than 100 years", field=field)
    return timedelta(seconds=seconds)


def format_duration(duration: timedelta) -> str:
    """Returns `duration` as people write it, in whole seconds: the counterpart of `parse_duration`."""
    rest = round(duration.total_seconds())
    sign, rest = ("-", -rest) if rest < 0 else ("", rest)
    parts = []
    for letter, unit in _UNITS.items():
        number, rest = divmod(rest, unit)
        if number:
            parts.append(f"{number}{letter}")
    return sign + ("".join(parts) or "0s")
