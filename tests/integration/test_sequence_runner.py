"""The runner with steps of its own: what is journalled, hidden, reported, paused and cancelled."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Literal

import psutil
import pytest
from fleetcast_agent.sequence.content.content import DirectoryContent
from fleetcast_agent.sequence.context import RestartRequest, StepContext
from fleetcast_agent.sequence.control import Control
from fleetcast_agent.sequence.engine.interface import RunResources, SequenceOutcome, SequenceProgress
from fleetcast_agent.sequence.engine.records import Outcome
from fleetcast_agent.sequence.engine.runner import SequenceRunner
from fleetcast_agent.sequence.errors import RunJournalError, StepError
from fleetcast_agent.sequence.execution import execute
from fleetcast_agent.sequence.machine.disks import Disks
from fleetcast_agent.sequence.steps import step_functions
from fleetcast_sequence import Scope, VariableError, Variables, parse

from tests.support.plugin import plug_in
from tests.support.spans import recorded_spans
from tests.support.waiting import until

SECRET = "Gehe!m"
Function = Callable[[Any, StepContext], Awaitable[None]]


class Machine:
    """A machine that forgets everything but its directory when it is started anew."""

    def __init__(self, directory: Path, source: str, **values: str) -> None:
        self.sequence = parse(source)
        self.values = values
        self.directory = directory
        self.boot = 1
        self.control = Control()
        self.steps: dict[str, Function] = dict(step_functions())
        self.reports: list[SequenceProgress] = []
        self.inventory: dict[str, Any] = {"serial": "S1"}
        self.environment: Literal["boot", "installed"] = "boot"

    async def run(self) -> SequenceOutcome:
        self.control = Control()
        around = RunResources(
            content=DirectoryContent(self.directory),
            disks=Disks(),
            steps=self.steps,  # type: ignore[arg-type]
            environment=self.environment,
            boot_id=f"boot-{self.boot}",
            gather=self._gather,
            report=self.reports.append,
        )
        variables = Variables(self.sequence.variables, {Scope.DEPLOYMENT: self.values})
        return await SequenceRunner(self.sequence, variables, self.directory / "run", around, self.control).run()

    async def _gather(self) -> dict[str, Any]:
        return self.inventory

    @property
    def log_path(self) -> Path:
        return self.directory / "run/log.txt"

    @property
    def log(self) -> str:
        return self.log_path.read_text()


async def said(machine: Machine, text: str) -> str:
    """Returns the log once it holds `text`."""
    await until(lambda: machine.log_path.exists() and text in machine.log)
    return machine.log


def source(*steps: str, variables: str = "{}") -> str:
    return "name: a\nvariables: " + variables + "\nsteps:\n" + "".join(f"  - {step}\n" for step in steps)


def command(name: str, words: str, more: str = "") -> str:
    return f"{{name: {name}, type: run-command, with: {{command: {words}}}{', ' + more if more else ''}}}"


async def test_steps_run_in_order_and_hand_on_variables(tmp_path: Path) -> None:
    machine = Machine(
        tmp_path,
        source(
            "{name: One, type: run-command, with: {command: [echo, 'S {{ machine.serial }}'], output_variable: s}}",
            "{name: Two, type: set-variables, with: {variables: {greeting: 'hello {{ s }}'}}}",
            "{name: Three, type: run-command, with: {command: [echo, '{{ greeting }}']}, when: last.succeeded}",
        ),
    )
    assert (await machine.run()).outcome is Outcome.SUCCEEDED
    assert "hello S S1\n" in machine.log
    assert [(item.step, item.step_count, item.step_fraction) for item in machine.reports][::2] == [
        (1, 3, 0),
        (2, 3, 0),
        (3, 3, 0),
    ]
    assert machine.reports[-1].fraction == 1


async def test_conditions_know_a_machine_by_the_names_that_rules_use(tmp_path: Path) -> None:
    wanted = "machine.smbios_uuid == machine.uuid && machine.serial_number == 'S1' && machine.display_name == 'pc1'"
    condition = f"{wanted} && machine.processor_count == machine.cpu_count"
    step = f'{{name: One, type: run-command, when: "{condition}", with: {{command: [echo, there]}}}}'
    await execute(
        parse(source(step)),
        tmp_path / "run",
        machine="pc1",
        content=DirectoryContent(tmp_path),
        disks=Disks(),
        control=Control(),
        gather=lambda: {"serial": "S1", "uuid": "u", "cpu_count": 2, "disks": []},
    )
    assert "there" in (tmp_path / "run/log.txt").read_text()


async def test_a_failure_says_which_step_and_why_with_the_end_of_its_output(tmp_path: Path) -> None:
    script = "{name: Bad, type: run-script, with: {script: 'seq 100; echo broken >&2; exit 7'}}"
    machine = Machine(tmp_path, source(script, command("Never", "[touch, never]")))
    outcome = await machine.run()
    assert (outcome.outcome, outcome.step) == (Outcome.FAILED, "Bad")
    assert "sh ended with exit code 7: broken" in outcome.message
    assert "99" in outcome.output_tail
    assert "begins 'Never'" not in machine.log
    assert (await machine.run()) == outcome


LOOK = """
import os, pathlib, sys
secret = os.environ["P"].encode()
seen = []
for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
    try:
        seen += [path] if secret in path.read_bytes() else []
    except OSError:
        continue
