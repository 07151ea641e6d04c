"""Rates as people write them: `100M`, `1G`, `2.5 Gbit/s`, or plain bits per second."""

from __future__ import annotations

import re
from decimal import Decimal

from fleetcast_kit.errors import InvalidArgumentError

_PREFIXES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_TEXT = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:bit/s|bps|bit)?", re.IGNORECASE)
_MAX_BITS_PER_SECOND = 10**15


def parse_rate(text: str, *, field: str = "") -> int:
    """Returns the bits per second that `text` says; prefixes are decimal.

    Raises:
        InvalidArgumentError: it says none, less than one or more than 1000 Tbit/s; `field` names the value.
    """
    match = _TEXT.fullmatch(text.strip())
    if not match:
        raise InvalidArgumentError(
            f"{text!r} is not a rate: write bits per second, like 500000, 100M or 2.5G", field=field
        )
    bits_per_second = int(Decimal(match[1]) * _PREFIXES[match[2].lower()])
    if not 1 <= bits_per_second <= _MAX_BITS_PER_SECOND:
        raise InvalidArgumentError(f"the rate {text!r} is not between 1 bit/s and 1000 Tbit/s", field=field)
    return bits_per_second


def format_rate(bits_per_second: float) -> str:
    """Returns a rate for people: three digits and a decimal prefix, such as `941 Mbit/s`."""
    value, prefix = float(bits_per_second), ""
    for prefix in ("", "k", "M", "G", "T"):
        if value < 999.5 or prefix == "T":
            break
        value /= 1000
    return f"{value:.3g} {prefix}bit/s"
