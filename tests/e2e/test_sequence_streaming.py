"""Pipable WIMs are applied while they arrive, with the real tools on a disk file."""

from __future__ import annotations

import asyncio
import hashlib
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from fleetcast_agent.sequence.content.content import Delivery, DirectoryContent, Examine, Progress, Verified
from fleetcast_agent.sequence.disks import volumes
from fleetcast_agent.sequence.engine.records import Outcome
from fleetcast_agent.sequence.steps.wim import FETCH_SHARE
from fleetcast_kit.errors import UnavailableError

from tests.e2e.test_sequence_killed import finish, kill_when, start_unending
from tests.e2e.test_sequence_steps import SMALL, read
from tests.support.attending import AttendingMachine, exit_codes, gather_machines
from tests.support.installation import Installation, wait_until
from tests.support.sequences import MIB, Rehearsal, let_go, looking_at, make_tree, needs_disks, tool
from tests.support.waiting import until

pytestmark = needs_disks

STREAMED = "it is applied while it arrives"
BOTH = pytest.mark.parametrize("volume", ["data", "root"], ids=["ntfs", "ext4"])


@pytest.fixture
def machine(tmp_path: Path) -> Rehearsal:
    return Rehearsal(tmp_path, 160 * MIB)


def make_pipable(directory: Path, wim: Path, *, files: int = 60, file_bytes: int = 100_000) -> Path:
    """Makes a pipable WIM with two indexes, and returns the tree that the second was made from."""
    tree = make_tree(directory / "tree")
    (tree / "Program Files").mkdir()
    for number in range(files):
        (tree / f"Program Files/{number}.bin").write_bytes(os.urandom(file_bytes))
    (tree / "Users").chmod(0o750)
    tool("wimlib-imagex", "capture", tree, wim, "First", "--pipable", "--unix-data", "--compress=XPRESS")
    (tree / "Windows/second").write_text("only in index 2")
    tool("wimlib-imagex", "append", tree, wim, "Second", "--unix-data")
    return tree


async def difference(machine: Rehearsal, volume: str, tree: Path) -> str:
    context = machine.context()
    async with volumes.mounted(context, await volumes.find(context, volume), read_only=True) as root:
        return tool("diff", "--recursive", "--brief", "--no-dereference", "--exclude=lost+found", tree, root)


async def facts(machine: Rehearsal, volume: str) -> dict[str, tuple[object, ...]]:
    """Returns everything about the files of a volume but where their blocks are."""
    context = machine.context()
    found: dict[str, tuple[object, ...]] = {}
    async with volumes.mounted(context, await volumes.find(context, volume), read_only=True) as root:
        for path in sorted(root.rglob("*")):
            about = path.lstat()
            content = hashlib.sha256(path.read_bytes()).hexdigest() if stat.S_ISREG(about.st_mode) else ""
            target = os.readlink(path) if path.is_symlink() else ""
            times = 0 if path.name == "lost+found" else about.st_mtime_ns
            owner = (about.st_uid, about.st_gid)
            found[str(path.relative_to(root))] = (about.st_mode, owner, about.st_nlink, times, content, target)
    return found


@BOTH
async def test_a_streamed_image_is_equal_to_a_spooled_one(machine: Rehearsal, tmp_path: Path, volume: str) -> None:
    tree = make_pipable(tmp_path, machine.content / "win")
    spool = {"data": "root", "root": "data"}[volume]
    found = []
    for index, options, streamed in (("2", "", True), ("Second", "", True), ("2", f", spool: {spool}", False)):
        outcome = await machine.steps(
            SMALL, f"apply-operating-system: {{image: win, index: {index}, volume: {volume}{options}}}"
        )
        assert outcome.outcome is Outcome.SUCCEEDED, outcome
        assert (STREAMED in machine.log) == streamed
        assert await difference(machine, volume, tree) == ""
        assert not list(machine.state.glob("steps/*"))
        found.append(await facts(machine, volume))
    assert found[0] == found[1] == found[2]
    assert found[0]["Windows/second"][2] == 1
    if volume == "data":
        context = machine.context()
        async with volumes.attached(context, await volumes.find(context, volume)) as device:
            tool("ntfsfix", "--no-action", device)


