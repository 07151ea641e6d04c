"""Machines for people: a table, and everything about one."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from fleetcast.scheduler.v1.machine_service_pb2 import Disk, Machine
from rich.table import Table

from fleetcast_cli.shell.plain import short_name
from fleetcast_cli.shell.references import identifier
from fleetcast_cli.shell.text import ABSENT, format_bytes, format_distance, format_time, table
from fleetcast_cli.task_sequences.variables import format_variables

BINARY_GB = 1 << 30


def machine_label(machine: Machine) -> str:
    """Returns how a machine is called in a sentence: `pc-7 (ab12)`, or its id alone."""
    name = identifier(machine.name)
    return f"{machine.display_name} ({name})" if machine.display_name else name


def machine_list(machines: Iterable[Machine], *, now: datetime | None = None) -> Table:
    """Returns a table with one row for each machine, by the names that people know them by."""
    rows = table("machine", "name", "state", "heard", "model", "memory", "", right=("memory",))
    for machine in sorted(machines, key=_known_as):
        rows.add_row(
            identifier(machine.name),
            machine.display_name or ABSENT,
            short_name(machine, "state"),
            contact(machine, now or datetime.now(UTC)),
            machine.inventory.model or ABSENT,
            _memory(machine.inventory.memory_bytes) or ABSENT,
            ", ".join(filter(None, [_held(machine), "protected" if machine.protected else ""])),
        )
    return rows


def contact(machine: Machine, now: datetime) -> str:
    """Returns when a machine's agent was last heard: `now`, `3 h 10 min ago`, `never`."""
    if machine.connected:
        return "now"
    heard = machine.contact_time if machine.HasField("contact_time") else machine.register_time
    return format_distance(heard.ToDatetime(UTC) - now) if heard.ToNanoseconds() else "never"


def machine_fields(machine: Machine, *, now: datetime | None = None) -> list[tuple[str, str]]:
    """Returns names and values of what is known about a machine."""
    hardware = machine.inventory
    heard = contact(machine, now or datetime.now(UTC))
    return [
        ("machine", identifier(machine.name)),
        ("name", machine.display_name),
        ("state", "; ".join(filter(None, [short_name(machine, "state"), _held(machine)]))),
        ("protected", "yes: never the target of a deployment" if machine.protected else ""),
        ("heard", heard + (f", {format_time(machine.contact_time)}" if machine.HasField("contact_time") else "")),
        ("runs", machine.current_run.removeprefix("deployments/")),
        ("time zone", machine.time_zone),
        ("created", format_time(machine.create_time)),
        ("registered", format_time(machine.register_time) if machine.HasField("register_time") else ""),
        ("model", " ".join(filter(None, [hardware.manufacturer, hardware.model]))),
        ("SMBIOS UUID", hardware.smbios_uuid),
        ("serial number", hardware.serial_number),
        ("MAC addresses", " ".join(hardware.mac_addresses)),
        ("says it is", _claim(machine)),
        ("firmware", " ".join(filter(None, [hardware.firmware, hardware.architecture]))),
        ("processor", _processor(machine)),
        ("memory", _memory(hardware.memory_bytes)),
        ("disks", "\n".join(map(_disk, hardware.disks))),
        ("variables", format_variables(machine.variables)),
    ]


def _claim(machine: Machine) -> str:
    """Returns what a held machine says of itself now, where that is not what it was."""
    if not machine.HasField("claimed_inventory"):
        return ""
    claimed = machine.claimed_inventory
    said = [claimed.serial_number, claimed.smbios_uuid, *claimed.mac_addresses, claimed.manufacturer, claimed.model]
    return " ".join(filter(None, said))


def _known_as(machine: Machine) -> tuple[str, str]:
    return machine.display_name or identifier(machine.name), machine.name


def _held(machine: Machine) -> str:
    return machine.held_reason if machine.state == Machine.STATE_HELD else ""


def _memory(size_bytes: int) -> str:
    """Returns a size as memory is sold: in binary gigabytes."""
    return f"{size_bytes / BINARY_GB:.3g} GiB" if size_bytes else ""


def _processor(machine: Machine) -> str:
    count = machine.inventory.processor_count
    return " ".join(filter(None, [f"{count} x" if count else "", machine.inventory.processor]))


def _disk(disk: Disk) -> str:
    return " ".join(filter(None, [disk.device, format_bytes(disk.size_bytes) if disk.size_bytes else "", disk.model]))
