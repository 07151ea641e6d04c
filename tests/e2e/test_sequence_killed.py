"""The agent killed in the middle of a step goes on as the step's rule says, on the real disk."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
from fleetcast_agent.sequence.disks import volumes
from fleetcast_sequence import step_types

from tests.support.sequences import Rehearsal, let_go, make_tree, make_wim, needs_disks, tool

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


def start_unending(machine: Rehearsal, file: Path, step: str) -> subprocess.Popen[str]:
    """Starts an agent that can be killed in this step for as long as the test takes, on however fast a computer."""
    command = [sys.executable, "-m", "tests.support.unending", str(file), step, str(machine.disk)]
    command += [str(machine.state), str(machine.content)]
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
    assert process.poll() is None, process.communicate()[0]
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
    kill_when(machine, start_unending(machine, file, step), f"begins '{step}'", pause_seconds)
    log = finish(machine, file)
    assert log.count(f"was interrupted in '{step}'") == 1
    assert marks.read_text() == "once\n"
    assert log.count("'Mark' succeeded") == 1
    assert let_go(machine.disk)
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


@pytest.mark.parametrize(
    "step",
    [
        "{name: It, type: apply-operating-system, with: {image: win, volume: root, index: 2}}",
        "{name: It, type: apply-data-image, with: {image: win, volume: 'label:old', index: 2}}",
        "{name: It, type: format-volume, with: {volume: 'label:old', filesystem: ext4, label: old}}",
    ],
)
def test_an_agent_killed_while_it_makes_a_file_system_makes_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    machine = Rehearsal(tmp_path, 160 * MIB)
    make_wim(make_tree(tmp_path / "tree"), machine.content / "win")
    file, after = (
        tmp_path / "sequence.yaml",
        "{name: After, type: format-volume, with: {volume: 'label:old', keep: [x]}}",
    )
    labelled = PARTITION.replace("filesystem: ext4", "filesystem: ext4, label: old")
    file.write_text("name: killed\nsteps:\n" + "".join(f"  - {line}\n" for line in (labelled, step, after)))
    slow = tmp_path / "bin/mkfs.ext4"
    slow.parent.mkdir()
    slow.write_text(
        f'#!/bin/sh\ngrep -q "begins \'It\'" {machine.state}/log.txt || exec {shutil.which("mkfs.ext4")} "$@"\n'
        'for device; do :; done; dd if=/dev/zero of="$device" bs=1M count=4; echo it is half done; sleep 60\n'
    )
    slow.chmod(0o755)
    with monkeypatch.context() as patched:
        patched.setenv("PATH", str(slow.parent), prepend=os.pathsep)
        kill_when(machine, start(machine, file), "it is half done", 0)
    log = finish(machine, file)
    assert log.count("was interrupted in 'It'") == 1


async def test_an_agent_killed_while_a_raw_image_covers_a_label_finds_the_volume_again(tmp_path: Path) -> None:
    machine = Rehearsal(tmp_path, 160 * MIB)
    with (machine.content / "raw").open("wb") as image:
        image.truncate(40 * MIB)
    await asyncio.to_thread(tool, "mkfs.ext4", "-q", machine.content / "raw")
    file = tmp_path / "sequence.yaml"
    apply = "{name: It, type: apply-data-image, with: {image: raw, volume: 'label:old'}}"
    labelled = PARTITION.replace("filesystem: ext4", "filesystem: ext4, label: old")
    file.write_text("name: killed\nsteps:\n" + "".join(f"  - {line}\n" for line in (labelled, apply)))
    await asyncio.to_thread(kill_when, machine, start_unending(machine, file, "It"), "begins 'It'", 1)
    await asyncio.to_thread(finish, machine, file)
    assert await contents(machine, "root") == {}


WINDOWS = """
name: killed
variables: {tools: "", words: ""}
steps:
  - {name: Ready, type: check-readiness, with: {min_memory: 64MiB}}
  - {name: Inventory, type: gather-inventory}
  - {name: Words, type: set-variables, with: {variables: {words: "said {{ machine.name }}"}}}
  - name: Partition
    type: partition-disk
    with: {partitions: [{name: data, type: windows, size: 70MiB, filesystem: ntfs, label: Data},
                        {name: root, filesystem: ext4}]}
  - {name: Apply, type: apply-operating-system, with: {image: win, volume: data, index: 2}}
  - {name: Package, type: download-package, with: {package: tools, path_variable: tools}}
  - {name: Copy, type: copy-files, with: {volume: data, destination: Tools, source: "{{ tools }}", template: true}}
  - {name: Command, type: run-command, on_interruption: rerun, with: {command: [test, -d, "{{ tools }}"]}}
  - {name: Script, type: run-script, on_interruption: rerun, with: {script: "sleep 0.1; echo {{ words }}"}}
  - {name: Keep, type: capture-user-state, with: {volume: data, paths: ["Users/*"], store: kept}}
  - {name: Erase, type: format-volume, with: {volume: data, keep: [kept]}}
  - {name: Apply again, type: apply-operating-system, with: {image: win, volume: data, index: 1}}
  - {name: Restore, type: restore-user-state, with: {volume: data, store: kept, delete_store: true}}
  - {name: Settings, type: apply-windows-settings, with: {volume: data, computer_name: PC-1}}
  - name: Network
    type: apply-network-settings
    with: {volume: data, adapters: [{mac: "52:54:00:12:34:56", dhcp: true}]}
  - {name: Drivers, type: apply-driver-package, with: {volume: data, packages: [{package: drivers}]}}
  - {name: Capture, type: capture-image, with: {image: mine, volume: data}}
