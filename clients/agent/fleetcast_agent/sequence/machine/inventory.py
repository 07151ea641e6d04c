"""What this machine is: the `machine` of conditions and templates."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fleetcast_sequence.machine import RULE_NAMES

from fleetcast_agent.sequence.machine.disks import Disks

_DMI = Path("/sys/class/dmi/id")
_NETWORK = Path("/sys/class/net")
_POWER = Path("/sys/class/power_supply")


def gather(disks: Disks, name: str = "") -> dict[str, Any]:
    """Returns the inventory: every key is always there, with an empty or zero value where the machine says nothing.

    `name` is the name the server knows the machine by.
    """
    return {
        "name": name,
        "manufacturer": _read(_DMI / "sys_vendor"),
        "model": _read(_DMI / "product_name"),
        "version": _read(_DMI / "product_version"),
        "serial": _read(_DMI / "product_serial"),
        "uuid": _read(_DMI / "product_uuid").lower(),
        "asset_tag": _read(_DMI / "chassis_asset_tag"),
        "board": _read(_DMI / "board_name"),
        "bios_version": _read(_DMI / "bios_version"),
        "firmware": "uefi" if Path("/sys/firmware/efi").exists() else "bios",
        "architecture": platform.machine(),
        "cpu_count": os.cpu_count() or 0,
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "external_power": external_power(),
        "disks": [
            {
                "path": str(disk.path),
                "size_bytes": disk.size_bytes,
                "sector_size_bytes": disk.sector_bytes,
                "model": disk.model,
                "serial": disk.serial,
            }
            for disk in disks.all()
        ],
        "adapters": _adapters(),
        "mac_addresses": [adapter["mac"] for adapter in _adapters()],
    }


def with_rule_names(machine: Mapping[str, Any]) -> dict[str, Any]:
    """Returns an inventory with the names that rules of collections use beside its own; they mean the same."""
    named = {theirs: machine[ours] for ours, theirs in RULE_NAMES.items() if ours in machine}
    disks = [
        disk
        | {theirs: disk[ours] for ours, theirs in (("path", "device"), ("serial", "serial_number")) if ours in disk}
        for disk in machine.get("disks", ())
    ]
    return dict(machine) | named | {"disks": disks}


def external_power() -> bool:
    """Returns whether the machine is on external power; true for one without a battery."""
    supplies = list(_POWER.iterdir()) if _POWER.exists() else []
    mains = [_read(supply / "online") for supply in supplies if _read(supply / "type") in ("Mains", "USB")]
    has_battery = any(_read(supply / "type") == "Battery" for supply in supplies)
    return not has_battery or "1" in mains


def processor() -> str:
    """Returns how the processor names itself; empty where it does not."""
    lines = _read(Path("/proc/cpuinfo")).splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def time_zone() -> str:
    """Returns the name of this system's time zone, such as `Europe/Vienna`; empty if it has none."""
    named = _read(Path("/etc/timezone"))
    target = os.path.realpath("/etc/localtime")
    return named or (target.partition("/zoneinfo/")[2] if "/zoneinfo/" in target else "")


def boot_id() -> str:
    """Returns the identity of this run of the machine; another one after each start."""
    return _read(Path("/proc/sys/kernel/random/boot_id"))


def _adapters() -> list[dict[str, Any]]:
    return [
        {"name": entry.name, "mac": _read(entry / "address"), "link": _read(entry / "carrier") == "1"}
        for entry in (sorted(_NETWORK.iterdir()) if _NETWORK.exists() else ())
        if (entry / "device").exists()
    ]


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
