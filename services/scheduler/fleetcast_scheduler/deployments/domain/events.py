"""What is to be done about deployments, once what they decided is stored."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class ControlAction(StrEnum):
    """What a machine is to do with its run."""

    PAUSE = "PAUSE"
    RESUME = "RESUME"
    CANCEL = "CANCEL"


@dataclass(frozen=True, slots=True)
class RunOrdered:
    """A machine is to begin a run, or go on with it."""

    machine: str
    run: str


@dataclass(frozen=True, slots=True)
class RunControlled:
    """A machine is to do something with its run."""

    machine: str
    run: str
    action: ControlAction
    reason: str


@dataclass(frozen=True, slots=True)
class RunClosed:
    """The outcome of a run is recorded: the machine may forget it."""

    machine: str
    run: str


@dataclass(frozen=True, slots=True)
class Offer:
    """A deployment that somebody at the machine may ask for."""

    deployment: str
    description: str


@dataclass(frozen=True, slots=True)
class StandbyTold:
    """A machine has nothing to run now."""

    machine: str
    reason: str
    offers: tuple[Offer, ...] = ()


@dataclass(frozen=True, slots=True)
class MachinesWoken:
    """Machines that are not there are to be woken."""

    mac_addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RunFailed:
    """A run has failed: the log says so."""

    run: str
    machine: str
    display_name: str
    error: str


@dataclass(frozen=True, slots=True)
class DeploymentEnded:
    """A deployment is over and nothing of it is open: what the catalog holds for it is to be released."""

    deployment: str


RunMessage = RunOrdered | RunControlled | RunClosed | StandbyTold
RunEvent = RunMessage | MachinesWoken | RunFailed | DeploymentEnded
