from __future__ import annotations

import asyncio
import json
import os
import pty
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fleetcast.catalog.v1 import image_pb2
from fleetcast.scheduler.v1 import machine_service_pb2
from fleetcast.scheduler.v1.deployment_pb2 import Remark, StepRun
from fleetcast_sequence import canonical, parse

from tests.integration.cli_site import Cli, open_cli
from tests.integration.deployment_actors import OUTCOME, RunningMachine
from tests.support.waiting import until

FLEETCAST = Path(sys.executable).parent / "fleetcast"
FAILED, BAD_INPUT, NOT_FOUND, REFUSED = 1, 2, 3, 6


@pytest.fixture
async def cli(tmp_path: Path) -> AsyncIterator[Cli]:
    async with open_cli(tmp_path) as opened:
        yield opened


async def make_lab(cli: Cli, *names: str) -> list[RunningMachine]:
    """Returns registered machines, all in the collection `lab`."""
    machines = [RunningMachine(cli.site, name) for name in names]
    for machine in machines:
        await machine.register()
    await cli.text("collection", "create", "lab", "--rule", "true")
    return machines


async def deploy(cli: Cli, *flags: str) -> str:
    """Returns the id of a new required deployment of the image to the lab."""
    made = await cli.json("deploy", "--collection", "lab", "--image", "win11", "--purpose", "required", *flags)
    return str(made["deployment"]["name"]).removeprefix("deployments/")


async def test_a_dry_run_says_what_would_happen_to_which_machine_and_makes_nothing(cli: Cli) -> None:
    await make_lab(cli, "1", "2")
    await cli.text("machine", "set", "pc-2", "--protected")
    flags = ["--collection", "lab", "--image", "win11", "--purpose", "required", "--deadline", "2030-12-01 02:00"]
    shown = await cli.text("deploy", *flags, "--dry-run")
    assert "Sun 2030-12-01 02:00 +01:00 Europe/Berlin = 2030-12-01 01:00 UTC, in " in shown
    rows = [line.split() for line in shown.splitlines() if " pc-" in line]
    assert rows[0][:3] == ["1", "pc-1", "yes"]
    assert rows[1][:3] == ["2", "pc-2", "no"]
    assert "protected" in rows[1]
    assert shown.splitlines()[-1] == "1 machine would be targeted, 1 left out; nothing was made"
    assert await cli.json("deployment", "list") == {"deployments": []}
    planned = (await cli.json("deploy", *flags, "--dry-run"))["planned_runs"]
    assert [(one["machine"], one["targeted"]) for one in planned] == [("machines/1", True), ("machines/2", False)]


async def test_a_dry_run_says_whose_disk_is_too_small_or_has_other_sectors(cli: Cli) -> None:
    for name, size_bytes, sector_bytes in (("1", 5_000_000, 512), ("2", 900_000, 512), ("3", 5_000_000, 4096)):
        disk = machine_service_pb2.Disk(device="/dev/sda", size_bytes=size_bytes, sector_size_bytes=sector_bytes)
        await RunningMachine(cli.site, name).register(disks=[disk])
    await cli.text("collection", "create", "lab", "--rule", "true")
    cli.site.catalog.contents = image_pb2.ImageContents(
        kind=image_pb2.ImageContents.KIND_DISK, partition_table="gpt", sector_size_bytes=512
    )
    planned = (await cli.json("deploy", "--collection", "lab", "--image", "win11", "--dry-run"))["planned_runs"]
    first, second, third = (one["reason"] for one in planned)
    assert first == "begins when somebody asks for it"
    assert second.startswith("disk too small: 0.9 MB, needs 1 MB")
    assert third.startswith("disk with sectors of 4096 bytes: the image was made for sectors of 512")
    await cli.text("machine", "set", "pc-1", "--protected")
    line = await cli.refused(REFUSED, "deploy", "--collection", "lab", "--image", "win11")
    assert "no machine of the 2 targeted could take it" in line


