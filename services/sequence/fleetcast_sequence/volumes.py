"""The names of volumes that steps give and use: one that nothing gives is found before a disk is erased."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from fleetcast_sequence.expression import is_template
from fleetcast_sequence.model import Step, TaskSequence, walk
from fleetcast_sequence.steps.disk import LAYOUTS

_ARGUMENTS: Mapping[str, tuple[str, ...]] = {
    "format-volume": ("volume",),
    "apply-operating-system": ("volume", "spool"),
    "apply-data-image": ("volume", "spool"),
    "copy-files": ("volume",),
    "capture-image": ("volume", "spool"),
    "capture-user-state": ("volume",),
    "restore-user-state": ("volume",),
    "apply-windows-settings": ("volume",),
    "apply-linux-settings": ("volume",),
    "apply-network-settings": ("volume",),
    "apply-driver-package": ("volume",),
    "configure-boot": ("volume", "efi_volume"),
    "run-command": ("inside",),
    "run-script": ("inside",),
    "restart": ("carry_state_to",),
}
"""Arguments that name a volume, by step type."""

Path = tuple[str | int, ...]
StepArguments = tuple[Path, str, Mapping[str, Any]]
"""Where a step stands, its type, and its arguments."""


def unnamed_volumes(steps: Iterable[StepArguments]) -> Iterator[tuple[Path, str]]:
    """Yields where a step uses the name of a volume that no step gives, and what is wrong with that.

    Of a sequence that names none at all nothing is said: one that it is put into may name them.
    """
    listed = list(steps)
    named: set[str] = set()
    for _, kind, arguments in listed:
        found = _given(kind, arguments)
        if found is None:
            return  # a name is computed: nobody knows ahead
        named |= found
    has_children = any(kind == "run-task-sequence" for _, kind, _ in listed)
    if not named:
        return
    for path, kind, arguments in listed:
        for argument in _ARGUMENTS.get(kind, ()):
            name = arguments.get(argument)
            if not isinstance(name, str) or name in named or is_template(name) or name.startswith(("label:", "/")):
                continue
            close = difflib.get_close_matches(name, named, 1)
            if has_children and not close:
                continue
            others = f"the steps name {', '.join(sorted(named))}; others are label:... or a path"
            hint = f"did you mean {close[0]!r}?" if close else others
            yield (*path, "with", argument), f"there is no volume {name!r}: {hint}"


def unnamed_volumes_of(sequence: TaskSequence) -> list[tuple[str, str]]:
    """Returns the names of the steps of a sequence, children in their places, that `unnamed_volumes` finds, and why."""
    nodes = [(path, node) for path, node in walk(sequence.steps) if isinstance(node, Step) and not node.disabled]
    names = {path: node.name for path, node in nodes}
    steps = ((path, node.type, node.arguments) for path, node in nodes)
    return [(names[path[:-2]], problem) for path, problem in unnamed_volumes(steps)]


def _given(kind: str, arguments: Mapping[str, Any]) -> set[str] | None:
    """Returns the names that a step gives to volumes; None if one is computed when it runs."""
    if kind == "apply-operating-system":
        root = arguments.get("root")
        return None if is_template(root) else {root} if isinstance(root, str) else set()
    if kind != "partition-disk":
        return set()
    layout, partitions = arguments.get("layout"), arguments.get("partitions")
    if is_template(layout) or is_template(partitions):
        return None
    if isinstance(layout, str):
        return {partition.name for partition in LAYOUTS[layout].partitions} if layout in LAYOUTS else None
    names = [each.get("name") for each in partitions or () if isinstance(each, Mapping)]
    return None if any(is_template(name) for name in names) else {name for name in names if isinstance(name, str)}