async def test_a_wim_that_is_not_pipable_is_applied_when_it_is_whole(machine: Rehearsal, tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree")
    tool("wimlib-imagex", "capture", tree, machine.content / "win", "W")
    outcome = await machine.steps(SMALL, "apply-operating-system: {image: win, volume: data}")
    assert outcome.outcome is Outcome.SUCCEEDED, outcome
    assert STREAMED not in machine.log
    assert await difference(machine, "data", tree) == ""


async def test_an_index_that_a_pipable_wim_does_not_have_leaves_the_volume_as_it_is(
    machine: Rehearsal, tmp_path: Path
) -> None:
    make_pipable(tmp_path, machine.content / "win", files=0)
    outcome = await machine.steps(
        SMALL,
        "copy-files: {volume: data, destination: here.txt, content: still}",
        "apply-operating-system: {image: win, index: 3, volume: data}",
    )
    assert outcome.message == "win has no image '3': it has 1 (First), 2 (Second)"
    assert await read(machine, "data", "here.txt") == b"still"


@dataclass
class SlowContent(DirectoryContent):
    """Images that come in two parts: the second when the test lets it come, or never."""

    directory: Path
    first_bytes: int
    more: asyncio.Event = field(default_factory=asyncio.Event)
    ended: bool = False
    failures: int = 0
    """So many times the fetch fails in place of the second part."""

    def __post_init__(self) -> None:
        super().__init__(self.directory)

    async def fetch(
        self,
        image: str,
        target: Path,
        *,
        delivery: Delivery,
        progress: Progress,
        verified: Verified | None = None,
        examine: Examine | None = None,
    ) -> None:
        content = await asyncio.to_thread((self.directory / image).read_bytes)
        with target.open("wb") as file:
            file.truncate(len(content))
            # Some of the end comes first, as by multicast it may.
            file.seek(-1000, os.SEEK_END)
            file.write(content[-1000:])
            file.seek(0)
            file.write(content[: self.first_bytes])
            file.flush()
            if verified is not None:
                verified(self.first_bytes)
            await self.more.wait()
            if self.failures:
                self.failures -= 1
                raise UnavailableError("the sender is gone")
            file.write(content[self.first_bytes :])
        self.ended = True


def applied(machine: Rehearsal) -> float:
    """Returns how much of the second step is done."""
    return max((report.step_fraction for report in machine.reports if report.step == 2), default=0)


@BOTH
async def test_files_are_on_the_volume_before_the_rest_of_the_image_has_come(
    machine: Rehearsal, tmp_path: Path, volume: str
) -> None:
    tree = make_pipable(tmp_path, machine.content / "win")
    machine.source = source = SlowContent(machine.content, (machine.content / "win").stat().st_size * 2 // 3)
    work = asyncio.ensure_future(
        machine.steps(SMALL, f"apply-operating-system: {{image: win, index: 2, volume: {volume}}}")
    )
    # The fetch says nothing of its progress: whatever the step's is comes from applying.
    await until(lambda: work.done() or applied(machine) > 0.15)
    assert not work.done()
    assert not source.ended
    if volume == "root":
        written = machine.directory.glob("run-1/steps/*/mount-*/Program Files/*.bin")
        assert len([path for path in written if path.stat().st_size == 100_000]) > 5
    source.more.set()
    outcome = await work
    assert outcome.outcome is Outcome.SUCCEEDED, outcome
    assert await difference(machine, volume, tree) == ""
    fractions = [report.step_fraction for report in machine.reports if report.step == 2]
    assert fractions == sorted(fractions)
    assert max(fractions[:-1]) <= 1 - FETCH_SHARE + 1e-9


async def test_a_fetch_that_fails_in_the_middle_fails_the_step_and_a_retry_begins_anew(
    machine: Rehearsal, tmp_path: Path
) -> None:
    tree = make_pipable(tmp_path, machine.content / "win")
    machine.source = source = SlowContent(machine.content, (machine.content / "win").stat().st_size // 2, failures=2)
    work = asyncio.ensure_future(machine.steps(SMALL, "apply-data-image: {image: win, index: 2, volume: data}"))
    await until(lambda: work.done() or applied(machine) > 0.1)
    source.more.set()
    outcome = await work
    assert outcome.outcome is Outcome.FAILED
    assert outcome.message == (
        "win could not be fetched to its end, and a part of it is on the volume 'data' already: the sender is gone"
    )
    assert let_go(machine.disk)
    outcome = await machine.run(
        "name: again\nsteps:\n  - {name: Again, type: apply-data-image, retry: {attempts: 2, delay: 1s}, "
        "with: {image: win, index: 2, volume: 'label:Data'}}\n"
    )
    assert outcome.outcome is Outcome.SUCCEEDED, outcome
    assert machine.log.count("the sender is gone") == 1
    assert await difference(machine, "label:Data", tree) == ""


async def test_a_fetch_that_fails_before_the_beginning_leaves_the_volume_as_it_is(
    machine: Rehearsal, tmp_path: Path
) -> None:
    make_pipable(tmp_path, machine.content / "win", files=0)
    machine.source = source = SlowContent(machine.content, 100, failures=1)
    source.more.set()
    outcome = await machine.steps(
        SMALL,
        "copy-files: {volume: data, destination: here.txt, content: still}",
        "apply-operating-system: {image: win, volume: data}",
    )
    assert outcome.message == "the sender is gone"
    assert await read(machine, "data", "here.txt") == b"still"


@BOTH
async def test_a_volume_that_is_too_small_ends_the_step_while_the_image_still_comes(
    machine: Rehearsal, tmp_path: Path, volume: str
) -> None:
    make_pipable(tmp_path, machine.content / "win", files=30, file_bytes=2 * MIB)
    machine.source = source = SlowContent(machine.content, (machine.content / "win").stat().st_size - 100_000)
    small = "partition-disk: {partitions: [{name: data, size: 20MiB, filesystem: ntfs}, " + (
        "{name: root, size: 20MiB, filesystem: ext4}]}"
    )
    outcome = await asyncio.wait_for(
        machine.steps(small, f"apply-operating-system: {{image: win, volume: {volume}}}"), 60
    )
    assert outcome.outcome is Outcome.FAILED
    assert "wimlib-imagex ended with exit code" in outcome.message
    assert "No space left on device" in outcome.message
    assert not source.ended
    assert let_go(machine.disk)


async def test_a_damaged_pipable_wim_is_an_error(machine: Rehearsal, tmp_path: Path) -> None:
    make_pipable(tmp_path, machine.content / "win")
    content = bytearray((machine.content / "win").read_bytes())
    content[len(content) // 2 : len(content) // 2 + 200_000] = os.urandom(200_000)
    (machine.content / "win").write_bytes(content)
    outcome = await machine.steps(SMALL, "apply-operating-system: {image: win, volume: root}")
    assert outcome.outcome is Outcome.FAILED
    assert "wimlib-imagex ended with exit code" in outcome.message


@pytest.mark.parametrize("pause_seconds", [0.0, 0.1, 0.3])
@BOTH
async def test_a_killed_agent_applies_the_image_anew(tmp_path: Path, volume: str, pause_seconds: float) -> None:
    machine = Rehearsal(tmp_path, 160 * MIB)
    tree = make_pipable(tmp_path, machine.content / "win", files=300)
    file = tmp_path / "sequence.yaml"
    partition, _, arguments = SMALL.partition(": ")
    file.write_text(
        f"name: killed\nsteps:\n  - {{name: Partition, type: {partition}, with: {arguments}}}\n  - {{name: Apply, "
        f"type: apply-operating-system, with: {{image: win, index: 2, volume: {volume}}}}}\n"
    )
    await asyncio.to_thread(kill_when, machine, start_unending(machine, file, "Apply"), STREAMED, pause_seconds)
    log = await asyncio.to_thread(finish, machine, file)
    assert log.count(STREAMED) == 2
    assert let_go(machine.disk)
    assert str(machine.state) not in await asyncio.to_thread(Path("/proc/mounts").read_text)
    assert await difference(machine, volume, tree) == ""


@pytest.mark.parametrize("delivery", ["prefer-multicast", "unicast"])
async def test_a_machine_killed_while_it_applies_what_still_comes_takes_only_what_it_lacks(
    tmp_path: Path, installation: Installation, delivery: str
) -> None:
    wim = tmp_path / "office.wim"
    tree = await asyncio.to_thread(make_pipable, tmp_path, wim, files=250)
    file = tmp_path / "office.yaml"
    partition, _, arguments = SMALL.partition(": ")
    file.write_text(
        f"name: office\nsteps:\n  - {{name: Partition, type: {partition}, with: {arguments}}}\n  - {{name: Apply, "
        f"type: apply-operating-system, with: {{image: office, index: 2, volume: root, delivery: {delivery}}}}}\n"
    )

    def deploy() -> list[AttendingMachine]:
        installation.fleetcast("image", "import", str(wim), "--name", "office")
        installation.fleetcast("task-sequence", "create", str(file))
        machines = gather_machines(installation, ["pc1", "pc2"], 160 * MIB)
        command = ["deploy", "--collection", "lab", "--purpose", "required", "--task-sequence", "office"]
        installation.fleetcast(*command, "--min-clients", "2", "--rate", "40M")
        killed = machines[0]
        wait_until(lambda: len(list(killed.state.rglob("Program Files/*.bin"))) > 30, "files are on the volume")
        assert len(list(killed.state.rglob("image.wim"))) == 1
        assert killed.processes[-1].poll() is None
        killed.kill()
        killed.start()
        assert exit_codes(machines) == {"pc1": 0, "pc2": 0}
        return machines

    machines = await asyncio.to_thread(deploy)
    for each in machines:
        context = looking_at(each.disk, each.directory / "looking")
        async with volumes.mounted(context, await volumes.find(context, "label:root"), read_only=True) as root:
            options = ("-rq", "--no-dereference", "--exclude=lost+found")
            assert await asyncio.to_thread(tool, "diff", *options, tree, root) == ""
    (deployment,) = (await asyncio.to_thread(installation.fleetcast, "deployment", "list"))["deployments"]
    shown = await asyncio.to_thread(installation.fleetcast, "deployment", "show", deployment["name"], "pc1")
    (run,) = shown["runs"]
    sessions = (await asyncio.to_thread(installation.fleetcast, "session", "list"))["sessions"]
    shown = [await asyncio.to_thread(installation.fleetcast, "session", "show", each["name"]) for each in sessions]
    assert max(each["totals"]["held_bytes"] for session in shown for each in session["participants"]) > MIB
    assert [step["outcome"] for step in run["steps"]] == ["succeeded", "interrupted", "succeeded"]
    log = await asyncio.to_thread(installation.run, "deployment", "log", deployment["name"], "pc1")
    assert log.stdout.count(STREAMED) == 2
