"""`fleetcast sender watch`: what every sender does, as it changes."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterator
from typing import TYPE_CHECKING

import typer
from fleetcast.scheduler.v1.sender_service_pb2 import Sender, WatchSendersRequest, WatchSendersResponse
from fleetcast.scheduler.v1.sender_service_pb2_grpc import SenderServiceStub
from rich.console import Group, RenderableType
from rich.text import Text

from fleetcast_cli.senders.commands import group, sender_line, sender_table
from fleetcast_cli.shell.command import Json, command
from fleetcast_cli.shell.connection import connection
from fleetcast_cli.shell.plain import Plain, to_plain
from fleetcast_cli.shell.watching import Watch, show

if TYPE_CHECKING:
    from fleetcast.scheduler.v1.sender_service_pb2_grpc import SenderServiceAsyncStub


class SendersWatch(Watch[WatchSendersResponse]):
    """Every sender."""

    def __init__(self, senders: SenderServiceAsyncStub, address: str) -> None:
        super().__init__(address)
        self._service = senders
        self.senders: dict[str, Sender] = {}

    def open(self) -> AsyncIterable[WatchSendersResponse]:
        """Returns a new stream; it begins with all senders."""
        return self._service.WatchSenders(WatchSendersRequest())

    def merge(self, change: WatchSendersResponse) -> None:
        """Takes a change in."""
        self.senders |= {sender.name: sender for sender in change.senders}

    @property
    def ended(self) -> bool:
        """Never: they are watched until somebody has seen enough."""
        return False

    def plain(self, change: WatchSendersResponse) -> Plain:
        """Returns a change as JSON has it."""
        return to_plain(change)

    def lines(self, change: WatchSendersResponse) -> Iterator[str | None]:
        """Yields what a change says for people."""
        for sender in change.senders:
            known = self.senders.get(sender.name)
            yield sender_line(sender) if known is None or sender_line(known) != sender_line(sender) else None

    def screen(self, rows: int) -> RenderableType:
        """Returns all senders; those that a terminal so high has no room for are left out."""
        shown = [self.senders[name] for name in sorted(self.senders)][: max(1, rows - 4)]
        notice = [Text(self.notice, style="bold yellow")] if self.notice else []
        return Group(*notice, sender_table(shown) if shown else Text("no senders"))


@command(group, "watch", span="fleetcast sender watch")
async def watch(context: typer.Context, as_json: Json = False) -> None:
    """Show what every sender does, until Ctrl-C."""
    opened = connection(context)
    async with opened.dial() as channel:
        watched = SendersWatch(SenderServiceStub(channel), opened.resolve()[0])
        await show(watched, as_json=as_json)
