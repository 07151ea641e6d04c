"""What senders are told to do."""

from __future__ import annotations

from dataclasses import dataclass

from fleetcast_scheduler.senders.domain.policies import RatePolicy, SlowPolicy


@dataclass(frozen=True, slots=True)
class StartTransmission:
    """Begin a transmission."""

    transmission: str
    image: str
    group: str
    port: int
    rate: RatePolicy
    machines: tuple[str, ...]
    traceparent: str
    slow_policy: SlowPolicy


@dataclass(frozen=True, slots=True)
class AdmitParticipants:
    """Let machines take part."""

    transmission: str
    machines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DismissParticipants:
    """Take machines out."""

    transmission: str
    machines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MoveToUnicast:
    """Serve machines apart from the group."""

    transmission: str
    machines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SetTransmissionRate:
    """Change the rate."""

    transmission: str
    rate: RatePolicy


@dataclass(frozen=True, slots=True)
class StopTransmission:
    """End a transmission."""

    transmission: str


@dataclass(frozen=True, slots=True)
class WakeMachines:
    """Machines in the sender's subnets are to be woken."""

    mac_addresses: tuple[str, ...]
    transmission: str = ""
    """None: it concerns the sender alone."""


Command = (
    StartTransmission
    | AdmitParticipants
    | DismissParticipants
    | MoveToUnicast
    | SetTransmissionRate
    | StopTransmission
    | WakeMachines
)


@dataclass(frozen=True, slots=True)
class CommandIssued:
    """A sender is to carry this out, on the stream with this epoch and on no later one."""

    sender: str
    epoch: int
    command: Command
