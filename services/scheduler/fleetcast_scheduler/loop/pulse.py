"""Tells the watchers of a resource that it changed."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager


class Pulse:
    """Events of those who watch, by the name of what they watch."""

    def __init__(self) -> None:
        self._events: dict[str, set[asyncio.Event]] = defaultdict(set)

    def beat(self, name: str) -> None:
        """Says that the resource changed."""
        for event in self._events.get(name, ()):
            event.set()

    def watcher_count(self, name: str) -> int:
        """Returns how many watch a resource."""
        return len(self._events.get(name, ()))

    @contextmanager
    def watched(self, name: str) -> Iterator[asyncio.Event]:
        """Yields an event that each change of the resource sets."""
        event = asyncio.Event()
        self._events[name].add(event)
        try:
            yield event
        finally:
            self._events[name].discard(event)
            if not self._events[name]:
                del self._events[name]
