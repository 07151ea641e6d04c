"""The machine as conditions and the server see it: this computer, or one that is rehearsed on disk files."""

from __future__ import annotations

import json
import socket
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fleetcast_kit.errors import InvalidArgumentError

from fleetcast_agent.sequence.errors import StepError
from fleetcast_agent.sequence.machine import inventory
from fleetcast_agent.sequence.machine.disks import Disks


class Hardware:
    """What this machine is."""

    def __init__(self, disks: Disks, stated: Mapping[str, Any]) -> None:
        """Takes its disks, and what is said in place of what this computer says of itself."""
        self.disks = disks
        self._stated = dict(stated)

    @property
    def stated(self) -> bool:
        """Whether something is said in place of what this computer says of itself."""
        return bool(self._stated)

    def gather(self) -> dict[str, Any]:
        """Returns the inventory, as `machine` of conditions. Blocks."""
        return inventory.gather(self.disks) | self._stated


_ELEMENTS: Mapping[str, Any] = {
    "mac_addresses": "02:00:00:00:00:01",
    "disks": {"path": "/dev/sda", "size_bytes": 256000000000, "model": "", "serial": ""},
    "adapters": {"name": "eth0", "mac": "02:00:00:00:00:01", "link": True},
}
"""An example of what each list of an inventory holds."""
_OPTIONAL = {"sector_size_bytes": 512}
"""What an element may leave out."""


def open_hardware(disk_paths: Sequence[Path], inventory_file: Path | None, state_dir: Path) -> Hardware:
    """Returns the machine whose disks are `disk_paths`, or this computer's own if there are none.

    A machine on disk files that no inventory file describes is another one in each state directory.

    Raises:
        InvalidArgumentError: a disk is not there, or the inventory file is not correct.
    """
    disks = Disks(named=disk_paths)
    try:
        for path in disk_paths:
            disks.find(str(path))
    except StepError as error:
        raise InvalidArgumentError(f"--disk: {error.message}", field="disk") from error
    if inventory_file is not None:
        return Hardware(disks, _stated_in(inventory_file, known=inventory.gather(disks)))
    return Hardware(disks, _made_up(state_dir) if on_files(disk_paths) else {})


def on_files(disk_paths: Sequence[Path]) -> bool:
    """Returns whether the machine is rehearsed: its disk is a file."""
    return bool(disk_paths) and disk_paths[0].is_file()


def _stated_in(file: Path, known: Mapping[str, Any]) -> dict[str, Any]:
    try:
        stated = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidArgumentError(f"the inventory {file} cannot be read: {error}", field="inventory") from error
    if not isinstance(stated, dict):
        raise InvalidArgumentError(f"the inventory {file} holds no JSON object", field="inventory")
    for name, value in stated.items():
        if name not in known:
            raise InvalidArgumentError(
                f"the inventory {file} has {name!r}, and an inventory has: {', '.join(sorted(known))}",
                field="inventory",
            )
        if type(value) is not type(known[name]):
            wanted = type(known[name]).__name__
            raise InvalidArgumentError(f"{name!r} in the inventory {file} must be of the type {wanted}", field=name)
        if name in _ELEMENTS and not all(_resembles(element, _ELEMENTS[name]) for element in value):
            raise InvalidArgumentError(
                f"{name!r} in the inventory {file} must be a list like {json.dumps([_ELEMENTS[name]])}", field=name
            )
    if "mac_addresses" in stated and "adapters" not in stated:
        stated["adapters"] = _adapters(stated["mac_addresses"])
    return stated


def _resembles(value: object, example: object) -> bool:
    """Returns whether a value has the type of the example, and an object its keys with values of their types."""
    if isinstance(value, dict) and isinstance(example, dict):
        known = example | {name: each for name, each in _OPTIONAL.items() if name in value}
        return value.keys() == known.keys() and all(_resembles(value[key], known[key]) for key in known)
    return type(value) is type(example)


def _made_up(state_dir: Path) -> dict[str, Any]:
    identity = uuid.uuid5(uuid.NAMESPACE_URL, f"fleetcast-rehearsal://{socket.gethostname()}{state_dir.resolve()}")
    number = identity.hex
    # Locally administered, unicast.
    mac = ":".join(("02", *(number[place : place + 2] for place in range(0, 10, 2))))
    return {
        "manufacturer": "fleetcast",
        "model": "rehearsal",
        "serial": f"R{number[:11].upper()}",
        "uuid": str(identity),
        "mac_addresses": [mac],
        "adapters": _adapters([mac]),
    }


def _adapters(mac_addresses: Sequence[str]) -> list[dict[str, Any]]:
    return [{"name": f"eth{index}", "mac": mac, "link": True} for index, mac in enumerate(mac_addresses)]
