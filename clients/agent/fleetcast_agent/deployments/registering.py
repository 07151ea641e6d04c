"""What this machine tells the server of itself when it registers."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleetcast_kit.values.hardware import Identifiers

from fleetcast_agent.receiving.messages import HardwareIdentifiers
from fleetcast_agent.sequence.machine import inventory
from fleetcast_agent.sequence.machine.disks import Disks

_logger = logging.getLogger(__name__)

HARDWARE_FILE = "hardware.json"
"""In the state directory: the hardware that it was registered from."""
_ARCHITECTURES = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64", "i386": "x86", "i686": "x86"}
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


@dataclass(frozen=True)
class DiskDescription:
    """A fixed disk."""

    device: str
    model: str
    serial_number: str
    size_bytes: int
    sector_size_bytes: int = 0
    """Of its logical sectors; 0 if that is not known."""


@dataclass(frozen=True)
class MachineDescription:
    """A machine; what is empty or 0 is not known."""

    display_name: str
    time_zone: str
    smbios_uuid: str
    serial_number: str
    mac_addresses: tuple[str, ...]
    manufacturer: str
    model: str
    architecture: str
    """`x86`, `x64`, `arm64`, or what the kernel calls another one."""
    firmware: str
    processor: str
    processor_count: int
    memory_bytes: int
    disks: tuple[DiskDescription, ...]


def describe(machine: Mapping[str, Any], display_name: str) -> MachineDescription:
    """Returns the description of the machine with this inventory."""
    return MachineDescription(
        display_name=display_name,
        time_zone=inventory.time_zone(),
        smbios_uuid=machine["uuid"],
        serial_number=machine["serial"],
        mac_addresses=tuple(mac for mac in map(str.lower, machine["mac_addresses"]) if _MAC.fullmatch(mac)),
        manufacturer=machine["manufacturer"],
        model=machine["model"],
        architecture=_ARCHITECTURES.get(machine["architecture"], machine["architecture"]),
        firmware=machine["firmware"],
        processor=inventory.processor(),
        processor_count=machine["cpu_count"],
        memory_bytes=machine["memory_bytes"],
        disks=tuple(
            DiskDescription(
                disk["path"], disk["model"], disk["serial"], disk["size_bytes"], disk.get("sector_size_bytes", 0)
            )
            for disk in machine["disks"]
        ),
    )


def kept_hardware(state_dir: Path) -> tuple[Identifiers, bool] | None:
    """Returns the hardware that a state directory was registered from, and whether that is made up or stated.

    None means that nothing is known.
    """
    file = state_dir / HARDWARE_FILE
    try:
        content = json.loads(file.read_text())
        found = {str(kind): frozenset(map(str, values)) for kind, values in content["identifiers"].items()}
        return found, bool(content["rehearsed"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        _logger.warning("%s cannot be used: %s", file, error)
        return None


def joining_hardware(state_dir: Path) -> HardwareIdentifiers:
    """Returns what tells this computer from others; nothing if its identity is that of a rehearsed machine. Blocks."""
    kept = kept_hardware(state_dir)
    if kept is not None and kept[1]:
        return HardwareIdentifiers()
    found = inventory.gather(Disks())
    return HardwareIdentifiers(found["uuid"], found["serial"], tuple(found["mac_addresses"]))