print("seen by", len(seen), "and I am told", os.environ["P"], "and", sys.stdin.read())
sys.exit(3)
"""


async def test_secrets_appear_nowhere(tmp_path: Path) -> None:
    spans = recorded_spans()
    (tmp_path / "look.py").write_text(LOOK)
    step = (
        f"{{name: Use, type: run-script, with: {{file: {tmp_path}/look.py, interpreter: ['{sys.executable}'], "
        "environment: {P: '{{ password }}'}, stdin: '{{ password }}'}}"
    )
    machine = Machine(tmp_path, source(step, variables="{password: {secret: true}}"), password=SECRET)
    outcome = await machine.run()
    assert outcome.outcome is Outcome.FAILED
    assert "seen by 0 and I am told *** and ***" in machine.log
    told = "".join(span.to_json() for span in spans.get_finished_spans())
    assert "step Use" in told
    assert SECRET not in machine.log + outcome.message + outcome.output_tail + told + str(machine.reports)
    assert SECRET.encode() not in (tmp_path / "run/journal").read_bytes()


async def test_a_secret_never_reaches_a_command_line(tmp_path: Path) -> None:
    step = "{name: Use, type: run-command, with: {command: [echo, '{{ shown }}']}}"
    machine = Machine(
        tmp_path, source(step, variables="{password: {secret: true}, shown: ''}"), password=SECRET, shown=SECRET
    )
    outcome = await machine.run()
    assert "a secret would show in the process list" in outcome.message


async def test_a_required_variable_without_a_value_stops_the_run_before_it_begins(tmp_path: Path) -> None:
    machine = Machine(tmp_path, source(command("One", "['true']"), variables="{key: {required: true}}"))
    with pytest.raises(VariableError, match="key"):
        await machine.run()


async def test_a_group_that_fails_is_left_and_the_sequence_goes_on_after_it(tmp_path: Path) -> None:
    group = (
        "{name: G, continue_on_error: true, steps: ["
        + ", ".join([command("Bad", "['false']"), command("Skipped", "[echo, skipped-one]")])
        + "]}"
    )
    machine = Machine(tmp_path, source(group, command("After", "[echo, after-it]", "when: '!last.succeeded'")))
    assert (await machine.run()).outcome is Outcome.SUCCEEDED
    assert "after-it" in machine.log
    assert "skipped-one" not in machine.log


async def test_retries_and_time_outs(tmp_path: Path) -> None:
    slow = command("Slow", "[sleep, '60']", "timeout: 0.1, retry: {attempts: 2, delay: 0}")
    machine = Machine(tmp_path, source(slow))
    outcome = await machine.run()
    assert outcome.message == "it did not end within 0.1 s"
    assert machine.log.count("begins 'Slow'") == 2


async def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    machine = Machine(tmp_path, source(command("X", "[no-such-program]")))
    assert (await machine.run()).message == "the program no-such-program is not there"


async def test_a_restart_waits_for_the_machine_to_start_anew(tmp_path: Path) -> None:
    machine = Machine(
        tmp_path,
        source(
            command("Before", "[echo, before]"),
            "{name: R, type: restart, with: {target: installed}}",
            command("After", "[echo, 'in {{ environment }}']"),
        ),
    )
    assert await machine.run() == SequenceOutcome(None, restart="installed")
    assert await machine.run() == SequenceOutcome(None, restart="installed")
    machine.boot, machine.environment = 2, "installed"
    assert (await machine.run()).outcome is Outcome.SUCCEEDED
    assert machine.log.count("before\n") == 1
    assert "in installed" in machine.log


async def test_a_program_may_ask_for_a_restart_and_to_be_run_again(tmp_path: Path) -> None:
    script = f"test -e {tmp_path}/once && exit 0; touch {tmp_path}/once; exit 5"
    machine = Machine(
        tmp_path, source(f"{{name: S, type: run-script, with: {{script: '{script}', rerun_codes: [5]}}}}")
    )
    assert (await machine.run()).restart == "installed"
    machine.boot = 2
    assert (await machine.run()).outcome is Outcome.SUCCEEDED


@pytest.mark.parametrize(
    ("rule", "outcome", "begun"),
    [
        ("rerun", Outcome.SUCCEEDED, [False, False]),
        ("resume", Outcome.SUCCEEDED, [False, True]),
        ("fail", Outcome.FAILED, [False]),
    ],
)
async def test_an_interrupted_step_follows_its_rule(
    tmp_path: Path, rule: str, outcome: Outcome, begun: list[bool]
) -> None:
    machine = Machine(
        tmp_path,
        source(
            command("Done", "[echo, done-once]"),
            f"{{name: Long, type: gather-inventory, on_interruption: {rule}}}",
        ),
    )
    resumed: list[bool] = []
    saved: list[object] = []
    here = asyncio.Event()

    async def long(arguments: object, context: StepContext) -> None:
        resumed.append(context.resume)
        saved.append(context.checkpoint)
        await context.save({"at": 3})
        here.set()
        if len(resumed) == 1:
            await asyncio.Event().wait()

    machine.steps["gather-inventory"] = long
    life = asyncio.create_task(machine.run())
    await here.wait()
    life.cancel()
    with pytest.raises(asyncio.CancelledError):
        await life
    assert (await machine.run()).outcome is outcome
    assert resumed == begun
    assert rule != "resume" or saved == [None, {"at": 3}]
    assert machine.log.count("done-once\n") == 1


async def test_cancelling_breaks_a_long_step_off_and_kills_its_program(tmp_path: Path) -> None:
    machine = Machine(
        tmp_path,
        source("{name: L, type: run-script, with: {script: 'echo pid $$; sleep 600'}}", command("N", "['true']")),
    )
    life = asyncio.create_task(machine.run())
    pid = int((await said(machine, "pid ")).split()[-1])
    machine.control.pause()
    machine.control.cancel("by the operator")
    outcome = await life
    assert (outcome.outcome, outcome.message) == (Outcome.CANCELLED, "by the operator")
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert (await machine.run()).outcome is Outcome.CANCELLED


async def test_pausing_stops_programs(tmp_path: Path) -> None:
    script = "{name: L, type: run-script, with: {script: 'echo pid $$; sleep 0.2; echo over'}}"
    machine = Machine(tmp_path, source(script))
    life = asyncio.create_task(machine.run())
    shell = psutil.Process(int((await said(machine, "pid ")).split()[-1]))
    machine.control.pause()
    await until(lambda: shell.status() == psutil.STATUS_STOPPED)
    assert "over" not in machine.log
    machine.control.resume()
    assert (await life).outcome is Outcome.SUCCEEDED


async def test_the_directory_of_another_sequence_is_refused(tmp_path: Path) -> None:
    await Machine(tmp_path, source(command("One", "['true']"))).run()
    with pytest.raises(RunJournalError, match="another task sequence"):
        await Machine(tmp_path, source(command("Two", "['true']"))).run()


async def test_what_a_step_did_not_expect_fails_it_and_not_the_agent(tmp_path: Path) -> None:
    machine = Machine(tmp_path, source("{name: X, type: gather-inventory}"))

    async def broken(arguments: object, context: StepContext) -> None:
        raise ZeroDivisionError

    machine.steps["gather-inventory"] = broken
    assert "a defect of the step: ZeroDivisionError" in (await machine.run()).message


async def test_arguments_are_checked_again_once_their_templates_are_rendered(tmp_path: Path) -> None:
    machine = Machine(
        tmp_path, source("{name: X, type: check-readiness, with: {min_memory: '{{ size }}'}}", variables="{size: lots}")
    )
    assert "min_memory" in (await machine.run()).message


async def test_progress_that_cannot_be_carried_over_fails_the_restart(tmp_path: Path) -> None:
    machine = Machine(tmp_path, source("{name: R, type: gather-inventory}"))

    async def restarts(arguments: object, context: StepContext) -> None:
        context.results.restart = RestartRequest("installed", carry_state_to="nowhere")

    machine.steps["gather-inventory"] = restarts
    outcome = await machine.run()
    assert outcome.outcome is Outcome.FAILED
    assert "could not be carried over" in outcome.message


async def test_every_attempt_is_a_span_of_the_sequence(tmp_path: Path) -> None:
    spans = recorded_spans()
    machine = Machine(
        tmp_path,
        source(command("Good", "['true']"), command("Bad", "['false']", "retry: {attempts: 2, delay: 0}")),
    )
    await machine.run()
    found = {span.name: span for span in spans.get_finished_spans()}
    assert set(found) == {"task sequence a", "step Good", "step Bad"}
    whole, bad = found["task sequence a"], found["step Bad"]
    assert whole.attributes is not None
    assert whole.attributes["fleetcast.outcome"] == "failed"
    assert bad.parent is not None
    assert whole.context is not None
    assert bad.parent.span_id == whole.context.span_id
    assert bad.attributes is not None
    assert bad.attributes["fleetcast.attempt"] == 2
    assert not bad.status.is_ok


@pytest.mark.parametrize(
    ("more", "told"), [(", efi_volume: 'S:'", "W:\\Windows /s S: /f UEFI"), ("", "W:\\Windows /f BIOS")]
)
async def test_windows_pe_is_told_to_write_the_boot_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: str, told: str
) -> None:
    (tmp_path / "bcdboot").write_text('#!/bin/sh\nprintf "told %s\\n" "$*"\n')
    (tmp_path / "bcdboot").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    machine = Machine(
        tmp_path, source(f"{{name: Boot, type: configure-boot, with: {{system: windows, volume: 'W:'{more}}}}}")
    )
    assert (await machine.run()).outcome is Outcome.SUCCEEDED, machine.log
    assert f"told {told}\n" in machine.log


async def test_a_machine_that_is_not_ready_says_all_that_it_lacks(tmp_path: Path) -> None:
    machine = Machine(
        tmp_path,
        source("{name: R, type: check-readiness, with: {min_memory: 8GiB, firmware: uefi, external_power: true}}"),
    )
    machine.inventory |= {"memory_bytes": 1 << 30, "firmware": "bios", "external_power": False}
    outcome = await machine.run()
    for lack in ("memory of 8 GiB: it has 1 GiB", "the firmware uefi: it has started with bios", "runs on its battery"):
        assert lack in outcome.message


PLUG_IN = """
from fleetcast_sequence import InterruptionRule, StepType
from fleetcast_sequence.model import SequenceModel

