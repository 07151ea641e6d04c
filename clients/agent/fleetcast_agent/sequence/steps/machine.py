"""Steps that look at the machine, set variables and restart."""

from __future__ import annotations

import asyncio
import contextlib

from fleetcast_sequence.quantities import format_size
from fleetcast_sequence.steps.control import CheckReadiness, GatherInventory, Restart, SetVariables

from fleetcast_agent.sequence.context import RestartRequest, StepContext
from fleetcast_agent.sequence.disks import files, volumes
from fleetcast_agent.sequence.errors import StepError

CONNECT_SECONDS = 5


async def check_readiness(arguments: CheckReadiness, context: StepContext) -> None:
    """Compares the machine with what is wanted."""
    machine = await context.gather()
    lacks = []
    # Firmware and kernel keep some memory for themselves: a machine of 8 GiB shows a little less.
    if machine["memory_bytes"] < arguments.min_memory * 15 // 16:
        lacks.append(f"memory of {format_size(arguments.min_memory)}: it has {format_size(machine['memory_bytes'])}")
    if arguments.min_disk:
        try:
            disk = context.disks.find(arguments.disk)
            if disk.size_bytes < arguments.min_disk:
                lacks.append(f"a disk of {format_size(arguments.min_disk)}: it has {format_size(disk.size_bytes)}")
        except StepError as error:
            lacks.append(f"a disk: {error.message}")
    if arguments.firmware and machine["firmware"] != arguments.firmware:
        lacks.append(f"the firmware {arguments.firmware}: it has started with {machine['firmware']}")
    if arguments.external_power and not machine["external_power"]:
        lacks.append("external power: it runs on its battery")
    unreachable = await asyncio.gather(*(_unreachable(place) for place in arguments.reachable))
    lacks.extend(reason for reason in unreachable if reason)
    if lacks:
        raise StepError(f"the machine is not ready, it lacks {'; '.join(lacks)}")


async def _unreachable(place: str) -> str:
    host, _, port = place.rpartition(":")
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    except (OSError, TimeoutError) as error:
        return f"a connection to {place}: {error or 'no answer'}"
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return ""


async def gather_inventory(arguments: GatherInventory, context: StepContext) -> None:
    """Reads the hardware again."""
    machine = await context.gather()
    context.log(f"{machine['manufacturer']} {machine['model']} {machine['serial']}, {machine['firmware']}".strip())


async def set_variables(arguments: SetVariables, context: StepContext) -> None:
    """Sets the variables."""
    context.results.variables.update(arguments.variables)


async def restart(arguments: Restart, context: StepContext) -> None:
    """Asks for the restart, if there is something to start."""
    if arguments.carry_state_to is not None:
        volume = await volumes.find(context, arguments.carry_state_to)
        if not await files.kind_of(context, volume):
            raise StepError(f"the volume {arguments.carry_state_to!r} has no file system to carry the progress")
    context.results.restart = RestartRequest(arguments.target, carry_state_to=arguments.carry_state_to)
