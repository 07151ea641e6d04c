"""Machines and collections of the API as domain objects, and back; fields are checked here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime

from fleetcast.scheduler.v1 import collection_service_pb2, machine_service_pb2
from fleetcast_kit.errors import InvalidArgumentError
from fleetcast_kit.rpc.fields import duration, enum_name, seconds_of, timestamp

from fleetcast_scheduler.calendar.local_time import time_zone
from fleetcast_scheduler.machines.domain.collection import Collection, Rule
from fleetcast_scheduler.machines.domain.machine import (
    Disk,
    Inventory,
    Machine,
    RegistrationAction,
    RegistrationPolicy,
    check_variables,
    mac_address,
)
from fleetcast_scheduler.machines.domain.maintenance import MAX_WINDOW_COUNT, MaintenanceWindow
from fleetcast_scheduler.machines.domain.presence import MachinePresence
from fleetcast_scheduler.names import collection_name

MAX_TEXT_LENGTH = 255
_PLAIN = ("smbios_uuid", "serial_number", "manufacturer", "model", "architecture", "firmware", "processor")


def inventory_of(message: machine_service_pb2.Inventory) -> Inventory:
    """Returns the hardware in a request.

    Raises:
        InvalidArgumentError: an address or a number is impossible.
    """
    if message.memory_bytes < 0 or message.processor_count < 0 or any(disk.size_bytes < 0 for disk in message.disks):
        raise InvalidArgumentError("a size or count of the inventory is negative", field="inventory")
    return Inventory(
        **{field: getattr(message, field).strip()[:MAX_TEXT_LENGTH] for field in _PLAIN},
        mac_addresses=tuple(mac_address(text) for text in message.mac_addresses),
        processor_count=message.processor_count,
        memory_bytes=message.memory_bytes,
        disks=tuple(
            Disk(disk.device, disk.model, disk.serial_number, disk.size_bytes, disk.sector_size_bytes)
            for disk in message.disks
        ),
    )


def time_zone_said(name: str) -> str:
    """Returns the time zone that a machine says it is in; empty if nobody here knows it."""
    try:
        return time_zone(name).key if name else ""
    except InvalidArgumentError:
        return ""


def machine_message(machine: Machine, presence: MachinePresence | None = None) -> machine_service_pb2.Machine:
    """Returns a machine as the API shows it."""
    presence = presence or MachinePresence()
    return machine_service_pb2.Machine(
        name=machine.name,
        display_name=machine.display_name,
        state=machine_service_pb2.Machine.State.Value(f"STATE_{machine.state}"),
        held_reason=machine.held_reason,
        code=machine.code,
        resembles=machine.resembles,
        inventory=_inventory_message(machine.inventory),
        claimed_inventory=None if machine.claimed is None else _inventory_message(machine.claimed),
        variables=machine.variables,
        protected=machine.protected,
        time_zone=machine.time_zone,
        create_time=timestamp(machine.create_time),
        register_time=timestamp(machine.register_time),
        etag=str(machine.edit_count),
        connected=presence.connected,
        contact_time=timestamp(presence.contact_time),
        current_run=presence.current_run,
    )


def _inventory_message(inventory: Inventory) -> machine_service_pb2.Inventory:
    return machine_service_pb2.Inventory(
        **{field: getattr(inventory, field) for field in _PLAIN},
        mac_addresses=inventory.mac_addresses,
        processor_count=inventory.processor_count,
        memory_bytes=inventory.memory_bytes,
        disks=[
            machine_service_pb2.Disk(
                device=disk.device,
                model=disk.model,
                serial_number=disk.serial_number,
                size_bytes=disk.size_bytes,
                sector_size_bytes=disk.sector_size_bytes,
            )
            for disk in inventory.disks
        ],
    )


def machine_edit(message: machine_service_pb2.Machine, paths: Iterable[str]) -> Callable[[Machine], Machine]:
    """Returns what a request does to a machine.

    Raises:
        InvalidArgumentError: a path names what cannot change, or a value is wrong.
    """
    chosen = _check_paths(paths, ("display_name", "variables", "protected"))
    values: dict[str, object] = {
        "display_name": message.display_name[:MAX_TEXT_LENGTH],
        "variables": check_variables(dict(message.variables)),
        "protected": message.protected,
    }
    changes = {path: values[path] for path in chosen}
    return lambda machine: replace(machine, **changes)  # type: ignore[arg-type]


def policy_of(message: machine_service_pb2.RegistrationPolicy) -> RegistrationPolicy:
    """Returns the registration policy in a request. A collection alone is for accepted machines.

    Raises:
        InvalidArgumentError: the message is empty, or the name of the collection is not valid.
    """
    if not message.action and not message.collection:
        raise InvalidArgumentError(
            "the policy says nothing: choose what becomes of unknown machines, ACTION_ACCEPT, ACTION_HOLD or "
            "ACTION_REFUSE",
            field="policy.action",
        )
    action = enum_name(machine_service_pb2.RegistrationPolicy.Action, message.action, "ACTION_", "policy.action")
    if message.collection:
        collection_name(message.collection, "policy.collection")
    imported = enum_name(
        machine_service_pb2.RegistrationPolicy.Action, message.imported_action, "ACTION_", "policy.imported_action"
    )
    if imported == RegistrationAction.REFUSE:
        raise InvalidArgumentError(
            "imported machines cannot be refused: remove their records, or hold them", field="policy.imported_action"
        )
    return RegistrationPolicy(_action(action), message.collection, _action(imported))


def _action(name: str) -> RegistrationAction:
    return RegistrationAction.ACCEPT if name == "UNSPECIFIED" else RegistrationAction(name)


def policy_message(policy: RegistrationPolicy) -> machine_service_pb2.RegistrationPolicy:
    """Returns the registration policy as the API shows it."""
    return machine_service_pb2.RegistrationPolicy(
        action=machine_service_pb2.RegistrationPolicy.Action.Value(f"ACTION_{policy.action}"),
        collection=policy.collection,
        imported_action=machine_service_pb2.RegistrationPolicy.Action.Value(f"ACTION_{policy.imported}"),
    )


def collection_of(message: collection_service_pb2.Collection) -> Collection:
    """Returns the collection in a request.

    Raises:
        InvalidArgumentError: its name, rule or a variable is wrong.
    """
    if message.rule:
        Rule(message.rule)
    return Collection(
        name=collection_name(message.name, "collection.name"),
        create_time=0.0,
        description=message.description[:MAX_TEXT_LENGTH],
        rule=message.rule,
        variables=check_variables(dict(message.variables)),
        protected=message.protected,
        maintenance_windows=_windows_of(message.maintenance_windows),
    )


def collection_edit(
    message: collection_service_pb2.Collection, paths: Iterable[str]
) -> Callable[[Collection], Collection]:
    """Returns what a request does to a collection.

    Raises:
        InvalidArgumentError: a path names what cannot change, or a value is wrong.
    """
    chosen = _check_paths(paths, ("description", "rule", "variables", "protected", "maintenance_windows"))
    edited = collection_of(message)
    changes = {path: getattr(edited, path) for path in chosen}
    return lambda collection: replace(collection, **changes)


def collection_message(collection: Collection, named_member_count: int) -> collection_service_pb2.Collection:
    """Returns a collection as the API shows it."""
    return collection_service_pb2.Collection(
        name=collection.name,
        description=collection.description,
        rule=collection.rule,
        variables=collection.variables,
        protected=collection.protected,
        named_member_count=named_member_count,
        maintenance_windows=[
            collection_service_pb2.MaintenanceWindow(
                start=window.start.isoformat(timespec="minutes"),
                duration=duration(window.duration_seconds),
                recurrence=window.recurrence,
                time_zone=window.time_zone,
            )
            for window in collection.maintenance_windows
        ],
        create_time=timestamp(collection.create_time),
        etag=str(collection.edit_count),
    )


def _windows_of(messages: Sequence[collection_service_pb2.MaintenanceWindow]) -> tuple[MaintenanceWindow, ...]:
    field = "collection.maintenance_windows"
    if len(messages) > MAX_WINDOW_COUNT:
        raise InvalidArgumentError(
            f"a collection has {len(messages)} maintenance windows: {MAX_WINDOW_COUNT} are the most", field=field
        )
    windows = tuple(
        MaintenanceWindow(
            start=local_time_of(message.start, field),
            duration_seconds=seconds_of(message.duration, field),
            recurrence=message.recurrence,
            time_zone=message.time_zone,
        )
        for message in messages
    )
    for window in windows:
        window.check()
    return windows


def local_time_of(text: str, field: str) -> datetime:
    """Returns a local time without a zone, such as `2026-12-01T22:00`.

    Raises:
        InvalidArgumentError: the text is not such a time.
    """
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        time = None
    if time is None or time.tzinfo is not None or "T" not in text:
        raise InvalidArgumentError(
            f"{text!r} is not a time on a clock: write it like 2026-12-01T22:00, without a time zone", field=field
        )
    return time


def _check_paths(paths: Iterable[str], editable: tuple[str, ...]) -> list[str]:
    chosen = list(paths)
    wrong = [path for path in chosen if path not in editable]
    if wrong or not chosen:
        what = f"{wrong[0]!r} cannot be changed" if wrong else "update_mask is empty"
        raise InvalidArgumentError(f"{what}: name some of {', '.join(editable)}", field="update_mask")
    return chosen
