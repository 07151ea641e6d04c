"""The agent's part in deployments, against a scripted scheduler over real gRPC."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from fleetcast.scheduler.v1 import deployment_pb2, run_service_pb2
from fleetcast_agent.sequence.engine.records import Outcome
from fleetcast_kit.errors import FailedPreconditionError

from tests.integration.run_site import RUN, Room, Script, order_for, room
from tests.support.plugin import plug_in
from tests.support.spans import recorded_spans
from tests.support.waiting import until

ECHO = "{name: Say, type: run-script, with: {script: 'echo %s'}}"


def sequence(*steps: str, variables: str = "{}") -> str:
    return f"name: office\nvariables: {variables}\nsteps:\n" + "".join(f"  - {step}\n" for step in steps)


async def test_a_machine_registers_runs_what_it_is_told_and_says_how_it_went(tmp_path: Path) -> None:
    greeting = (
        "{name: Greet, type: run-script, with: {script: 'echo {{ room }} {{ seat }} {{ who }} {{ machine.name }}'}}"
    )
    source = sequence(
        greeting,
        "{name: Never, when: 'false', type: run-script, with: {script: 'exit 1'}}",
        variables="{room: none, seat: none, who: none}",
    )
    order = order_for(
        source,
        collection_variables={"room": "lab", "seat": "x", "who": "x"},
        machine_variables={"seat": "seat-7", "who": "y"},
        deployment_variables={"who": "ada"},
    )
    async with room(tmp_path, Script(order)) as here:
        end = await here.run()
        script = here.script
        assert end is not None
        assert end.outcome is Outcome.SUCCEEDED
        (registration,) = script.registrations
        assert registration.display_name == "pc1"
        assert registration.inventory.smbios_uuid
        assert [disk.size_bytes for disk in registration.inventory.disks] == [4096]
        assert [(arrival.run, arrival.environment) for arrival in script.arrivals] == [("", "boot")]
        assert script.step_outcomes() == [("1", 1, "SUCCEEDED"), ("2", 1, "SKIPPED")]
        step = script.steps["1", 1]
        assert step.step_name == "Greet"
        assert 0 < step.start_time.ToNanoseconds() <= step.end_time.ToNanoseconds()
        assert "lab seat-7 ada pc1" in script.logs[RUN]
        assert [(progress.step, progress.step_count) for progress in script.progress][-1] == (1, 2)
        (outcome,) = script.outcomes
        assert outcome == run_service_pb2.RunOutcome(run=RUN, outcome=deployment_pb2.StepRun.OUTCOME_SUCCEEDED)
        assert not list(here.state.glob("runs/*"))
        assert len(list(here.state.glob("logs/*.txt"))) == 1


async def test_a_failure_says_the_step_the_reason_and_the_end_of_its_output_without_secrets(tmp_path: Path) -> None:
    script = "{name: Join, type: run-script, with: {script: 'echo my $KEY; exit 3', environment: {KEY: '{{ key }}'}}}"
    order = order_for(
        sequence(script, variables="{key: {secret: true}}"), deployment_variables={"key": "hunter-hunter"}
    )
    async with room(tmp_path, Script(order)) as here:
        end = await here.run()
        assert end is not None
        assert end.outcome is Outcome.FAILED
        (outcome,) = here.script.outcomes
        assert (outcome.step_name, outcome.outcome) == ("Join", deployment_pb2.StepRun.OUTCOME_FAILED)
        assert "3" in outcome.error
        assert "my " in outcome.output_tail
        told = str(here.script.outcomes) + str(here.script.steps) + here.script.logs[RUN]
        assert "hunter-hunter" not in told


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        ({"task_sequence_digest": "sha256:00"}, "the task sequence has the digest"),
        ({"task_sequence": b"{}", "task_sequence_digest": ""}, "this agent does not understand the task sequence"),
        ({"deployment_variables": {"count": "many"}}, "count"),
    ],
)
async def test_an_order_that_cannot_be_carried_out_fails_with_the_reason(
    tmp_path: Path, spoil: dict[str, object], reason: str
) -> None:
    order = order_for(sequence(ECHO % "x", variables="{count: 1}"))
    order.MergeFrom(run_service_pb2.RunOrder(**spoil))  # type: ignore[arg-type]
    if "task_sequence_digest" in spoil:
        order.task_sequence_digest = str(spoil["task_sequence_digest"])
    async with room(tmp_path, Script(order)) as here:
        end = await here.run()
        assert end is not None
        assert end.outcome is Outcome.FAILED
        assert reason in here.script.outcomes[0].error


async def test_an_image_never_goes_onto_some_disk_beside_the_installed_system(tmp_path: Path) -> None:
    order = run_service_pb2.RunOrder(run=RUN, attempt=1, image="images/office@sha256:00")
    async with room(tmp_path, Script(order)) as here:
        end = await here.run(named=False, environment="installed")
        assert end is not None
        assert end.outcome is Outcome.FAILED
        assert "name the disk with --disk" in here.script.outcomes[0].error


async def test_a_refused_machine_says_what_to_do(tmp_path: Path) -> None:
    async with room(tmp_path, Script(refuse=True)) as here:
        with pytest.raises(FailedPreconditionError, match="ask for an import") as caught:
            await here.run()
        assert caught.value.reason == "MACHINE_REFUSED"


async def test_a_held_machine_says_so_and_goes_on_once_it_is_approved(tmp_path: Path) -> None:
    async with room(tmp_path, Script(order_for(sequence(ECHO % "x")), held=3)) as here:
        end = await here.run(held_seconds=0.05)
        assert end is not None
        assert [text for text in here.shown.notices if text.startswith("held")] == [
            "held: nobody knows it; waiting for: fleetcast machine approve m1"
        ]
        assert len(here.script.registrations) == 4


async def test_streams_that_break_lose_nothing(tmp_path: Path) -> None:
    order = order_for(sequence(ECHO % "one", ECHO % "two"))
    async with room(tmp_path, Script(order, forget_arrivals=2, swallow_outcomes=2)) as here:
        end = await here.run()
        assert end is not None
        script = here.script
        assert len(script.outcomes) == 1
        assert [arrival.run for arrival in script.arrivals] == ["", "", "", RUN, RUN]
        assert script.step_outcomes() == [("1", 1, "SUCCEEDED"), ("2", 1, "SUCCEEDED")]
        assert len(script.registrations) == 1


async def test_pausing_resuming_and_cancelling_reach_the_step(tmp_path: Path) -> None:
    marks, pid_file = tmp_path / "marks", tmp_path / "pid"
    ticking = (
        f"{{name: Tick, type: run-script, with: {{script: 'echo $$ > {pid_file}; "
        f"while true; do echo x >> {marks}; sleep 0.02; done'}}}}"
    )
    async with room(tmp_path, Script(order_for(sequence(ticking)))) as here:
        running = asyncio.create_task(here.run())
        await until(marks.exists)
        here.script.control("PAUSE", "lunch")
        await until(lambda: any(progress.paused for progress in here.script.progress))
        shell = psutil.Process(int(pid_file.read_text()))
        await until(lambda: shell.status() == psutil.STATUS_STOPPED)
        before = marks.stat().st_size
        here.script.control("RESUME")
        await until(lambda: marks.stat().st_size > before)
        here.script.control("CANCEL", "the wrong room")
        end = await running
        assert end is not None
        assert end.outcome is Outcome.CANCELLED
        (outcome,) = here.script.outcomes
        assert outcome.outcome == deployment_pb2.StepRun.OUTCOME_CANCELLED
        assert "the wrong room" in outcome.error


async def test_a_restart_goes_on_in_the_other_environment(tmp_path: Path) -> None:
    source = sequence(
        "{name: First, type: run-script, with: {script: 'echo in {{ environment }}'}}",
        "{name: Restart, type: restart, with: {target: installed}}",
        "{name: Second, type: run-script, with: {script: 'echo in {{ environment }}'}}",
    )
    async with room(tmp_path, Script(order_for(source))) as here:
        end = await here.run()
        assert end is not None
        assert end.outcome is Outcome.SUCCEEDED
        script = here.script
        assert script.restarts == ["installed"]
        assert [(each.run, each.environment) for each in script.arrivals] == [("", "boot"), (RUN, "installed")]
        assert "in boot" in script.logs[RUN]
        assert "in installed" in script.logs[RUN]
        assert script.step_outcomes() == [(node, 1, "SUCCEEDED") for node in "123"]


async def test_a_last_restart_comes_after_the_scheduler_knows_the_outcome(tmp_path: Path) -> None:
    source = sequence(ECHO % "x", "{name: Restart, type: restart, with: {target: installed}}")
    async with room(tmp_path, Script(order_for(source))) as here:
        end = await here.run()
        assert end is not None
        assert end.outcome is Outcome.SUCCEEDED
        assert here.script.restarts == []
        assert here.shown.restarts == ["installed"]
        assert json.loads((here.state / "started.json").read_text())["environment"] == "installed"
        assert not list(here.state.glob("runs/*"))


async def test_an_available_deployment_is_shown_and_run_when_it_is_accepted(tmp_path: Path) -> None:
    script = Script(offered=["deployments/d0", "deployments/d1"], wanted_order=order_for(sequence(ECHO % "x")))
    async with room(tmp_path, script) as here:
        end = await here.run(accepted=("d1",))
        assert end is not None
        assert script.wanted == ["deployments/d1"]
        assert [offered.name for offered in here.shown.standbys[0].offered] == script.offered


async def test_a_run_that_the_scheduler_closed_is_dropped_where_it_is(tmp_path: Path) -> None:
    sleeping = "{name: Sleep, type: run-script, with: {script: 'echo begun; sleep 60'}}"
    async with room(tmp_path, Script(order_for(sequence(sleeping)))) as here:
        running = asyncio.create_task(here.run(once=False))
        await until(lambda: here.log_says(" begun\n"))
        here.script.say(closed=run_service_pb2.RunClosed(run=RUN))
        await until(lambda: not list(here.state.glob("runs/*")))
        assert here.script.outcomes == []
        here.stop.set()
        assert await running is None


async def test_another_order_ends_the_run_before_it(tmp_path: Path) -> None:
    sleeping = "{name: Sleep, type: run-script, with: {script: 'echo begun; sleep 60'}}"
    other = "deployments/d2/runs/r9"
    async with room(tmp_path, Script(order_for(sequence(sleeping)))) as here:
        running = asyncio.create_task(here.run(once=False))
        await until(lambda: here.log_says(" begun\n"))
        here.script.say(order=order_for(sequence(ECHO % "x"), run=other))
        await until(lambda: other in [outcome.run for outcome in here.script.outcomes])
        here.stop.set()
        await running


async def test_a_stopped_agent_goes_on_at_its_next_start(tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    source = sequence(
        f"{{name: Mark, type: run-script, with: {{script: 'echo once >> {marks}'}}}}",
        f"{{name: Wait, type: run-script, on_interruption: rerun, "
        f"with: {{script: 'echo waiting; while [ ! -e {tmp_path}/go ]; do sleep 0.02; done'}}}}",
    )
    async with room(tmp_path, Script(order_for(source))) as here:
        running = asyncio.create_task(here.run())
        await until(lambda: here.log_says(" waiting\n"))
        here.stop.set()
        assert await running is None
        here.stop.clear()
        (tmp_path / "go").touch()
        end = await here.run()
        assert end is not None
        assert end.outcome is Outcome.SUCCEEDED
        assert marks.read_text() == "once\n"
        assert here.script.step_outcomes() == [
            ("1", 1, "SUCCEEDED"),
            ("2", 1, "INTERRUPTED"),
            ("2", 2, "SUCCEEDED"),
        ]


def start_process(here: Room, *flags: str, packages: Path | None = None) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(packages)} if packages is not None else None
    command = [sys.executable, "-m", "fleetcast_agent", "run", "--server", here.server.address, "--once", "--json"]
    command += ["--state-dir", str(here.state), "--disk", str(here.disk), *flags]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


GROW = """
import os, signal
from fleetcast_sequence import InterruptionRule, StepType
from fleetcast_sequence.model import SequenceModel

