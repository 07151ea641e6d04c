import asyncio
import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fleetcast_agent.__main__ import app
from fleetcast_agent.receiving.errors import (
    DismissedError,
    InterfaceError,
    InterruptedReceptionError,
    TargetFailedError,
    TargetRefusedError,
)
from fleetcast_agent.receiving.messages import Assignment, HardwareIdentifiers, Totals, Waiting
from fleetcast_agent.receiving.receive import ReceiveRequest, ReceiveSummary, receive_image
from fleetcast_agent.receiving.timing import Timing
from fleetcast_agent.receiving.writing.medium import Medium
from fleetcast_agent.settings import save_server_address
from fleetcast_kit.errors import InternalError, NotFoundError, UnavailableError
from fleetcast_kit.identity.peer import Role
from fleetcast_kit.process import telemetry
from fleetcast_kit.process.commandline import run_command_line
from fleetcast_wire.geometry import Geometry
from fleetcast_wire.manifest import Manifest

from tests.integration.agent_site import Script, Site, chunk_table_of, running_site
from tests.support.spans import recorded_spans
from tests.unit.agent.receiving.transmitting import StoredImage, make_image

IMAGE = make_image(42, 3_000_000)
OTHER = make_image(43, 3_000_000)


@dataclass
class Listening:
    sentences: list[str] = field(default_factory=list)
    waits: list[Waiting] = field(default_factory=list)
    totals: list[Totals] = field(default_factory=list)

    def waiting(self, waiting: Waiting) -> None:
        self.waits.append(waiting)

    def assigned(self, assignment: Assignment) -> None:
        self.sentences.append(f"assigned {assignment.image}")

    def progressed(self, totals: Totals) -> None:
        self.totals.append(totals)

    def noticed(self, sentence: str) -> None:
        self.sentences.append(sentence)


async def receive(request: ReceiveRequest, observer: Listening | None = None) -> ReceiveSummary:
    return await asyncio.wait_for(receive_image(request, observer or Listening(), asyncio.Event()), 60)


@pytest.mark.parametrize(
    ("loss", "geometry"),
    [
        (0.0, Geometry(1408, 100, 8, 64, "leopard-rs16")),
        (0.03, Geometry(1024, 60, 4, 32, "leopard-rs16")),
    ],
)
async def test_an_image_arrives_by_multicast_whatever_is_lost(tmp_path: Path, loss: float, geometry: Geometry) -> None:
    async with running_site(Script(IMAGE, loss=loss, geometry=geometry), tmp_path) as site:
        observer = Listening()
        summary = await receive(site.request(), observer)
        script = site.script
    assert (tmp_path / "disk").read_bytes() == IMAGE.content
    (outcome,) = script.outcomes
    assert outcome.succeeded
    assert outcome.totals.written_bytes == outcome.totals.size_bytes == 3_000_000
    assert summary.totals.multicast_bytes == int(IMAGE.sizes.sum())
    assert summary.totals.unicast_bytes == 0
    assert (summary.totals.lost_datagram_count > 0) == bool(loss)
    assert summary.image == f"office@{IMAGE.manifest.digest}"
    assert observer.waits[0].reason == "waits for 1 machine"


async def test_a_reception_is_told_in_the_trace_of_its_session(tmp_path: Path) -> None:
    spans = recorded_spans()
    tracer = telemetry.tracer("test")
    with tracer.start_as_current_span("session"):
        traceparent = telemetry.current_traceparent()
    async with running_site(Script(IMAGE, traceparent=traceparent), tmp_path) as site:
        with tracer.start_as_current_span("command") as command:
            await receive(site.request())
    by_name = {span.name: span for span in spans.get_finished_spans()}
    session, reception = by_name["session"].context, by_name["receive"]
    assert reception.parent is not None
    assert reception.parent.span_id == session.span_id
    assert [link.context.span_id for link in reception.links] == [command.get_span_context().span_id]
    for name in ("pass 1", "flush"):
        phase = by_name[name]
        assert phase.parent is not None
        assert (phase.parent.span_id, phase.context.trace_id) == (reception.context.span_id, session.trace_id)
    joining = by_name["join"].parent
    assert joining is not None
    assert joining.span_id == command.get_span_context().span_id