async def test_what_makes_no_system_is_refused_at_the_dry_run_and_at_the_deployment(cli: Cli) -> None:
    await make_lab(cli, "1")
    command = ("deploy", "--collection", "lab", "--image", "win11")
    cli.site.catalog.contents = image_pb2.ImageContents(kind=image_pb2.ImageContents.KIND_VOLUME, filesystem="ext4")
    for more in ((), ("--dry-run",)):
        assert "has no partition table: it is one ext4 volume" in await cli.refused(REFUSED, *command, *more)
    await cli.text(*command, "--dry-run", "--unpartitioned")
    cli.site.catalog.format = image_pb2.IMAGE_FORMAT_WIM
    for more in ((), ("--dry-run",), ("--unpartitioned",)):
        line = await cli.refused(REFUSED, *command, *more)
        assert "is a WIM or ESD file" in line
        assert "bare-metal-windows" in line
    line = await cli.refused(REFUSED, "session", "create", "--image", "win11")
    assert "would get the file and no system" in line
    await cli.text("session", "create", "--image", "win11", "--as-file")


async def test_a_secret_that_is_too_short_to_be_hidden_is_said_before_it_is_used(cli: Cli) -> None:
    await make_lab(cli, "1", "2")
    sequence = "name: a\nvariables: {password: {secret: true}}\nsteps: [{name: A, type: gather-inventory}]\n"
    cli.site.sequences.canonical_form = canonical(parse(sequence))
    flags = ("--collection", "lab", "--task-sequence", "bare-metal", "--dry-run")
    said = await cli.text("deploy", *flags, "--variable", "password=x")
    assert "warning: the value of the secret variable password of the deployment has fewer than 6 characters" in said
    assert (await cli.json("deploy", *flags, "--variable", "password=long enough"))["warnings"] == []
    for machine in ("pc-1", "pc-2"):
        await cli.text("machine", "set", machine, "--variable", "password=12345")
    (warning,) = (await cli.json("deploy", *flags))["warnings"]
    assert "password of pc-1 and 1 more has" in warning


async def test_everything_given_is_in_the_deployment(cli: Cli) -> None:
    await make_lab(cli, "1", "2", "3")
    flags = [
        *("--collection", "lab", "--image", "win11", "--purpose", "required", "--machine-time"),
        *("--available", "2030-12-01 01:00", "--deadline", "2030-12-01 02:00", "--expires", "2030-12-02 02:30"),
        *("--rerun", "never", "--max-run-time", "90m", "--phase", "1,manual", "--phase", "50%", "--wake"),
        *("--variable", "room=5", "--description", "New lab", "--start-when", "clients>=2 or delay 10m"),
        *("--max-rate", "1G", "--priority", "5", "--ignore-maintenance-windows"),
    ]
    made = (await cli.json("deploy", *flags))["deployment"]
    assert made["available_time"] == {"utc": None, "local": "2030-12-01T01:00:00"}
    assert (made["rerun"], made["max_run_time_seconds"], made["wake"]) == ("never", 5400, True)
    assert [(phase["count"], phase["percent"], phase["manual"]) for phase in made["phases"]] == [
        (1, 0, True),
        (0, 50, False),
    ]
    assert made["session"]["start_rules"]["min_clients"] == 2
    assert made["session"]["rate"]["ceiling_bits_per_second"] == 10**9
    assert (made["variables"], made["description"]) == ({"room": "5"}, "New lab")
    shown = await cli.text("deployment", "show", made["name"])
    for part in ("Mon 2030-12-02 02:30 on each machine's own clock", "2 machines or 10m after the first", "room=5"):
        assert part in shown
    assert "waiting" in shown
    assert "scheduled" in await cli.text("deployment", "list")


