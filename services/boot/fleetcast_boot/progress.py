"""How far each machine got that starts from the network, and why it may have stopped. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from fleetcast_boot.domain import Answer, Asker

MAX_MACHINES = 4_096
"""Of those that were heard last; with a name and a few numbers each, under 4 MB."""

SILENT_SECONDS = 20.0
"""How long a machine may be silent between two stages before a reason is looked for: a slow loader needs about ten."""


class Stage(IntEnum):
    """What a machine did, in the order in which it does it."""

    ASKED = 1
    """It asked what to start."""
    LOADER = 2
    """It fetched the boot loader."""
    MENU = 3
    """The boot loader asked for this machine's menu."""
    KERNEL = 4
    """The kernel was fetched."""
    FIRST_STAGE = 5
    """The first stage was fetched."""
    IMAGE = 6
    """The running first stage fetched the rest of the image."""

    @property
    def words(self) -> str:
        """What people call it."""
        return self.name.lower().replace("_", " ")


_REASONS = {
    Stage.ASKED: "it asked, and never fetched the boot loader: switches with DHCP snooping drop answers until the boot "
    "server's port is trusted; or another boot server answered first; or the firmware ignores a second answer: "
    "enter the options of `fleetcast boot show --dhcp-options` in the DHCP server",
    Stage.LOADER: "it fetched the boot loader, which never asked for its menu: an old signed GRUB has no network here, "
    "Secure Boot refused it, or a firewall blocks the boot server's HTTP port",
    Stage.MENU: "it was told to start the boot image, and never fetched the kernel: a firewall, or too little memory",
    Stage.KERNEL: "it fetched the kernel, and not the first stage: the connection broke, or the memory was too small",
    Stage.FIRST_STAGE: "its kernel started, and never fetched the rest: its network card has no driver in the boot "
    "image, or no DHCP server gave it an address",
    Stage.IMAGE: "it has the whole boot image, and its agent was not heard: look at its screen",
}


@dataclass(slots=True)
class MachineProgress:
    """How far one machine got since it last asked."""

    asker: Asker
    stage: Stage = Stage.ASKED
    heard_at: float = 0.0
    """When it last did something, in the caller's seconds."""
    answer: Answer = Answer.SILENT
    reason: str = ""
    """Why it was answered so."""
    began_at: float = 0.0
    """When it first asked, this time."""

    def likely_reason(self, now: float) -> str:
        """Returns why it stopped, in a sentence; empty as long as it goes on, or if it starts its own disk."""
        starts_image = self.answer in (Answer.INSTALL, Answer.KNOCK) or self.stage < Stage.MENU
        if self.answer is Answer.SILENT or not starts_image or now - self.heard_at < SILENT_SECONDS:
            return ""
        return _REASONS[self.stage]


class BootProgress:
    """How far machines got, by MAC address: as many as are remembered."""

    def __init__(self, most: int = MAX_MACHINES) -> None:
        self._most = most
        self._machines: OrderedDict[str, MachineProgress] = OrderedDict()

    def __iter__(self) -> Iterator[MachineProgress]:
        return iter(self._machines.values())

    def asked(self, asker: Asker, answer: Answer, reason: str, now: float) -> None:
        """Notes that a machine asked what to start, and what it was told: its way begins anew."""
        known = self._machines.get(asker.mac_address)
        if known is None or known.stage is not Stage.ASKED:
            known = MachineProgress(asker, began_at=now)
        known.asker, known.heard_at, known.answer, known.reason = asker, now, answer, reason
        self._machines[asker.mac_address] = known
        self._machines.move_to_end(asker.mac_address)
        while len(self._machines) > self._most:
            self._machines.popitem(last=False)

    def reached(self, mac_address: str, stage: Stage, now: float) -> None:
        """Notes that a machine came to a stage; one that never asked here is not noted."""
        known = self._machines.get(mac_address)
        if known is not None:
            known.stage = max(stage, known.stage)
            known.heard_at = now

    def decided(self, mac_address: str, answer: Answer, reason: str) -> None:
        """Notes what a machine was told in its menu."""
        if known := self._machines.get(mac_address):
            known.answer, known.reason = answer, reason