async def test_a_machine_outside_the_group_gets_the_same_bytes_by_unicast(tmp_path: Path) -> None:
    async with running_site(Script(IMAGE, unicast=True), tmp_path) as site:
        summary = await receive(site.request())
        assert sorted(site.script.fetched) == np.flatnonzero(~IMAGE.manifest.zero).tolist()
    assert (tmp_path / "disk").read_bytes() == IMAGE.content
    assert summary.totals.unicast_bytes == int(IMAGE.sizes.sum())


async def test_a_machine_says_which_hardware_joins(tmp_path: Path) -> None:
    hardware = HardwareIdentifiers("4c4c4544-1", "PC0001", ("d8:9e:f3:00:01:01",))
    async with running_site(Script(IMAGE), tmp_path) as site:
        await receive(site.request(hardware=hardware))
        said = site.script.joins[0].hardware
    assert (said.smbios_uuid, said.serial_number, tuple(said.mac_addresses)) == (
        hardware.smbios_uuid,
        hardware.serial_number,
        hardware.mac_addresses,
    )


async def test_a_machine_on_wifi_goes_unicast_by_itself_and_says_why(tmp_path: Path) -> None:
    interfaces = tmp_path / "interfaces"
    (interfaces / "lo" / "wireless").mkdir(parents=True)
    async with running_site(Script(IMAGE), tmp_path) as site:
        observer = Listening()
        summary = await receive(site.request(multicast_interface="", interfaces=interfaces), observer)
        assert "receiving by unicast: lo is a wireless interface" in observer.sentences
        assert [join.unicast_only for join in site.script.receiver_joins] == [True]
        assert site.script.joins[0].no_multicast_reason == "lo is a wireless interface"
        assert summary.totals.multicast_bytes == 0
        with pytest.raises(InterfaceError, match=r"lo is a wireless interface: name another"):
            await receive(site.request(interfaces=interfaces))
    assert (tmp_path / "disk").read_bytes() == IMAGE.content


async def test_a_broken_stream_to_the_sender_costs_nothing_held(tmp_path: Path) -> None:
    async with running_site(Script(IMAGE, break_after_windows=4), tmp_path) as site:
        await receive(site.request())
        first, second = site.script.passes
        assert len(second) < len(first)
        assert len(site.script.unreachable) == 1
    assert (tmp_path / "disk").read_bytes() == IMAGE.content


async def test_a_machine_that_hears_nothing_stays_in_the_group_and_takes_what_is_offered_by_unicast(
    tmp_path: Path,
) -> None:
    async with running_site(Script(IMAGE, silent=True), tmp_path) as site:
        summary = await receive(site.request())
        assert [join.unicast_only for join in site.script.receiver_joins] == [False]
        assert [join.no_multicast_reason for join in site.script.joins] == [""]
    assert (tmp_path / "disk").read_bytes() == IMAGE.content
    assert summary.totals.multicast_bytes == 0


async def test_a_machine_that_cannot_join_the_group_goes_on_by_unicast_and_tries_again_later(tmp_path: Path) -> None:
    observer, timing = Listening(), Timing(group_retry=0.3)
    script = Script(IMAGE, unusable_groups=["ff05::f1ee:1"], fetch_pause_seconds=0.05)
    async with running_site(script, tmp_path) as site:
        summary = await receive(site.request(timing=timing), observer)
        ways = [join.unicast_only for join in site.script.receiver_joins]
        assert sorted(ways[1:], reverse=True) == ways[1:], "by unicast first, then by multicast again"
        assert (ways[0], ways[1], ways[-1]) == (False, True, False)
        assert [bool(join.no_multicast_reason) for join in site.script.joins] == [False, True, False]
    assert (tmp_path / "disk").read_bytes() == IMAGE.content
    assert summary.totals.unicast_bytes > 0
    assert summary.totals.multicast_bytes > 0
    assert any(sentence.startswith("going on by unicast") for sentence in observer.sentences)
    assert "trying to receive by multicast again" in observer.sentences