async def test_bad_input_is_one_line_and_makes_nothing(cli: Cli) -> None:
    await make_lab(cli, "1")
    lab = ("--collection", "lab")
    for flags, complaint in [
        (lab, "give either --image or --task-sequence"),
        ((*lab, "--image", "win11", "--task-sequence", "base"), "not both"),
        ((*lab, "--image", "win11", "--deadline", "soon"), "'soon' is not a time"),
        ((*lab, "--image", "win11", "--deadline", "2020-01-01 00:00"), "is in the past"),
        ((*lab, "--image", "win11", "--deadline", "+2h", "--machine-time"), "machines' own clocks"),
        ((*lab, "--image", "win11", "--machine-time"), "there is none"),
        ((*lab, "--image", "win11", "--phase", "ten"), "'ten' is not a phase"),
        ((*lab, "--image", "win11", "--max-run-time", "long"), "'long' is not a duration"),
        ((*lab, "--image", "win11", "--rerun", "often"), "often"),
        ((*lab, "--image", "win 11"), "'win 11'"),
    ]:
        assert complaint in await cli.refused(BAD_INPUT, "deploy", *flags)
    assert "nonesuch" in await cli.refused(NOT_FOUND, "deploy", "--collection", "nonesuch", "--image", "win11")
    await cli.text("collection", "set", "lab", "--protected")
    assert "protected" in await cli.refused(REFUSED, "deploy", *lab, "--image", "win11")
    assert await cli.json("deployment", "list") == {"deployments": []}


async def test_a_number_that_is_not_the_number_of_machines_is_refused_with_the_right_one(cli: Cli) -> None:
    await make_lab(cli, "1", "2")
    line = await cli.refused(REFUSED, "deploy", "--collection", "lab", "--image", "win11", "--confirm", "3")
    assert (
        line
        == "this targets 2 machines of lab, not 3, nothing was made: see which with --dry-run, then add --confirm 2"
    )
    assert "2 machines targeted" in await cli.text(
        "deploy", "--collection", "lab", "--image", "win11", "--confirm", "2"
    )


async def test_a_large_deployment_asks_at_the_terminal_and_tells_scripts_what_to_add(cli: Cli, tmp_path: Path) -> None:
    rows = [f"pc-{number},S{number},aa:bb:cc:00:01:{number:02x}" for number in range(101)]
    file = tmp_path / "many.csv"
    file.write_text("\n".join(["display_name,serial_number,mac_addresses", *rows]))
    await cli.text("machine", "import", str(file))
    await cli.text("collection", "create", "lab", "--rule", "true")
    flags = ("deploy", "--collection", "lab", "--image", "win11")
    assert "this targets 101 machines of lab, nothing was made" in await cli.refused(REFUSED, *flags)
    assert (await cli.refused(REFUSED, *flags)).endswith("add --confirm 101")
    code, asked = await at_terminal(cli, *flags, typed=b"100\n")
    assert code == REFUSED
    assert "This targets 101 machines of lab. Type their number to go on:" in asked
    assert "that is not 101: nothing was made" in asked
    assert await cli.json("deployment", "list") == {"deployments": []}
    code, asked = await at_terminal(cli, *flags, typed=b"101\n")
    assert (code, "Type their number" in asked) == (0, True)
    assert len((await cli.json("deployment", "list"))["deployments"]) == 1


async def at_terminal(cli: Cli, *arguments: str, typed: bytes) -> tuple[int, str]:
    """Returns exit code and screen of a command at whose terminal somebody types."""
    ours, theirs = pty.openpty()
    command = [str(FLEETCAST), "--server", cli.site.address, "--credentials", str(cli.credentials), *arguments]
    process = await asyncio.create_subprocess_exec(
        *command, stdin=theirs, stdout=asyncio.subprocess.DEVNULL, stderr=theirs
    )
    os.write(ours, typed)
    code = await asyncio.wait_for(process.wait(), 60)
    shown = os.read(ours, 65536).decode()
    os.close(theirs)
    os.close(ours)
    return code, shown


