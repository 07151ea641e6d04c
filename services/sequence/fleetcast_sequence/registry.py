"""Step types by name: those that ship, and those that plug in.

A distribution adds a step type by an entry point of the group `fleetcast_sequence.step_types` whose value is a
`StepType`; the agent finds what runs it by an entry point of the same name in the group `fleetcast_agent.steps`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points

from fleetcast_sequence.model import InterruptionRule, SequenceModel
from fleetcast_sequence.steps import content, control, disk, settings

ENTRY_POINT_GROUP = "fleetcast_sequence.step_types"


@dataclass(frozen=True)
class StepType:
    """A kind of step: what a file may say about it, and what an interruption does to it."""

    name: str
    arguments: type[SequenceModel]
    """Checks `with`. Its docstring and the descriptions of its fields are the reference."""
    on_interruption: InterruptionRule


def _built_in() -> dict[str, StepType]:
    rerun, resume, fail = InterruptionRule.RERUN, InterruptionRule.RESUME, InterruptionRule.FAIL
    types = (
        StepType("check-readiness", control.CheckReadiness, rerun),
        StepType("gather-inventory", control.GatherInventory, rerun),
        StepType("partition-disk", disk.PartitionDisk, rerun),
        StepType("format-volume", disk.FormatVolume, resume),
        StepType("apply-operating-system", content.ApplyOperatingSystem, resume),
        StepType("apply-data-image", content.ApplyDataImage, resume),
        StepType("download-package", content.DownloadPackage, resume),
        StepType("copy-files", content.CopyFiles, rerun),
        StepType("apply-windows-settings", settings.ApplyWindowsSettings, rerun),
        StepType("apply-linux-settings", settings.ApplyLinuxSettings, rerun),
        StepType("apply-network-settings", settings.ApplyNetworkSettings, rerun),
        StepType("apply-driver-package", settings.ApplyDriverPackage, rerun),
        StepType("configure-boot", settings.ConfigureBoot, rerun),
        StepType("run-command", control.RunCommand, fail),
        StepType("run-script", control.RunScript, fail),
        StepType("set-variables", control.SetVariables, rerun),
        StepType("restart", control.Restart, rerun),
        StepType("capture-user-state", content.CaptureUserState, rerun),
        StepType("restore-user-state", content.RestoreUserState, resume),
        StepType("capture-image", content.CaptureImage, rerun),
        StepType("run-task-sequence", control.RunTaskSequence, rerun),
    )
    return {step_type.name: step_type for step_type in types}


@cache
def step_types() -> Mapping[str, StepType]:
    """Returns every step type by name, those of installed distributions included."""
    types = _built_in()
    for entry_point in entry_points(group=ENTRY_POINT_GROUP):
        loaded = entry_point.load()
        if not isinstance(loaded, StepType) or loaded.name != entry_point.name or loaded.name in types:
            raise TypeError(
                f"the entry point {entry_point.name} = {entry_point.value} must name a StepType of that name, "
                "and no other one may have it"
            )
        types[loaded.name] = loaded
    return types
