"""The story: make an image, import it, enrol three machines, send to all at once, prove every byte, show the trace."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType

from fleetcast_kit.values.rates import format_rate
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from deploy.demo import bare_metal
from deploy.demo.inputs import Input, MissingToolError, copy_tree, make_ext4, make_wim, require_tool
from deploy.demo.proof import Proof, prove
from deploy.demo.story import DEPLOY_COMMAND, TraceStory
from tests.support.collector import TraceCollector
from tests.support.installation import BIN, SERVER_LOG, Installation, Machine, ProcessFailedError, tail

MACHINES = ("lab-01", "lab-02", "lab-03")
NEEDED_BYTES = 4 * 10**9
"""Disk space at the peak: files, both images, the store, two disks of each of three machines; doubled."""

_console = Console(highlight=False, markup=False, soft_wrap=True)
if not _console.is_terminal:
    _console.width = 200  # a log's lines are not cut


class DemoError(Exception):
    """The demonstration cannot go on; the message says why."""


def main() -> int:
    """Returns 0 if everything that the demonstration promises holds."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    started_at = time.monotonic()
    try:
        require_tool("mke2fs", "e2fsprogs")
        with tempfile.TemporaryDirectory(prefix="fleetcast-demo-", dir=_roomy_directory()) as directory:
            try:
                succeeded = _tell(Path(directory))
            except (DemoError, ProcessFailedError):
                _console.print(f"\nThe server's log:\n{tail(Path(directory) / 'site' / SERVER_LOG, 60)}")
                raise
    except (DemoError, MissingToolError, ProcessFailedError) as error:
        _console.print(f"\nThe demo failed: {error}", style="bold red")
        return 1
    except subprocess.CalledProcessError as error:
        _console.print(f"\nThe demo failed: {error}: {error.stderr.decode(errors='replace')}", style="bold red")
        return 1
    except KeyboardInterrupt:
        _console.print("\nInterrupted: everything is stopped and removed.")
        return 130
    seconds = time.monotonic() - started_at
    verdict = "Everything holds" if succeeded else "NOT everything holds"
    _console.print(f"\n{verdict}, {seconds:.0f} s in all.", style="bold green" if succeeded else "bold red")
    return 0 if succeeded else 1


def _tell(directory: Path) -> bool:
    with TraceCollector() as collector, Installation(directory / "site", environment=collector.environment()) as site:
        with ThreadPoolExecutor(1) as executor:
            starting = executor.submit(site.start_server)
            images = _make_inputs(directory)
            starting.result()
        _say(f"Server: {site.address}, its data in {site.data_directory}")
        for image in images:
            _say(f"fleetcast image import {image.file.name} --name {image.name}")
            imported = site.fleetcast("image", "import", str(image.file), "--name", image.name)
            _console.print(
                f"  {imported['name'].removeprefix('images/')[:40]}…: {_megabytes(imported['size_bytes'])}, "
                f"{imported['chunk_count']} chunks, {imported['zero_chunk_count']} of them zero, "
                f"{_megabytes(imported['stored_bytes'])} stored"
            )
        _say(f"fleetcast-agent enrol: {', '.join(MACHINES)}")
        machines = site.enrol(MACHINES)
        proofs: list[Proof] = []
        for image in images:
            proofs += _deploy(site, machines, image)
        _say("What every machine received, and whether its disk is the image")
        _console.print(_closing_table(proofs))
        installed = _install(site, images, directory)
        site.stop_server()
        _say("One trace, from the command to every agent")
        stories = TraceStory.each(collector, len(images))
        told = TraceStory.each(collector, 1, command=DEPLOY_COMMAND) if installed else []
        for story in stories + told:
            _console.print(story.text)
        whole = len(stories) == len(images) and all(story.is_complete(len(machines)) for story in stories)
        whole = whole and (not installed or (len(told) == 1 and told[0].is_complete(len(machines))))
        if not whole:
            _console.print("The trace is not whole: a part of the path is missing.", style="bold red")
        return whole and all(proof.holds for proof in proofs) and not any(each.complaint for each in installed)