async def test_a_run_is_shown_with_its_steps_in_the_deployment_and_in_the_machines_history(cli: Cli) -> None:
    (machine,) = await make_lab(cli, "1")
    assert "nothing ran on pc-1 (1) yet" in await cli.text("machine", "history", "pc-1")
    await machine.attend()
    deployment = await deploy(cli)
    order = await machine.hear("order")
    step = StepRun(node="2", step_name="Apply image", attempt=1, outcome=OUTCOME.OUTCOME_FAILED, message="no space")
    step.start_time.GetCurrentTime()
    step.end_time.GetCurrentTime()
    await machine.say(step=step)
    await machine.known(await machine.progress(2, step_name="Apply image", step_fraction=0.5))
    assert "2/3 Apply image" in await cli.text("deployment", "show", deployment)
    assert order.run in (await cli.json("machine", "show", "pc-1"))["current_run"]
    await machine.finish(
        order.run, OUTCOME.OUTCOME_FAILED, step_name="Apply image", error="no space", output_tail="dd: full"
    )
    await machine.hear("closed")
    history = await cli.text("machine", "history", "pc-1")
    for part in ("failed", "Apply image", "no space", "dd: full"):
        assert part in history
    (run,) = (await cli.json("deployment", "show", deployment, "pc-1"))["runs"]
    assert (run["state"], run["steps"][0]["outcome"], run["steps"][0]["node"]) == ("failed", "failed", "2")
    await machine.upload_log(order.run, b"first line\n", b"second line\n")
    assert await cli.text("deployment", "log", deployment, "pc-1") == "first line\nsecond line\n"


async def test_remarks_are_in_every_view_of_a_run(cli: Cli) -> None:
    first, second = await make_lab(cli, "1", "2")
    deployment = await deploy(cli)
    for machine, remarks in ((first, [Remark(step_name="Grow", text="it could not grow")]), (second, [])):
        await machine.attend()
        order = await machine.hear("order")
        if remarks:
            await machine.say(step=StepRun(node="1", step_name="Grow", attempt=1, remarks=["it could not grow"]))
        await machine.finish(order.run, remarks=remarks)
        await machine.hear("closed")
    for words in (
        ("deployment", "show", deployment),
        ("deployment", "show", deployment, "pc-1"),
        ("deployment", "watch", deployment),
        ("machine", "history", "pc-1"),
    ):
        text = await cli.text(*words)
        assert "succeeded with remarks" in text
        assert "it could not grow" in text
    assert "2 succeeded (1 with remarks)" in await cli.text("deployment", "list")
    shown = await cli.json("deployment", "show", deployment)
    assert shown["summary"]["remarked_count"] == 1
    assert sorted(run["remarks"] for run in shown["runs"]) == [[], [{"step_name": "Grow", "text": "it could not grow"}]]
    (run,) = (await cli.json("machine", "history", "pc-1"))["runs"]
    assert run["steps"][0]["remarks"] == ["it could not grow"]


async def test_a_deployment_is_paused_resumed_retried_skipped_and_cancelled(cli: Cli) -> None:
    first, second = await make_lab(cli, "1", "2")
    await first.attend()
    await second.attend()
    deployment = await deploy(cli)
    orders = [await first.hear("order"), await second.hear("order")]
    assert "is paused" in await cli.text("deployment", "pause", deployment)
    assert (await cli.json("deployment", "resume", deployment))["state"] == "active"
    await first.finish(orders[0].run, OUTCOME.OUTCOME_FAILED, error="broken")
    await first.hear("closed")
    assert "give either machines or --failed" in await cli.refused(BAD_INPUT, "deployment", "retry", deployment)
    retried = (await cli.json("deployment", "retry", deployment, "--failed"))["runs"]
    assert [run["machine"] for run in retried] == ["machines/1"]
    assert (await first.hear("order")).attempt == 2
    assert (await cli.text("deployment", "skip", deployment, "pc-2")).startswith("pc-2 (2) is ")
    assert "is cancelled" in await cli.text("deployment", "cancel", deployment)
    assert "no deployment x" in await cli.refused(NOT_FOUND, "deployment", "cancel", "x")


