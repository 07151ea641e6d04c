"""Waiting for what sets no event here: what threads, other processes, or the far side of a connection do."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

LOOK_SECONDS = 0.01
"""How often a condition is looked at."""


async def until(condition: Callable[[], Any] | Callable[[], Awaitable[Any]], *, seconds: float = 60) -> None:
    """Returns as soon as the condition holds; a test that waits longer than that has failed, not met a slow host."""
    async with asyncio.timeout(seconds):
        while True:
            held = condition()
            if await held if inspect.isawaitable(held) else held:
                return
            await asyncio.sleep(LOOK_SECONDS)
