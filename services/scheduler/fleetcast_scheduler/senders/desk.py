"""What the loop does for senders, as their services need it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Protocol

from fleetcast_scheduler.senders.domain.pool import SenderPool
from fleetcast_scheduler.senders.domain.sender import Registration
from fleetcast_scheduler.senders.domain.transmission import TransmissionReport
from fleetcast_scheduler.senders.streams import SenderStream


class SenderDesk(Protocol):
    """The loop that decides about sessions and senders together."""

    clock: Callable[[], float]

    @property
    def pool(self) -> SenderPool:
        """The senders, as they are now."""

    async def decided(self) -> None:
        """Returns when everything decided so far is stored; begins no turn if nothing waits for one."""

    async def durable(self) -> None:
        """Returns when everything decided so far is stored."""

    def drain_sender(self, name: str, draining: bool) -> None:
        """An operator gives a sender no more sessions, or again some."""

    def connect_sender(self, name: str, registration: Registration, running: Collection[str]) -> SenderStream:
        """A sender opens a stream; an older one of the same sender ends."""

    def disconnect_sender(self, stream: SenderStream) -> None:
        """A sender's stream ended."""

    def wake_machines(self, mac_addresses: tuple[str, ...]) -> bool:
        """Has every connected sender wake machines; returns whether one is connected."""

    def answer_command(self, stream: SenderStream, command_id: int, error: str) -> None:
        """A sender answered a command."""

    def report_transmission(self, stream: SenderStream, report: TransmissionReport) -> None:
        """A sender reported on a transmission."""
