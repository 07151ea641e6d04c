"""Pausing and cancelling a run from outside, between steps and inside long ones."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable


class Control:
    """The switches of one run. Call from the event loop's thread."""

    def __init__(self) -> None:
        """Starts neither paused nor cancelled."""
        self.cancelled = asyncio.Event()
        """Set for good once the run is to end."""
        self.reason = ""
        """Why it is to end."""
        self._going = asyncio.Event()
        self._going.set()
        self._process_groups: set[int] = set()
        self._watchers: set[Callable[[bool], None]] = set()

    @property
    def paused(self) -> bool:
        """True while nothing may go on."""
        return not self._going.is_set()

    def pause(self) -> None:
        """Holds the run where it is: running programs are stopped, the next step does not begin."""
        if not self.paused and not self.cancelled.is_set():
            self._going.clear()
            self._announce(signal.SIGSTOP)

    def resume(self) -> None:
        """Lets the run go on."""
        if self.paused:
            self._going.set()
            self._announce(signal.SIGCONT)

    def cancel(self, reason: str = "cancelled") -> None:
        """Ends the run: the running step is broken off, nothing more begins."""
        self.reason = self.reason or reason
        self.cancelled.set()
        self.resume()

    async def go(self) -> None:
        """Returns at once, or, while the run is paused, when it goes on or is cancelled. Long steps call it often."""
        await self._going.wait()

    def add_process_group(self, group: int) -> None:
        """Stops and continues this process group with the run."""
        self._process_groups.add(group)
        if self.paused:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGSTOP)

    def remove_process_group(self, group: int) -> None:
        """Forgets a process group that has ended."""
        self._process_groups.discard(group)

    def watch(self, watcher: Callable[[bool], None]) -> Callable[[], None]:
        """Calls `watcher` with True at each pause and False when it ends. Returns what ends the watch."""
        self._watchers.add(watcher)
        return lambda: self._watchers.discard(watcher)

    def _announce(self, number: signal.Signals) -> None:
        for group in self._process_groups:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, number)
        for watcher in list(self._watchers):
            watcher(self.paused)
