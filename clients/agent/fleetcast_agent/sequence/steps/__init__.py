"""What runs each step type: those that ship, and those of the entry point group `fleetcast_agent.steps`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.metadata import entry_points

from fleetcast_agent.sequence.context import StepFunction
from fleetcast_agent.sequence.steps import (
    apply_image,
    boot,
    capture,
    command,
    drivers,
    linux_settings,
    machine,
    network_settings,
    package,
    partition,
    place_files,
    user_state,
    windows_settings,
)

ENTRY_POINT_GROUP = "fleetcast_agent.steps"


@cache
def step_functions() -> Mapping[str, StepFunction]:
    """Returns what runs each step type, by its name. A plugged-in one must not have the name of one that ships."""
    functions: dict[str, StepFunction] = {
        "check-readiness": machine.check_readiness,
        "gather-inventory": machine.gather_inventory,
        "set-variables": machine.set_variables,
        "restart": machine.restart,
        "partition-disk": partition.partition_disk,
        "format-volume": partition.format_volume,
        "apply-operating-system": apply_image.apply_operating_system,
        "apply-data-image": apply_image.apply_data_image,
        "download-package": package.download_package,
        "copy-files": place_files.copy_files,
        "apply-windows-settings": windows_settings.apply_windows_settings,
        "apply-linux-settings": linux_settings.apply_linux_settings,
        "apply-network-settings": network_settings.apply_network_settings,
        "apply-driver-package": drivers.apply_driver_package,
        "configure-boot": boot.configure_boot,
        "run-command": command.run_command,
        "run-script": command.run_script,
        "capture-user-state": user_state.capture_user_state,
        "restore-user-state": user_state.restore_user_state,
        "capture-image": capture.capture_image,
    }
    for entry_point in entry_points(group=ENTRY_POINT_GROUP):
        if entry_point.name in functions:
            raise TypeError(f"the entry point {entry_point.value} has the name of another step: {entry_point.name}")
        functions[entry_point.name] = entry_point.load()
    return functions