class Grow(SequenceModel):
    \"\"\"Grows as far as it can.\"\"\"

GROW = StepType("grow", Grow, InterruptionRule.RERUN)

async def grow(arguments, context):
    context.remark("the partition could not grow: hunter-hunter is behind it")
    if not context.resume and not (context.run_directory / "died").exists():
        (context.run_directory / "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
"""


async def test_a_remark_survives_a_kill_is_told_once_and_has_an_exit_code_of_its_own(tmp_path: Path) -> None:
    packages = plug_in(tmp_path / "packages", GROW, step="grow")
    source = sequence("{name: Grow, type: gather-inventory}", ECHO % "done", variables="{key: {secret: true}}")
    order = order_for(source, deployment_variables={"key": "hunter-hunter"})
    # The machine has the plug-in, this process does not.
    order.task_sequence = order.task_sequence.replace(b"gather-inventory", b"grow")
    order.task_sequence_digest = ""
    async with room(tmp_path, Script(order)) as here:
        process = start_process(here, packages=packages)
        await asyncio.to_thread(process.communicate)
        assert process.returncode == -signal.SIGKILL
        process = start_process(here, packages=packages)
        output, errors = await asyncio.to_thread(process.communicate)
        assert process.returncode == 8, errors
        text = "the partition could not grow: *** is behind it"
        assert [step.remarks for step in here.script.steps.values()] == [[text], [], []]
        (outcome,) = here.script.outcomes
        assert outcome.outcome == deployment_pb2.StepRun.OUTCOME_SUCCEEDED
        assert [(remark.step_name, remark.text) for remark in outcome.remarks] == [("Grow", text)]
        ended = json.loads(output.splitlines()[-1])
        assert (ended["outcome"], ended["remarks"]) == ("succeeded", [{"step_name": "Grow", "text": text}])
        assert f"remark: {text}" in here.script.logs[RUN]


async def test_an_agent_that_is_killed_again_and_again_runs_each_step_once(tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    steps = [
        f"{{name: Step {number}, type: run-script, on_interruption: rerun, "
        f"with: {{script: 'echo begins {number}; sleep 0.3; echo {number} >> {marks}'}}}}"
        for number in range(1, 5)
    ]
    async with room(tmp_path, Script(order_for(sequence(*steps)))) as here:
        for number in range(1, 5):
            process = start_process(here)
            await until(lambda: here.log_says(f" begins {number}\n"))  # noqa: B023 - awaited here
            process.send_signal(signal.SIGKILL)
            await asyncio.to_thread(process.communicate)
        process = start_process(here)
        output, errors = await asyncio.to_thread(process.communicate)
        assert process.returncode == 0, errors
        assert marks.read_text().split() == ["1", "2", "3", "4"]
        assert len(here.script.outcomes) == 1
        ended = [json.loads(line) for line in output.splitlines()][-1]
        assert (ended["event"], ended["outcome"]) == ("ended", "succeeded")
        assert [node for node, _, outcome in here.script.step_outcomes() if outcome == "SUCCEEDED"] == list("1234")


async def test_a_state_directory_on_another_machine_goes_on_with_nothing_and_waits_for_approval(tmp_path: Path) -> None:
    marks, first, second = tmp_path / "marks", tmp_path / "pc1.json", tmp_path / "pc2.json"
    for number, file in enumerate((first, second), 1):
        mac = f"02:00:00:00:00:0{number}"
        file.write_text(json.dumps({"serial": f"PC{number}", "uuid": f"uuid-{number}", "mac_addresses": [mac]}))
    step = f"{{name: Erase, type: run-script, on_interruption: rerun, with: {{script: 'sleep 1; echo x >> {marks}'}}}}"
    async with room(tmp_path, Script(order_for(sequence(step)))) as here:
        process = start_process(here, "--inventory", str(first))
        await until(lambda: here.log_says("begins 'Erase'"))
        process.send_signal(signal.SIGKILL)
        await asyncio.to_thread(process.communicate)
        marks.unlink(missing_ok=True)
        here.script.held, registrations = 1000, len(here.script.registrations)
        process = start_process(here, "--inventory", str(second))
        await until(lambda: len(here.script.registrations) > registrations)
        process.send_signal(signal.SIGTERM)
        output, _ = await asyncio.to_thread(process.communicate)
        assert "belongs to another machine (here is serial number pc2, not pc1" in output
        assert "--token" in output
        assert not marks.exists()
        assert not list(here.state.glob("runs/*"))
        here.script.held = 0  # an operator approves it: new hardware of the same machine, which runs it from the start
        process = start_process(here, "--inventory", str(second))
        output, errors = await asyncio.to_thread(process.communicate)
        assert process.returncode == 0, errors
        assert marks.read_text() == "x\n"


async def test_an_agent_killed_before_the_scheduler_knew_tells_the_outcome_once_and_runs_nothing_again(
    tmp_path: Path,
) -> None:
    marks = tmp_path / "marks"
    mark = f"{{name: Mark, type: run-script, with: {{script: 'echo once >> {marks}; exit 1'}}}}"
    async with room(tmp_path, Script(order_for(sequence(mark)), swallow_outcomes=1000)) as here:
        process = start_process(here)
        await until(lambda: here.script.swallow_outcomes < 1000)
        process.send_signal(signal.SIGKILL)
        await asyncio.to_thread(process.communicate)
        here.script.swallow_outcomes = 0
        process = start_process(here)
        output, _ = await asyncio.to_thread(process.communicate)
        assert process.returncode == 1, output
        assert marks.read_text() == "once\n"
        assert [outcome.run for outcome in here.script.outcomes] == [RUN]
        assert here.script.outcomes[0].step_name == "Mark"


async def test_a_terminated_agent_leaves_at_once_and_says_so_by_its_exit_code(tmp_path: Path) -> None:
    async with room(tmp_path, Script()) as here:
        process = start_process(here)
        await until(lambda: here.script.arrivals)
        process.send_signal(signal.SIGTERM)
        _, errors = await asyncio.to_thread(process.communicate)
        assert process.returncode == 130, errors


async def test_a_run_and_its_steps_are_spans_below_the_order(tmp_path: Path) -> None:
    spans = recorded_spans()
    traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    order = order_for(sequence(ECHO % "x"), traceparent=traceparent)
    async with room(tmp_path, Script(order)) as here:
        await here.run()
    found = {span.name: span for span in spans.get_finished_spans()}
    run, step = found["task sequence office"], found["step Say"]
    assert run.parent is not None
    assert run.parent.span_id == 0xB7AD6B7169203331
    assert step.parent is not None
    assert run.context is not None
    assert step.parent.span_id == run.context.span_id
