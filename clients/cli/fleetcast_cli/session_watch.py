"""`fleetcast session watch`: every machine of a session, until it ends; a server that restarts is waited for."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from datetime import datetime
from typing import TYPE_CHECKING

import grpc
import typer
from fleetcast.scheduler.v1 import session_service_pb2
from fleetcast.scheduler.v1.session_pb2 import Participant, Session
from fleetcast.scheduler.v1.session_service_pb2_grpc import SessionServiceStub
from fleetcast_kit.errors import FleetcastError, UnavailableError, from_rpc_error
from rich.live import Live

from fleetcast_cli.command import Json, command
from fleetcast_cli.connection import connection
from fleetcast_cli.plain import Plain, short_name, to_plain, write_json
from fleetcast_cli.references import identifier, resource
from fleetcast_cli.session import Name, group
from fleetcast_cli.session_view import FINAL_STATES, machine_change, screen, session_change, summary
from fleetcast_cli.text import format_seconds, output, plural

if TYPE_CHECKING:
    from fleetcast.scheduler.v1.session_service_pb2_grpc import SessionServiceAsyncStub

RETRY_SECONDS = 5.0
"""Longest pause between two attempts to reach a server that went away."""
GIVE_UP_SECONDS = 600.0
"""A server that does not come back for so long is given up: long enough for a reboot with a file system check."""


class UnsuccessfulError(FleetcastError):
    """The watched session did not end well for every machine."""


class SessionWatch:
    """A session as the server streams it, kept whole across broken streams."""

    def __init__(self, sessions: SessionServiceAsyncStub, name: str, address: str) -> None:
        self._sessions = sessions
        self._name = name
        self._address = address
        self._revision = 0
        self._unreachable_since: float | None = None
        self.session: Session | None = None
        self.participants: dict[str, Participant] = {}
        self.notice = ""
        """What is wrong with the view now: the server does not answer; empty if nothing is."""

    async def changes(self) -> AsyncIterator[session_service_pb2.WatchSessionResponse | None]:
        """Gives every change, before it is merged into `session` and `participants`; None when `notice` changed.

        Ends with the session.

        Raises:
            FleetcastError: the session cannot be watched, or the server stayed away too long.
        """
        pause_seconds = 0.2
        while self.session is None or self.session.state not in FINAL_STATES:
            request = session_service_pb2.WatchSessionRequest(name=self._name, after_revision=self._revision)
            try:
                async for change in self._sessions.WatchSession(request):
                    self.notice, self._unreachable_since, pause_seconds = "", None, 0.2
                    yield change
                    self._merge(change)
            except grpc.aio.AioRpcError as error:
                self._note(from_rpc_error(error, address=self._address))
            else:
                continue_watching = self.session is not None and self.session.state not in FINAL_STATES
                if not continue_watching:
                    return
                self._note(UnavailableError(f"the server at {self._address} stopped"))
            yield None
            await asyncio.sleep(pause_seconds * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, no secret
            pause_seconds = min(2 * pause_seconds, RETRY_SECONDS)

    def _merge(self, change: session_service_pb2.WatchSessionResponse) -> None:
        self.session = change.session
        self._revision = change.session.revision
        self.participants |= {participant.name: participant for participant in change.participants}

    def _note(self, error: FleetcastError) -> None:
        """Keeps an interruption that may pass as the notice; raises any other, and one that lasts."""
        now = time.monotonic()
        self._unreachable_since = self._unreachable_since or now
        away_seconds = now - self._unreachable_since
        if not isinstance(error, UnavailableError) or self.session is None or away_seconds > GIVE_UP_SECONDS:
            raise error
        self.notice = f"no contact with the server for {format_seconds(away_seconds)}, trying again"


@command(group, "watch", span="fleetcast session watch")
async def watch(context: typer.Context, session: Name, as_json: Json = False) -> None:
    """Show every machine of a session until it ends. Exits with 0 if it completed and no machine failed."""
    name = resource("sessions", session)
    opened = connection(context)
    async with opened.dial() as channel:
        watched = SessionWatch(SessionServiceStub(channel), name, opened.resolve()[0])
        if as_json:
            await _show_json(watched)
        elif output().is_terminal:
            await _show_screen(watched)
        else:
            await _show_lines(watched)
    ended = watched.session
    if ended is None or (ended.state == Session.STATE_COMPLETED and not ended.failed_count):
        return
    why = f": {ended.error}" if ended.error else ""
    failed = f", {plural(ended.failed_count, 'machine')} failed" if ended.failed_count else ""
    raise UnsuccessfulError(f"session {identifier(ended.name)} is {short_name(ended, 'state')}{why}{failed}")


async def _show_json(watched: SessionWatch) -> None:
    async for change in watched.changes():
        if change is not None:
            participants: list[Plain] = [to_plain(participant) for participant in change.participants]
            write_json(
                {"session": to_plain(change.session), "participants": participants, "lost": change.lost}, lines=True
            )


async def _show_lines(watched: SessionWatch) -> None:
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
        line(session_change(watched.session, change.session))
        for participant in change.participants:
            line(machine_change(watched.participants.get(participant.name), participant))
    if watched.session is not None:
        console.print(summary(watched.session, watched.participants))


async def _show_screen(watched: SessionWatch) -> None:
    console = output()
    with Live(console=console, auto_refresh=False, transient=True) as live:
        async for _ in watched.changes():
            if watched.session is not None:
                live.update(
                    screen(watched.session, watched.participants, rows=console.height, notice=watched.notice),
                    refresh=True,
                )
    if watched.session is not None:
        console.print(summary(watched.session, watched.participants))
