"""Things that the server streams, kept whole across broken streams, on a screen, in lines or as JSON."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from datetime import datetime
from typing import Generic, TypeVar

import grpc
from fleetcast_kit.errors import FleetcastError, UnavailableError, from_rpc_error
from fleetcast_kit.values.jitter import jittered
from rich.console import RenderableType
from rich.live import Live

from fleetcast_cli.shell.plain import Plain, write_json
from fleetcast_cli.shell.text import format_seconds, output

RETRY_SECONDS = 5.0
"""Longest pause between two attempts to reach a server that went away."""
GIVE_UP_SECONDS = 600.0
"""A server that does not come back for so long is given up: long enough for a reboot with a file system check."""

Change = TypeVar("Change")


class UnsuccessfulError(FleetcastError):
    """What was watched did not end well for every machine."""


class Watch(ABC, Generic[Change]):
    """Something as the server streams it, kept whole across broken streams."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._unreachable_since: float | None = None
        self._seen = False
        self.notice = ""
        """What is wrong with the view now: the server does not answer; empty if nothing is."""

    @abstractmethod
    def open(self) -> AsyncIterable[Change]:
        """Returns a new stream, from where the last one broke."""

    @abstractmethod
    def merge(self, change: Change) -> None:
        """Takes a change in."""

    @property
    @abstractmethod
    def ended(self) -> bool:
        """True when nothing more will change."""

    @property
    def settled(self) -> bool:
        """True when there is nothing left to wait for, though somebody may still change it."""
        return False

    @abstractmethod
    def plain(self, change: Change) -> Plain:
        """Returns a change as JSON has it."""

    @abstractmethod
    def lines(self, change: Change) -> Iterable[str | None]:
        """Yields what a change, not merged yet, says for people; None says nothing."""

    @abstractmethod
    def screen(self, rows: int) -> RenderableType:
        """Returns what fits on a terminal with so many rows."""

    async def changes(self) -> AsyncIterator[Change | None]:
        """Gives every change, for the caller to merge; None when `notice` changed. Ends when nothing more is to come.

        Raises:
            FleetcastError: it cannot be watched, or the server stayed away too long.
        """
        pause_seconds = 0.2
        while not self.ended:
            try:
                async for change in self.open():
                    self.notice, self._unreachable_since, pause_seconds = "", None, 0.2
                    self._seen = True
                    yield change
                    if self.settled:
                        return
            except grpc.aio.AioRpcError as error:
                self._note(from_rpc_error(error, address=self._address))
            else:
                if self.ended:
                    return
                self._note(UnavailableError(f"the server at {self._address} stopped"))
            yield None
            await asyncio.sleep(jittered(pause_seconds))
            pause_seconds = min(2 * pause_seconds, RETRY_SECONDS)

    def _note(self, error: FleetcastError) -> None:
        """Keeps an interruption that may pass as the notice; raises any other, and one that lasts."""
        now = time.monotonic()
        self._unreachable_since = self._unreachable_since or now
        away_seconds = now - self._unreachable_since
        if not isinstance(error, UnavailableError) or not self._seen or away_seconds > GIVE_UP_SECONDS:
            raise error
        self.notice = f"no contact with the server for {format_seconds(away_seconds)}, trying again"


async def show(watched: Watch[Change], *, as_json: bool) -> None:
    """Shows what is watched until it ends: as lines of JSON, on the terminal, or in lines where there is none."""
    if as_json:
        await _show_json(watched)
    elif output().is_terminal:
        await _show_screen(watched)
    else:
        await _show_lines(watched)


async def _show_json(watched: Watch[Change]) -> None:
    async for change in watched.changes():
        if change is not None:
            write_json(watched.plain(change), lines=True)
            watched.merge(change)


async def _show_lines(watched: Watch[Change]) -> None:
    """Prints what each change says, with the time of day."""
    console = output()

    def line(text: str | None) -> None:
        if text:
            console.print(f"{datetime.now().astimezone():%H:%M:%S} {text}", soft_wrap=True)

    away = False
    async for change in watched.changes():
        if change is None:
            line(None if away else watched.notice)
            away = True
            continue
        line("the server is back" if away else None)
        away = False
        for text in watched.lines(change):  # says what differs from what is known, so before it is
            line(text)
        watched.merge(change)


async def _show_screen(watched: Watch[Change]) -> None:
    """Shows the present state; it disappears at the end."""
    console = output()
    with Live(console=console, auto_refresh=False, transient=True) as live:
        async for change in watched.changes():
            if change is not None:
                watched.merge(change)
            live.update(watched.screen(console.height), refresh=True)
