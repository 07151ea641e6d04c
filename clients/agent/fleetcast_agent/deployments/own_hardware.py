"""Which hardware the state directory belongs to: it may come to another machine with an image or a disk."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from fleetcast_kit.files import write_atomically
from fleetcast_kit.identity.credentials import CERTIFICATE_FILE, KEY_FILE
from fleetcast_kit.values.hardware import Identifiers, difference, identifiers, is_other_hardware

from fleetcast_agent.deployments.kept_runs import KeptRuns
from fleetcast_agent.deployments.registering import HARDWARE_FILE, MachineDescription, describe, kept_hardware
from fleetcast_agent.sequence.disks import carrying
from fleetcast_agent.sequence.machine import inventory
from fleetcast_agent.sequence.machine.disks import Disks


class OwnHardware:
    """The hardware that one state directory was registered from."""

    def __init__(self, state_dir: Path, *, rehearsed: bool = False) -> None:
        """Takes the directory, and whether this machine's hardware is made up or stated: it is no computer's then."""
        self._state_dir = state_dir
        self._file = state_dir / HARDWARE_FILE
        self._rehearsed = rehearsed

    def difference(self, machine: MachineDescription) -> str:
        """Returns why the directory is that of another machine, in one sentence; empty if it is this one's, or new."""
        before, now = self._kept(), _identifiers(machine)
        if not is_other_hardware(before, now):
            return ""
        return f"{self._state_dir} belongs to another machine (here is {difference(before, now)})"

    def keep(self, machine: MachineDescription) -> None:
        """Remembers that the directory is this machine's."""
        found = {kind: sorted(values) for kind, values in _identifiers(machine).items()}
        content = json.dumps({"identifiers": found, "rehearsed": self._rehearsed}).encode()
        if not self._file.exists() or self._file.read_bytes() != content:
            write_atomically(self._file, content)

    def forget_identity(self) -> None:
        """Removes the other machine's key, and all that it had begun."""
        for name in (KEY_FILE, CERTIFICATE_FILE, HARDWARE_FILE):
            (self._state_dir / name).unlink(missing_ok=True)
        self.forget_runs()

    def forget_runs(self) -> None:
        """Removes what the other machine had begun, but for the logs: it must not go on here."""
        runs = KeptRuns(self._state_dir)
        if (kept := runs.unfinished()) is not None:
            runs.archive(kept)
        for name in ("runs", carrying.DIRECTORY):
            shutil.rmtree(self._state_dir / name, ignore_errors=True)

    def _kept(self) -> Identifiers:
        found, rehearsed = kept_hardware(self._state_dir) or ({}, self._rehearsed)
        return found if rehearsed is self._rehearsed else {}


def leave_other_machine(state_dir: Path, display_name: str) -> str:
    """Removes the identity in a state directory that came from another computer.

    Returns why it is another's, in one sentence; empty if it is this computer's own.
    """
    own = OwnHardware(state_dir)
    difference = own.difference(describe(inventory.gather(Disks()), display_name))
    if difference:
        own.forget_identity()
    return difference


def _identifiers(machine: MachineDescription) -> Identifiers:
    return identifiers(machine.smbios_uuid, machine.serial_number, machine.mac_addresses)
