"""`fleetcast sender watch` and `fleetcast machine watch`: they show changes until somebody has seen enough."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from fleetcast.scheduler.v1.deployment_pb2 import StepRun

from tests.integration.cli_site import Cli, open_cli
from tests.integration.deployment_actors import OUTCOME, RunningMachine
from tests.integration.scheduler_actors import FakeSender

FLEETCAST = Path(sys.executable).parent / "fleetcast"
INTERRUPTED, NOT_FOUND = 130, 3


@pytest.fixture
async def cli(tmp_path: Path) -> AsyncIterator[Cli]:
    async with open_cli(tmp_path) as opened:
        yield opened


@asynccontextmanager
async def watching(cli: Cli, *arguments: str) -> AsyncIterator[asyncio.StreamReader]:
    """Gives what a watch prints; at the end somebody presses Ctrl-C."""
    process = await asyncio.create_subprocess_exec(
        *(str(FLEETCAST), "--server", cli.site.address, "--credentials", str(cli.credentials), *arguments),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        yield process.stdout
    finally:
        process.send_signal(signal.SIGINT)
        code = await asyncio.wait_for(process.wait(), 30)
    assert code == INTERRUPTED


async def line_with(lines: asyncio.StreamReader, part: str) -> str:
    """Returns the next line that has `part` in it."""
    async with asyncio.timeout(30):
        while part not in (line := (await lines.readline()).decode()):
            assert line, f"the watch ended before it said {part!r}"
    return line.rstrip("\n")


async def test_the_watch_of_senders_shows_them_come_and_go(cli: Cli) -> None:
    sender = FakeSender(cli.site, "a")
    await sender.connect()
    async with watching(cli, "sender", "watch") as lines, watching(cli, "sender", "watch", "--json") as changes:
        assert (await line_with(lines, "a: ready")).endswith("sends 0 to 0 machines")
        first = json.loads(await line_with(changes, "{"))
        assert [each["name"] for each in first["senders"]] == ["senders/a"]
        await cli.text("sender", "drain", "a")
        await line_with(lines, "a: draining")
        assert json.loads(await line_with(changes, "{"))["senders"][0]["draining"] is True
        await sender.disconnect()
        await line_with(lines, "a: lost")


async def test_the_watch_of_a_machine_shows_its_runs_step_by_step(cli: Cli) -> None:
    assert "no machine" in await cli.refused(NOT_FOUND, "machine", "watch", "pc-1")
    machine = RunningMachine(cli.site, "1")
    await machine.register()
    await cli.text("collection", "create", "lab", "--rule", "true")
    await machine.attend()
    async with watching(cli, "machine", "watch", "pc-1") as lines:
        await line_with(lines, "pc-1 (1) is approved, connected")
        made = await cli.json("deploy", "--collection", "lab", "--image", "win11", "--purpose", "required")
        deployment = made["deployment"]["name"].removeprefix("deployments/")
        order = await machine.hear("order")
        await line_with(lines, f"{deployment}: pc-1 (1): running")
        step = StepRun(node="1", step_name="Apply image", attempt=1, outcome=OUTCOME.OUTCOME_FAILED, message="no space")
        step.start_time.GetCurrentTime()
        step.end_time.GetCurrentTime()
        await machine.say(step=step)
        await line_with(lines, "step 1 Apply image failed: no space")
        await machine.finish(order.run, OUTCOME.OUTCOME_FAILED, step_name="Apply image", error="no space")
        await line_with(lines, f"{deployment}: pc-1 (1): failed")
