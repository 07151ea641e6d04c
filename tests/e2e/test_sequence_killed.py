"""The agent killed in the middle of a step goes on as the step's rule says, on the real disk."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fleetcast_agent.sequence.disks import loops_of

from tests.e2e.test_sequence_steps import make_tree, make_wim
from tests.support.sequences import Rehearsal, needs_disks, tool

pytestmark = needs_disks

MIB = 1 << 20
PARTITION = (
    "{name: Partition, type: partition-disk, with: {partitions: "
    "[{name: data, type: windows, size: 70MiB, filesystem: ntfs}, {name: root, filesystem: ext4}]}}"
)
MARK = "{name: Mark, type: run-script, with: {script: 'echo once >> %s'}}"


def start(machine: Rehearsal, file: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "fleetcast_agent.sequence", "run-sequence", str(file), "--disk", str(machine.disk)]
    command += ["--state-dir", str(machine.state), "--content", str(machine.content)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def kill_when(machine: Rehearsal, process: subprocess.Popen[str], text: str, pause_seconds: float) -> None:
    """Kills the agent `pause_seconds` after its log says `text`."""
    log = machine.state / "log.txt"
    until = time.monotonic() + 60
    while not (log.exists() and text in log.read_text()):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < until
        time.sleep(0.005)
    time.sleep(pause_seconds)
    process.send_signal(signal.SIGKILL)
    process.communicate()


def finish(machine: Rehearsal, file: Path) -> str:
    process = start(machine, file)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output + machine.log
    return machine.log


@pytest.mark.parametrize("pause_seconds", [0.0, 0.15, 0.4])
@pytest.mark.parametrize("step", ["Partition", "Apply", "Settings", "Capture"])
def test_a_killed_agent_goes_on_and_the_result_is_the_same(tmp_path: Path, step: str, pause_seconds: float) -> None:
    machine = Rehearsal(tmp_path, 160 * MIB)
    tree = make_tree(tmp_path / "tree")
    make_wim(tree, machine.content / "win")
    marks = tmp_path / "marks"
    file = tmp_path / "sequence.yaml"
    steps = [
        PARTITION,
        MARK % marks,
        "{name: Apply, type: apply-operating-system, with: {image: win, volume: data, index: 2}}",
        "{name: Settings, type: apply-windows-settings, with: {volume: data, computer_name: PC-1}}",
        "{name: Capture, type: capture-image, with: {image: mine, volume: data}}",
    ]
    file.write_text("name: killed\nsteps:\n" + "".join(f"  - {line}\n" for line in steps))
    process = start(machine, file)
    kill_when(machine, process, f"begins '{step}'", pause_seconds)
    log = finish(machine, file)
    assert marks.read_text() == "once\n"
    assert log.count("'Mark' succeeded") == 1
    assert not loops_of(machine.disk)
    assert str(machine.state) not in Path("/proc/mounts").read_text()
    answers = tmp_path / "expanded"
    tool("wimlib-imagex", "apply", machine.content / "mine", "1", answers)
    found = subprocess.run(
        ["diff", "-rq", "--no-dereference", tree, answers], check=False, capture_output=True, text=True
    )
    assert found.stdout.split("\n")[:-1] == [f"Only in {answers}/Windows: Panther"]


def test_a_command_that_was_interrupted_fails_by_default(tmp_path: Path) -> None:
    machine = Rehearsal(tmp_path, MIB)
    file = tmp_path / "sequence.yaml"
    file.write_text("name: killed\nsteps: [{name: Long, type: run-script, with: {script: 'echo begun; sleep 30'}}]\n")
    kill_when(machine, start(machine, file), " begun\n", 0)
    process = start(machine, file)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "failed in 'Long': it was interrupted" in output


def test_the_programs_of_a_killed_agent_die_with_it(tmp_path: Path) -> None:
    machine = Rehearsal(tmp_path, MIB)
    file = tmp_path / "sequence.yaml"
    file.write_text(
        "name: killed\nsteps: [{name: L, type: run-script, with: {script: 'echo pid $$; exec sleep 30'}}]\n"
    )
    kill_when(machine, start(machine, file), " pid ", 0)
    pid = int(machine.log.split("pid ")[1].split()[0])
    until = time.monotonic() + 5
    while time.monotonic() < until and os.path.exists(f"/proc/{pid}"):
        time.sleep(0.01)
    assert not os.path.exists(f"/proc/{pid}")
