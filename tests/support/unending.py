"""Runs a task sequence one step of which does its work but never ends: however late it is killed, it is in it."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

from fleetcast_agent.sequence.commands import load
from fleetcast_agent.sequence.content.content import DirectoryContent
from fleetcast_agent.sequence.context import StepContext, StepFunction
from fleetcast_agent.sequence.control import Control
from fleetcast_agent.sequence.engine.state import Engine
from fleetcast_agent.sequence.execution import execute
from fleetcast_agent.sequence.machine.disks import Disks
from fleetcast_agent.sequence.steps import step_functions


async def run(file: Path, step: str, disk: Path, state: Path, content: Path) -> None:
    """Runs the sequence in `file` up to the step of that name, and stays there."""
    sequence = load(file)
    nodes = Engine(sequence, {}).nodes

    def unending(function: StepFunction) -> StepFunction:
        async def work(arguments: Any, context: StepContext) -> None:
            await function(arguments, context)
            if nodes[context.step_directory.name].name == step:
                await asyncio.Event().wait()

        return work

    steps = {kind: unending(function) for kind, function in step_functions().items()}
    images, disks = DirectoryContent(content), Disks([disk])
    print(await execute(sequence, state, content=images, disks=disks, control=Control(), steps=steps))


if __name__ == "__main__":
    name, stuck, *places = sys.argv[1:]
    asyncio.run(run(Path(name), stuck, *map(Path, places)))