"""
LINUX = """
name: killed
steps:
  - {name: Partition, type: partition-disk, with: {layout: bios}}
  - {name: Data, type: apply-data-image, with: {image: data, volume: root}}
  - {name: Kernel, type: copy-files, with: {volume: root, destination: boot/vmlinuz-6.1, content: kernel}}
  - name: Settings
    type: apply-linux-settings
    with: {volume: root, host_name: pc1.example.org, time_zone: Europe/Berlin}
  - name: Network
    type: apply-network-settings
    with: {volume: root, adapters: [{mac: "52:54:00:12:34:56", dhcp: true}]}
  - {name: Child, type: run-task-sequence, with: {sequence: child}}
  - {name: Boot, type: configure-boot, with: {volume: root, bootloader: BOOTLOADER}}
  - {name: Restart, type: restart, with: {target: installed, carry_state_to: root}}
"""
"""Each step type stands in one of the two."""


def prepare(machine: Rehearsal, wim: Path, text: str) -> Path:
    """Makes the images that the sequences use, and returns the file of the sequence."""
    shutil.copy(wim, machine.content / "win")
    for name, member in (("tools", "bin/a.txt"), ("drivers", "net/net.inf")):
        file = machine.directory / name
        file.write_text("for {{ machine.name }}")
        with tarfile.open(machine.content / name, "w") as tar:
            tar.add(file, member)
    root = machine.directory / "root"
    for name in ("proc", "sys", "dev"):
        (root / name).mkdir(parents=True)
    for path, content in (("etc/hostname", "image\n"), ("usr/share/zoneinfo/Europe/Berlin", "TZif")):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(content)
    tool("mkfs.ext4", "-q", "-d", root, machine.content / "data", "40M")
    child = (
        "name: child\nsteps: [{name: In it, type: copy-files, with: {volume: root, destination: in, content: it}}]\n"
    )
    (machine.directory / "child.yaml").write_text(child)
    file = machine.directory / "sequence.yaml"
    file.write_text(text.replace("BOOTLOADER", "grub" if os.path.isdir("/usr/lib/grub/i386-pc") else "none"))
    return file


async def contents(machine: Rehearsal, volume: str) -> dict[str, bytes]:
    """Returns the files of a volume, what is random in them left out."""
    context = machine.context()
    found = {}
    async with volumes.mounted(context, await volumes.find(context, volume), read_only=True) as root:
        for path in sorted(root.rglob("*")):
            if path.is_file() and path.name not in ("machine-id", "journal", "log.txt"):
                content = re.sub(rb"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", b"UUID", path.read_bytes())
                found[str(path.relative_to(root))] = content
    return found


def test_every_step_type_is_killed_somewhere() -> None:
    text = WINDOWS + LINUX
    assert [name for name in step_types() if f"type: {name}" not in text] == []


@pytest.mark.parametrize("pause_seconds", [0.0, 0.05])
@pytest.mark.parametrize(("text", "volume"), [(WINDOWS, "data"), (LINUX, "root")], ids=["windows", "linux"])
async def test_an_agent_killed_in_every_step_leaves_what_an_undisturbed_one_does(
    tmp_path: Path, text: str, volume: str, pause_seconds: float
) -> None:
    wim = tmp_path / "win.wim"
    make_wim(make_tree(tmp_path / "tree"), wim)
    ends = []
    for name in ("undisturbed", "killed"):
        machine = Rehearsal(tmp_path / name, 160 * MIB)
        file = prepare(machine, wim, text)
        names = re.findall(r"- {?name: ([A-Z][\w ]*)", file.read_text()) if name == "killed" else []
        for step in ["In it" if step == "Child" else step for step in names]:
            process = start_unending(machine, file, step)
            await asyncio.to_thread(kill_when, machine, process, f"begins '{step}'", pause_seconds)
        process = start(machine, file)
        output, _ = await asyncio.to_thread(process.communicate)
        assert process.returncode == (0 if text is WINDOWS else 3), output + machine.log
        assert machine.log.count("was interrupted in") == len(names)
        assert let_go(machine.disk)
        assert str(machine.state) not in await asyncio.to_thread(Path("/proc/mounts").read_text)
        ends.append(await contents(machine, volume))
    assert ends[0].keys() == ends[1].keys()
    assert [path for path in ends[0] if ends[0][path] != ends[1][path]] == []
