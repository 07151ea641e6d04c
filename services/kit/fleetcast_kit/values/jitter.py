"""Pauses that differ, so that many who wait for the same thing do not all come back at one moment."""

from __future__ import annotations

import random


def jittered(seconds: float, least: float = 0.5, most: float = 1.0) -> float:
    """Returns a pause between `least` and `most` times `seconds`, by chance."""
    return seconds * random.uniform(least, most)  # noqa: S311 - no secret