async def test_a_table_of_another_image_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    def lie(_: StoredImage) -> Any:
        return chunk_table_of(OTHER)

    async with running_site(Script(IMAGE, table_of=lie, dismiss_when_unreachable=True), tmp_path) as site:
        with pytest.raises(DismissedError, match="enough"):
            await receive(site.request())
        assert "not that of images/office" in site.script.unreachable[0]
    assert not (tmp_path / "disk").exists()


async def test_an_image_other_than_the_pinned_one_is_refused(tmp_path: Path) -> None:
    async with running_site(Script(IMAGE), tmp_path) as site:
        with pytest.raises(InternalError, match="assigned"):
            await receive(site.request(image=f"office@{OTHER.manifest.digest}"))
    assert not (tmp_path / "disk").exists()


async def test_damaged_chunks_are_fetched_again_and_never_written(tmp_path: Path) -> None:
    async with running_site(Script(IMAGE, unicast=True, corrupt_fetches=3), tmp_path) as site:
        summary = await receive(site.request())
    assert (tmp_path / "disk").read_bytes() == IMAGE.content
    assert summary.totals.damaged_chunk_count == 3


async def test_a_chunk_that_is_always_damaged_ends_the_reception(tmp_path: Path) -> None:
    async with running_site(Script(IMAGE, unicast=True, corrupt_fetches=1_000_000), tmp_path) as site:
        with pytest.raises(TargetFailedError, match="verify the image on the server"):
            await receive(site.request())
        assert not site.script.outcomes[0].succeeded


class FullAfterTenWrites(Medium):
    count = 0

    def write_at(self, descriptor: int, contents: Sequence[memoryview], offset: int) -> int:
        self.count += 1
        if self.count > 10:
            raise OSError(28, "No space left on device")
        return super().write_at(descriptor, contents, offset)


async def test_a_target_that_fails_is_the_outcome(tmp_path: Path) -> None:
    async with running_site(Script(IMAGE), tmp_path) as site:
        with pytest.raises(TargetFailedError, match="is full: make room"):
            await receive(site.request(medium=FullAfterTenWrites()))
        assert "is full" in site.script.outcomes[0].error
        summary = await receive(site.request())
    assert summary.totals.held_bytes > 0
    assert (tmp_path / "disk").read_bytes() == IMAGE.content


async def test_a_stopped_reception_continues_with_what_it_holds(tmp_path: Path) -> None:
    async with running_site(Script(IMAGE, unicast=True, fetch_limit=15), tmp_path) as site:
        stop = asyncio.Event()
        task = asyncio.create_task(receive_image(site.request(), Listening(), stop))
        await asyncio.wait_for(site.all_fetched_is_written(), 30)
        stop.set()
        with pytest.raises(InterruptedReceptionError, match="continues"):
            await task
        assert site.script.outcomes == []
        site.script.fetch_limit = 0
        summary = await receive(site.request())
        assert sorted(site.script.fetched) == np.flatnonzero(~IMAGE.manifest.zero).tolist(), "each chunk once"
        assert site.script.joins[1].held_image == site.script.pinned
    assert summary.totals.held_bytes == 15 * 65536
    assert (tmp_path / "disk").read_bytes() == IMAGE.content


async def test_another_version_on_the_same_target_costs_only_what_differs(tmp_path: Path) -> None:
    newer = make_image(42, 3_000_000)
    changed = int(np.flatnonzero(~newer.manifest.zero)[3])
    replacement = make_image(44, 65536)
    newer.stored[changed], newer.zstd[changed] = replacement.stored[0], replacement.zstd[0]
    digests = newer.manifest.digests.copy()
    digests[changed] = replacement.manifest.digests[0]
    newer.manifest = Manifest(newer.manifest.size_bytes, newer.manifest.chunk_size_bytes, digests)
    expected = bytearray(newer.content)
    expected[changed * 65536 : (changed + 1) * 65536] = replacement.content
    async with running_site(Script(IMAGE), tmp_path) as site:
        await receive(site.request())
    async with running_site(Script(newer, unicast=True), tmp_path) as site:
        await receive(site.request())
        assert site.script.fetched == [changed]
    assert (tmp_path / "disk").read_bytes() == expected


async def test_a_cancelled_session_ends_the_agent_with_the_reason(tmp_path: Path) -> None:
    async with running_site(Script(IMAGE, assign=False), tmp_path) as site:
        asyncio.get_running_loop().call_later(0.2, site.script.dismissed.set)
        with pytest.raises(DismissedError, match="cancelled"):
            await receive(site.request())
    assert not (tmp_path / "disk").exists()


