"""What operators see of senders, and do with them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from fleetcast_kit.errors import NotFoundError

from fleetcast_scheduler.audit.audit import Audit
from fleetcast_scheduler.senders.desk import SenderDesk
from fleetcast_scheduler.senders.domain.sender import Registration, Sender
from fleetcast_scheduler.senders.domain.transmission import UnicastReason

WATCH_SECONDS = 0.5
"""How often a watch looks for changes: senders report once a second, and people wait that long."""


@dataclass(frozen=True, slots=True)
class SenderView:
    """A sender as it is now, with what it sends."""

    name: str
    registration: Registration
    connected: bool
    draining: bool
    register_time: float
    transmissions: tuple[str, ...]
    rate_bits_per_second: int
    receiver_count: int
    multicast_warning: str
    """What is wrong with multicast in the network, in one sentence; empty if nothing is known to be."""
    unicast: tuple[tuple[UnicastReason, int], ...]
    """How many machines get chunks by unicast now, by the reason; the most frequent first."""
    contact_time: float = field(compare=False)
    """A sender that lives is in contact all the time: that alone is no news."""


class Senders:
    """The senders that have registered at some time."""

    def __init__(self, pump: SenderDesk, audit: Audit) -> None:
        self._pump = pump
        self._audit = audit

    def get(self, name: str) -> SenderView:
        """Returns a sender.

        Raises:
            NotFoundError: there is none of that name.
        """
        return self._view(self._sender(name))

    def list_senders(self, after: str) -> list[SenderView]:
        """Returns the senders in the order of names, after one."""
        present = self._pump.pool.senders
        return [self._view(present[name]) for name in sorted(present) if name > after]

    async def watch(self) -> AsyncIterator[list[SenderView]]:
        """Yields every sender, then those that changed, until the reader ends it."""
        shown: dict[str, SenderView] = {}
        first = True
        while True:
            await self._pump.decided()
            changed = [view for view in self.list_senders("") if shown.get(view.name) != view]
            if changed or first:
                yield changed
                shown |= {view.name: view for view in changed}
                first = False
            await asyncio.sleep(WATCH_SECONDS)

    async def drain(self, name: str, request_id: str, *, draining: bool) -> SenderView:
        """Gives a sender no more sessions, or again some; returns it.

        Raises:
            NotFoundError: there is none of that name.
        """
        sender = self._sender(name)
        if sender.draining is not draining:
            self._pump.drain_sender(name, draining)
            self._audit.record("sender.drain" if draining else "sender.resume", name, request_id)
        await self._pump.durable()
        return self._view(sender)

    def _sender(self, name: str) -> Sender:
        try:
            return self._pump.pool.senders[name]
        except KeyError:
            raise NotFoundError(
                f"there is no sender {name.rpartition('/')[2]}: `fleetcast sender list` shows what there is",
                reason="SENDER_NOT_FOUND",
            ) from None

    def _view(self, sender: Sender) -> SenderView:
        transmissions = self._pump.pool.transmissions.values()
        running = [one for one in transmissions if one.sender == sender.name and one.state.live]
        return SenderView(
            name=sender.name,
            registration=sender.registration,
            connected=sender.connected,
            draining=sender.draining,
            register_time=sender.register_time,
            transmissions=tuple(one.name for one in running),
            rate_bits_per_second=sum(one.totals.rate_bits_per_second for one in running),
            receiver_count=sum(one.totals.receiver_count for one in running),
            multicast_warning=next(filter(None, map(self._pump.pool.multicast_warning, running)), ""),
            unicast=tuple(Counter(reason for one in running for reason in one.unicast.values()).most_common()),
            contact_time=self._pump.clock() if sender.connected else sender.contact_time,
        )
