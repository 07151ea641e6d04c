"""Durations and sizes as people write them, as pydantic types."""

from __future__ import annotations

import re
from typing import Annotated, Any

from fleetcast_kit.errors import InvalidArgumentError
from fleetcast_kit.values.durations import parse_duration
from pydantic import BeforeValidator, Field, WithJsonSchema

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGTP]?)(i?)B?", re.IGNORECASE)
_POWERS = {letter: power for power, letter in enumerate(" KMGTP")}


def parse_size(text: str) -> int:
    """Returns the bytes that `text` says: `512MiB` and `512M` are 512 x 2**20, `4096` is itself.

    Raises:
        ValueError: it says no size.
    """
    match = _SIZE.fullmatch(text.strip())
    if not match:
        raise ValueError(f"{text!r} is not a size: write it like 512MiB or 20GiB")
    power = _POWERS[match[2].upper() or " "]
    return int(float(match[1]) * (1 << 10 * power))


def format_size(size_bytes: int) -> str:
    """Returns `size_bytes` as people read it, such as `1.5 GiB`."""
    size = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if size < 1024 or unit == "TiB":
            return f"{size:.0f} {unit}" if unit == "B" or size == int(size) else f"{size:.1f} {unit}"
        size /= 1024
    raise AssertionError


def _duration(value: Any) -> Any:
    if isinstance(value, str):
        try:
            return parse_duration(value).total_seconds()
        except InvalidArgumentError as error:
            raise ValueError(error.message) from error
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("a duration is written like 90s, 15m or 2h")
    return value


def _size(value: Any) -> Any:
    if isinstance(value, str):
        return parse_size(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("a size is written like 512MiB or 20GiB")
    return value


Seconds = Annotated[
    float,
    BeforeValidator(_duration),
    Field(ge=0),
    WithJsonSchema({"anyOf": [{"type": "string", "examples": ["90s", "15m", "2h"]}, {"type": "number", "minimum": 0}]}),
]
"""A duration in seconds; written as a number of seconds or like `15m`."""

SizeBytes = Annotated[
    int,
    BeforeValidator(_size),
    Field(ge=0),
    WithJsonSchema({"anyOf": [{"type": "string", "examples": ["512MiB", "20GiB"]}, {"type": "integer", "minimum": 0}]}),
]
"""A size in bytes; written as a number of bytes or like `20GiB`."""