def _install(site: Installation, images: list[Input], directory: Path) -> list[bare_metal.Installed]:
    """Returns what a task sequence made of three empty disks; nothing where it cannot run."""
    tree = directory / "tree"
    _say("A task sequence onto three empty disks, at once")
    wim = next((image for image in images if image.name == "wim"), None)
    lacking = bare_metal.what_lacks() if wim is not None else "there is no WIM"
    if wim is None or lacking:
        _console.print(f"  left out: {lacking}")
        return []
    for name in MACHINES:
        for image in images:
            (directory / "site" / name / image.file.name).unlink(missing_ok=True)
    attending = bare_metal.start_machines(site, MACHINES)
    site.fleetcast("collection", "create", bare_metal.COLLECTION)
    site.fleetcast("collection", "add", bare_metal.COLLECTION, *MACHINES)
    file = bare_metal.write_sequence(directory, wim)
    _say(f"fleetcast task-sequence create {file.name}")
    site.fleetcast("task-sequence", "create", str(file))
    flags = ["--collection", bare_metal.COLLECTION, "--task-sequence", bare_metal.SEQUENCE, "--purpose", "required"]
    flags += ["--min-clients", str(len(MACHINES))]
    _say(f"fleetcast deploy {' '.join(flags)}")
    made = site.fleetcast("deploy", *flags)
    name = made["deployment"]["name"].removeprefix("deployments/")
    watch = site.start([str(BIN / "fleetcast"), "deployment", "watch", name])
    installed = bare_metal.prove_installed(attending, tree)
    if watch.wait(30):
        raise DemoError(f"the deployment {name} did not end well")
    for each in installed:
        what = f"NTFS clean, {each.file_count} files identical, its own name in machine.txt"
        verdict = f"FAILED: {each.complaint}" if each.complaint else what
        _console.print(f"  {each.machine}: {verdict}", style="bold red" if each.complaint else "")
    return installed


def _make_inputs(directory: Path) -> list[Input]:
    tree = directory / "tree"
    _say("Making real images from this machine's own /usr")
    file_count, content_bytes = copy_tree(tree)
    _console.print(f"  {file_count} files, {_megabytes(content_bytes)}")
    images = [make_ext4(tree, directory / "demo.ext4")]
    wim = make_wim(tree, directory / "demo.wim")
    if wim is None:
        _console.print("  no WIM: wimlib-imagex is not installed (as root: apt-get install wimtools)")
    else:
        images.append(wim)
    for image in images:
        _console.print(f"  {image.file.name}: {image.title}, {_megabytes(image.size_bytes)}")
    if bare_metal.what_lacks():
        shutil.rmtree(tree)
    return images


def _deploy(site: Installation, machines: list[Machine], image: Input) -> list[Proof]:
    """Returns the proofs for one image, sent to all machines at once."""
    flags = ["--image", image.name, "--min-clients", str(len(machines))]
    flags += ["--as-file"] if image.name == "wim" else []
    _say(f"fleetcast session create {' '.join(flags)}")
    session = site.fleetcast("session", "create", *flags)
    name = session["name"].removeprefix("sessions/")
    watch = site.watch(name)
    receptions = [site.receive(machine, machine.directory / image.file.name, session=name) for machine in machines]
    summaries = [reception.wait() for reception in receptions]
    if watch.wait(30):
        raise DemoError(f"the session {name} did not end well")
    return [
        prove(machine.name, image, reception.output, summary)
        for machine, reception, summary in zip(machines, receptions, summaries, strict=True)
    ]


def _closing_table(proofs: list[Proof]) -> Table:
    numbers = ("time", "goodput", "multicast", "unicast", "lost")
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    for heading in ("machine", "image", *numbers, "proven"):
        table.add_column(heading, justify="right" if heading in numbers else "left", no_wrap=True)
    for proof in proofs:
        summary = proof.summary
        table.add_row(
            proof.machine,
            proof.image.name,
            f"{summary['seconds']:.1f} s",
            format_rate(summary["goodput_bits_per_second"]),
            _megabytes(summary["multicast_bytes"]),
            _megabytes(summary["unicast_bytes"]),
            str(summary["lost_datagram_count"] + summary["overflow_datagram_count"]),
            f"{'identical' if proof.identical else 'DIFFERENT'}, "
            f"{proof.image.check_title} {proof.complaint or 'clean'}",
            style="" if proof.holds else "bold red",
        )
    return table


def _roomy_directory() -> str:
    """Returns a directory for temporary files with enough room.

    Raises:
        DemoError: there is none.
    """
    candidates = [tempfile.gettempdir(), "/var/tmp"]  # noqa: S108 - only a parent of a directory with a random name
    for candidate in candidates:
        if Path(candidate).is_dir() and shutil.disk_usage(candidate).free >= NEEDED_BYTES:
            return candidate
    raise DemoError(
        f"no room for {_megabytes(NEEDED_BYTES)} in {' or '.join(candidates)}: point TMPDIR at a larger disk"
    )


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _say(heading: str) -> None:
    _console.print(f"\n{heading}", style="bold")


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.0f} MB"


if __name__ == "__main__":
    sys.exit(main())
