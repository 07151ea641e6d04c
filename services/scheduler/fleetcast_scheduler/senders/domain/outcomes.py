"""What happened to transmissions, for the sessions that they serve."""

from __future__ import annotations

from dataclasses import dataclass

from fleetcast_scheduler.senders.domain.transmission import Transmission


@dataclass(frozen=True, slots=True)
class MachinesAdmitted:
    """The sender knows these machines: they may be told where to receive."""

    transmission: Transmission
    machines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TransmissionLost:
    """A session has no transmission any more; with an `error` the transmission itself failed."""

    session: str
    transmission: Transmission
    error: str = ""


@dataclass(frozen=True, slots=True)
class TransmissionResumed:
    """A sender came back with a transmission that goes on: its machines must be admitted again."""

    session: str


@dataclass(frozen=True, slots=True)
class CapacityChanged:
    """A sender or a lease became available."""


Outcome = MachinesAdmitted | TransmissionLost | TransmissionResumed | CapacityChanged
