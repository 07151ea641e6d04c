"""`fleetcast session watch`: every machine of a session, until it ends; a server that restarts is waited for."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterator
from typing import TYPE_CHECKING

import typer
from fleetcast.scheduler.v1.session_pb2 import Participant, Session
from fleetcast.scheduler.v1.session_service_pb2 import WatchSessionRequest, WatchSessionResponse
from fleetcast.scheduler.v1.session_service_pb2_grpc import SessionServiceStub
from rich.console import RenderableType

from fleetcast_cli.sessions.commands import Name, group
from fleetcast_cli.sessions.view import FINAL_STATES, machine_change, screen, session_change, summary
from fleetcast_cli.shell.command import Json, command
from fleetcast_cli.shell.connection import connection
from fleetcast_cli.shell.plain import Plain, short_name, to_plain
from fleetcast_cli.shell.references import identifier, resource
from fleetcast_cli.shell.text import output, plural
from fleetcast_cli.shell.watching import UnsuccessfulError, Watch, show

if TYPE_CHECKING:
    from fleetcast.scheduler.v1.session_service_pb2_grpc import SessionServiceAsyncStub


class SessionWatch(Watch[WatchSessionResponse]):
    """A session and its participants."""

    def __init__(self, sessions: SessionServiceAsyncStub, name: str, address: str) -> None:
        super().__init__(address)
        self._sessions = sessions
        self.session = Session(name=name)
        self.participants: dict[str, Participant] = {}

    def open(self) -> AsyncIterable[WatchSessionResponse]:
        """Returns a new stream, from the last revision on."""
        request = WatchSessionRequest(name=self.session.name, after_revision=self.session.revision)
        return self._sessions.WatchSession(request)

    def merge(self, change: WatchSessionResponse) -> None:
        """Takes a change in."""
        self.session = change.session
        self.participants |= {participant.name: participant for participant in change.participants}

    @property
    def ended(self) -> bool:
        """True when the session is in a final state."""
        return self.session.state in FINAL_STATES

    def plain(self, change: WatchSessionResponse) -> Plain:
        """Returns a change as JSON has it."""
        participants: list[Plain] = [to_plain(participant) for participant in change.participants]
        return {"session": to_plain(change.session), "participants": participants, "lost": change.lost}

    def lines(self, change: WatchSessionResponse) -> Iterator[str | None]:
        """Yields what a change says for people."""
        yield session_change(self.session if self.session.revision else None, change.session)
        for participant in change.participants:
            yield machine_change(self.participants.get(participant.name), participant)

    def screen(self, rows: int) -> RenderableType:
        """Returns what fits on a terminal so high."""
        return screen(self.session, self.participants, rows=rows, notice=self.notice)


@command(group, "watch", span="fleetcast session watch")
async def watch(context: typer.Context, session: Name, as_json: Json = False) -> None:
    """Show every machine of a session until it ends. Exits with 0 if it completed and no machine failed."""
    name = resource("sessions", session)
    opened = connection(context)
    async with opened.dial() as channel:
        watched = SessionWatch(SessionServiceStub(channel), name, opened.resolve()[0])
        await show(watched, as_json=as_json)
    ended = watched.session
    if not as_json:
        output().print(summary(ended, watched.participants))
    if ended.state == Session.STATE_COMPLETED and not ended.failed_count:
        return
    why = f": {ended.error}" if ended.error else ""
    failed = f", {plural(ended.failed_count, 'machine')} failed" if ended.failed_count else ""
    raise UnsuccessfulError(f"session {identifier(ended.name)} is {short_name(ended, 'state')}{why}{failed}")