async def test_an_unknown_image_is_one_clear_sentence(tmp_path: Path) -> None:
    async with running_site(Script(IMAGE), tmp_path) as site:
        with pytest.raises(NotFoundError, match="there is no image 'school'"):
            await receive(site.request(image="school"))
    assert not (tmp_path / "disk").exists()


async def test_a_wrong_server_address_is_said_soon(tmp_path: Path) -> None:
    async with running_site(Script(IMAGE), tmp_path) as site:
        with pytest.raises(UnavailableError, match=r"localhost:1\b.*check the address"):
            await receive(site.request(server="localhost:1", timing=Timing(first_contact=0.1)))


async def test_bad_targets_and_interfaces_are_refused_before_joining(tmp_path: Path) -> None:
    async with running_site(Script(IMAGE), tmp_path) as site:
        with pytest.raises(TargetRefusedError, match="is a directory"):
            await receive(site.request(output=tmp_path))
        with pytest.raises(InterfaceError, match="there is no interface 'eth99'"):
            await receive(site.request(multicast_interface="eth99"))
        assert site.script.joins == []


def command(site: Site, *arguments: str) -> list[str]:
    state = site.directory / "state"
    site.server.credentials(Role.MACHINE, "m1").save(state)
    save_server_address(state, site.server.address)
    return [
        sys.executable,
        "-m",
        "fleetcast_agent",
        "receive",
        "--image=office",
        f"--output={site.directory / 'disk'}",
        f"--state-dir={state}",
        "--multicast-interface=127.0.0.1",
        *arguments,
    ]


async def test_a_killed_agent_loses_nothing_that_it_wrote(tmp_path: Path) -> None:
    async with running_site(Script(IMAGE, unicast=True, fetch_limit=20), tmp_path) as site:
        arguments = command(site, "--json")
        victim = await asyncio.create_subprocess_exec(*arguments, stderr=asyncio.subprocess.DEVNULL)
        await asyncio.wait_for(site.all_fetched_is_written(), 60)
        os.kill(victim.pid, signal.SIGKILL)
        await victim.wait()
        site.script.fetch_limit = 0
        heir = await asyncio.create_subprocess_exec(*arguments, stdout=asyncio.subprocess.PIPE)
        printed, _ = await heir.communicate()
        assert heir.returncode == 0
        assert sorted(site.script.fetched) == np.flatnonzero(~IMAGE.manifest.zero).tolist(), "each chunk once"
    summary = json.loads(printed)
    assert summary["verified"]
    assert summary["held_bytes"] == 20 * 65536
    assert summary["written_bytes"] == 3_000_000
    assert (tmp_path / "disk").read_bytes() == IMAGE.content


async def test_a_terminated_agent_says_how_to_continue(tmp_path: Path) -> None:
    async with running_site(Script(IMAGE, unicast=True, fetch_limit=5), tmp_path) as site:
        process = await asyncio.create_subprocess_exec(*command(site), stderr=asyncio.subprocess.PIPE)
        await asyncio.wait_for(site.all_fetched_is_written(), 60)
        process.terminate()
        _, said = await process.communicate()
    assert process.returncode == 130
    assert b"the same command continues" in said
    assert b"Traceback" not in said


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["receive", "--output", "x"], 2, "either --image or --session"),
        (["receive", "--image", "a", "--session", "b", "--output", "x"], 2, "either --image or --session"),
        (["receive", "--image", "a", "--output", "x"], 3, "run fleetcast-agent enrol first"),
        (["receive", "--image", "a", "--output", "x", "--memory", "much"], 2, "is not a size"),
        (["receive", "--image", "a", "--output", "x", "--memory", "1MiB"], 2, "at least 64MiB"),
        (["enrol", "--server", "localhost:1", "--token", "nonsense"], 2, "token"),
    ],
)
def test_bad_input_is_one_line_and_an_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, sentence: str
) -> None:
    assert run_command_line(app, "fleetcast-agent", [*arguments, f"--state-dir={tmp_path}"]) == code
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert sentence in said
