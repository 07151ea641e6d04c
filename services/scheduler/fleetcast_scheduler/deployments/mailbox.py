"""A machine's stream for deployments: what it is to hear, until the handler of the stream sends it."""

from __future__ import annotations

from fleetcast.scheduler.v1 import run_service_pb2

from fleetcast_scheduler.deployments.domain.events import RunClosed, RunControlled, StandbyTold
from fleetcast_scheduler.loop.mailbox import Mailbox

RunNews = run_service_pb2.RunOrder | RunControlled | RunClosed | StandbyTold
"""An order is written as the message that is sent: it is large, and a third form of it would say the same again."""


class RunMailbox(Mailbox[RunNews]):
    """Keeps everything, in order, but of standbys the latest alone. The rules post few messages for one run."""

    def __init__(self, machine: str) -> None:
        super().__init__(machine)
        self._last_standby: StandbyTold | None = None

    def kept(self, waiting: list[RunNews], message: RunNews) -> list[RunNews]:
        """Returns what waits from now on; a standby that says the same as the one before is left out."""
        if isinstance(message, StandbyTold):
            if message == self._last_standby:
                return waiting
            self._last_standby = message
            if waiting and isinstance(waiting[-1], StandbyTold):
                waiting = waiting[:-1]
        elif isinstance(message, run_service_pb2.RunOrder):
            self._last_standby = None
        return [*waiting, message]