class Tune(SequenceModel):
    \"\"\"Tunes.\"\"\"
    level: int

TUNE = StepType("tune", Tune, InterruptionRule.RERUN)

async def tune(arguments, context):
    context.log(f"tuned to {arguments.level}")
    if arguments.level > 10:
        context.remark("louder than it should be")
"""


def test_a_step_type_of_another_distribution_plugs_in(tmp_path: Path) -> None:
    packages = plug_in(tmp_path / "packages", PLUG_IN, step="tune")
    file = tmp_path / "tune.yaml"
    file.write_text("name: tune\nsteps: [{name: Tune, type: tune, with: {level: '{{ 5 + 6 }}'}}]\n")
    command = [sys.executable, "-m", "fleetcast_agent.sequence", "run-sequence", str(file)]
    command += ["--state-dir", str(tmp_path / "run"), "--content", str(tmp_path)]
    ended = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(packages)}, check=False, capture_output=True)
    assert ended.returncode == 8, ended.stderr.decode()
    assert b"remark of 'Tune': louder than it should be\nsucceeded with remarks" in ended.stdout
    assert "tuned to 11" in (tmp_path / "run/log.txt").read_text()


def test_a_file_with_errors_is_refused_by_the_command_with_all_of_them(tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text("name: a\nsteps:\n  - {name: x, type: nothing}\n  - {name: y, type: restart, wth: {}}\n")
    command = [sys.executable, "-m", "fleetcast_agent.sequence", "simulate", str(file)]
    ended = subprocess.run(command, check=False, capture_output=True, text=True)
    assert ended.returncode == 1
    assert "3:21: steps[0].type: there is no step type 'nothing'" in ended.stderr
    assert "4:30: steps[1].wth: 'wth' is not known here" in ended.stderr


async def test_content_of_a_directory_cannot_multicast(tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(b"x")
    content = DirectoryContent(tmp_path)
    with pytest.raises(StepError, match="cannot multicast"):
        await content.fetch("image", tmp_path / "copy", delivery="multicast-only", progress=lambda part: None)
    with pytest.raises(StepError, match="no image"):
        await content.describe("../etc/passwd")