async def test_the_next_phase_begins_when_an_operator_says_so(cli: Cli) -> None:
    first, second = await make_lab(cli, "1", "2")
    await first.attend()
    await second.attend()
    deployment = await deploy(cli, "--phase", "1,manual")
    order = await first.hear("order")
    await first.finish(order.run)
    await first.hear("closed")
    assert "phases" in await cli.text("deployment", "show", deployment)
    await cli.text("deployment", "advance", deployment)
    await second.hear("order")


async def test_a_watch_shows_every_change_until_the_end(cli: Cli) -> None:
    (machine,) = await make_lab(cli, "1")
    await machine.attend()
    deployment = await deploy(cli)
    order = await machine.hear("order")
    watches = [
        asyncio.create_task(cli.run("deployment", "watch", deployment)),
        asyncio.create_task(cli.run("deployment", "watch", deployment, "--json")),
    ]
    assert cli.site.app is not None
    pulse = cli.site.app.deployments.pump.pulse
    await until(lambda: pulse.watcher_count(f"deployments/{deployment}") == len(watches))
    await machine.known(await machine.progress(1, step_name="Apply image"))
    await machine.finish(order.run)
    text, lines = await asyncio.gather(*watches)
    assert (text.code, text.err) == (0, "")
    assert "pc-1 (1): succeeded" in text.out
    assert f"deployment {deployment}: completed" in text.out
    changes = [json.loads(line) for line in lines.out.splitlines()]
    assert changes[-1]["deployment"]["state"] == "completed"
    assert changes[0]["runs"][0]["machine"] == "machines/1"


async def test_a_watch_ends_when_nothing_waits_or_runs_and_says_how_to_go_on(cli: Cli) -> None:
    (machine,) = await make_lab(cli, "1")
    await machine.attend()
    deployment = await deploy(cli)
    order = await machine.hear("order")
    watch = asyncio.create_task(cli.run("deployment", "watch", deployment))
    await machine.finish(order.run, OUTCOME.OUTCOME_FAILED, error="broken")
    ended = await watch
    assert ended.code == FAILED
    assert ended.err == (
        f"fleetcast: deployment {deployment} is active, 1 machine failed; look at them with 'deployment log', then: "
        f"fleetcast deployment retry {deployment} --failed\n"
    )


async def test_a_dry_run_says_that_a_machine_waits_for_its_maintenance_window(cli: Cli) -> None:
    await make_lab(cli, "1")
    await cli.text("collection", "set", "lab", "--maintenance-window", "tomorrow 12:00 8h")
    flags = ["--collection", "lab", "--image", "win11", "--purpose", "required", "--dry-run"]
    assert "waits for its maintenance window" in await cli.text("deploy", *flags)
    assert "begins at once" in await cli.text("deploy", *flags, "--ignore-maintenance-windows")
    never = "never begins: no maintenance window has room for it "
    assert f"{never}before it expires" in await cli.text("deploy", *flags, "--expires", "+1h")
    await cli.text("collection", "set", "lab", "--maintenance-window", "2090-12-01 22:00 8h")
    assert f"{never}within " in await cli.text("deploy", *flags)


async def test_the_watch_of_a_deployment_that_failed_somewhere_is_no_success(cli: Cli) -> None:
    (machine,) = await make_lab(cli, "1")
    await machine.attend()
    deployment = await deploy(cli)
    order = await machine.hear("order")
    await machine.finish(order.run, OUTCOME.OUTCOME_FAILED, error="broken")
    await machine.hear("closed")
    await cli.text("deployment", "cancel", deployment)
    ended = await cli.run("deployment", "watch", deployment)
    assert ended.code == FAILED
    assert ended.err == f"fleetcast: deployment {deployment} is cancelled, 1 machine failed\n"
