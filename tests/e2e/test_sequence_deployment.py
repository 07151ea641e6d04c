"""Bare metal from the servers: a Windows-like image by multicast onto four machines at once."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import pytest
from fleetcast_agent.receiving import ReceiveRequest
from fleetcast_agent.sequence import volumes
from fleetcast_agent.sequence.content import ImageDescription
from fleetcast_agent.sequence.control import Control
from fleetcast_agent.sequence.disks import Disks
from fleetcast_agent.sequence.errors import StepError
from fleetcast_agent.sequence.execution import Assignment, execute
from fleetcast_agent.sequence.server_content import ServerContent
from fleetcast_kit.credentials import Credentials
from fleetcast_sequence import Scope, parse
from fleetcast_sequence.ready import ready_sequences

from tests.e2e.test_sequence_steps import make_tree, make_wim
from tests.support.installation import Installation, Machine
from tests.support.sequences import Rehearsal, needs_disks, tool

pytestmark = needs_disks

GIB = 1 << 30
SEQUENCE = (
    ready_sequences()["bare-metal-windows"]
    .replace("min_memory: 2GiB, min_disk: 32GiB", "min_memory: 64MiB, min_disk: 8GiB")
    .replace('when: machine.firmware == "uefi"', "when: true")
    .replace('when: machine.firmware == "bios"', "when: false")
    .replace("image: windows-11, index: 1", "image: windows-11, index: 2")
    .replace("when: size(machine.adapters) > 0", "when: false")
)


def content_of(installation: Installation, machine: Machine, images: dict[str, ImageDescription]) -> ServerContent:
    request = ReceiveRequest(
        server=installation.address,
        credentials=Credentials.load(machine.state_directory),
        output=Path(),
        state_dir=machine.state_directory,
        memory_bytes=128 << 20,
    )
    return ServerContent(request, images)


async def test_a_windows_like_image_reaches_four_machines_at_once(tmp_path: Path, installation: Installation) -> None:
    tree = make_tree(tmp_path / "tree")
    wim = tmp_path / "windows.wim"
    make_wim(tree, wim)
    await asyncio.to_thread(installation.fleetcast, "image", "import", str(wim), "--name", "windows-11")
    await asyncio.to_thread(installation.fleetcast, "session", "create", "--image", "windows-11", "--min-clients", "4")
    machines = await asyncio.to_thread(installation.enrol, ["pc1", "pc2", "pc3", "pc4"])
    images = {"windows-11": ImageDescription(wim.stat().st_size, is_wim=True)}

    async def install(machine: Machine) -> Rehearsal:
        rehearsal = Rehearsal(machine.directory, 8 * GIB)
        values = {"computer_name": machine.name.upper(), "administrator_password": "x" * 12}
        outcome = await execute(
            Assignment(parse(SEQUENCE), {Scope.MACHINE: values}, machine=machine.name),
            rehearsal.state,
            content=content_of(installation, machine, images),
            disks=Disks(rehearsal.disk),
            control=Control(),
        )
        assert outcome.restart == "installed", outcome
        return rehearsal

    async with asyncio.timeout(300):
        installed = await asyncio.gather(*map(install, machines))
    for machine, rehearsal in zip(machines, installed, strict=True):
        context = rehearsal.context()
        volume = await volumes.find(context, "windows")
        async with volumes.attached(context, volume) as device:
            await asyncio.to_thread(tool, "ntfsfix", "--no-action", device)
        async with volumes.mounted(context, volume, read_only=True) as root:
            answers = (root / "Windows/Panther/unattend.xml").read_text()
            assert f"<ComputerName>{machine.name.upper()}</ComputerName>" in answers
            compared = ["diff", "-rq", "--no-dereference", str(tree), str(root)]
            found = await asyncio.to_thread(subprocess.run, compared, capture_output=True, text=True, check=False)
            assert found.stdout == f"Only in {root}/Windows: Panther\n"
        assert "No problems found" in await asyncio.to_thread(tool, "sgdisk", "--verify", rehearsal.disk)


async def test_an_image_that_the_deployment_did_not_pin_is_refused(tmp_path: Path) -> None:
    content = ServerContent(ReceiveRequest("localhost:1", Credentials(b"", b"", b""), tmp_path), {})
    with pytest.raises(StepError, match="is not one that this deployment pinned"):
        await content.describe("other")


async def test_a_capture_becomes_a_version_in_the_catalog(tmp_path: Path, installation: Installation) -> None:
    source = tmp_path / "capture.raw"
    source.write_bytes(b"captured" * 1000)
    request = ReceiveRequest(
        installation.address, Credentials.load(installation.data_directory / "administrator"), tmp_path
    )
    name = await ServerContent(request, {}).publish(source, "captured", progress=lambda part: None)
    shown = await asyncio.to_thread(installation.fleetcast, "image", "show", "captured")
    assert shown["name"] == name


async def test_a_single_machine_may_take_its_image_by_unicast(tmp_path: Path, installation: Installation) -> None:
    source = tmp_path / "data.raw"
    source.write_bytes(b"data" * 100_000)
    await asyncio.to_thread(installation.fleetcast, "image", "import", str(source), "--name", "data")
    await asyncio.to_thread(installation.fleetcast, "session", "create", "--image", "data")
    (machine,) = await asyncio.to_thread(installation.enrol, ["pc1"])
    content = content_of(installation, machine, {})
    target = tmp_path / "target"
    parts: list[float] = []
    await content.fetch("data", target, delivery="unicast", progress=parts.append)
    assert target.read_bytes() == source.read_bytes()
