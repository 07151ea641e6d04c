"""Runs a task sequence on this machine: the one function that the agent's commands and deployments call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

from fleetcast_sequence import Scope, TaskSequence, Variables
from fleetcast_sequence.model import VariableValue

from fleetcast_agent.sequence.content.content import ContentSource
from fleetcast_agent.sequence.context import StepFunction
from fleetcast_agent.sequence.control import Control
from fleetcast_agent.sequence.engine.interface import RunResources, SequenceOutcome, SequenceProgress
from fleetcast_agent.sequence.engine.records import Record
from fleetcast_agent.sequence.engine.runner import SequenceRunner
from fleetcast_agent.sequence.machine import inventory
from fleetcast_agent.sequence.machine.disks import Disks
from fleetcast_agent.sequence.machine.live_files import FUNCTIONS
from fleetcast_agent.sequence.steps import step_functions


async def execute(
    sequence: TaskSequence,
    directory: Path,
    *,
    values: Mapping[Scope, Mapping[str, VariableValue]] | None = None,
    machine: str = "",
    deployment: Mapping[str, Any] | None = None,
    content: ContentSource,
    disks: Disks,
    control: Control,
    environment: Literal["boot", "installed"] = "boot",
    report: Callable[[SequenceProgress], None] = lambda progress: None,
    noted: Callable[[Record], None] = lambda record: None,
    boot_id: str = "",
    gather: Callable[[], dict[str, Any]] | None = None,
    identity: Path | None = None,
    steps: Mapping[str, StepFunction] | None = None,
) -> SequenceOutcome:
    """Runs what is left of the sequence; the directory remembers what is done. Returns at its end or for a restart.

    The children of `sequence` are in their places and its references pinned. `values` are the variables from
    collections, the machine and the deployment; `machine` is the name by which the server knows this machine;
    `deployment` is what expressions see as `deployment`. A machine that is rehearsed on files gives its own `boot_id`
    and `gather`. `steps` run in place of those that are installed.

    Raises:
        VariableError: a value has the wrong type, or a required one is missing.
        RunJournalError: the directory holds another run, or a damaged one.
    """

    async def gathered() -> dict[str, Any]:
        found = await asyncio.to_thread(gather or partial(inventory.gather, disks))
        return inventory.with_rule_names(found | {"name": machine})

    variables = Variables(
        sequence.variables,
        values or {},
        context={"deployment": dict(deployment or {})},
        functions=FUNCTIONS,
    )
    around = RunResources(
        content=content,
        disks=disks,
        steps=step_functions() if steps is None else steps,
        environment=environment,
        boot_id=boot_id or inventory.boot_id(),
        gather=gathered,
        report=report,
        noted=noted,
        identity=identity,
    )
    return await SequenceRunner(sequence, variables, directory, around, control).run()
