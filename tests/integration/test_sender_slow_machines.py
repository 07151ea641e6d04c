"""Machines that cannot keep up, or are served apart because somebody wants it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from fleetcast.scheduler.v1 import session_pb2
from fleetcast_agent.receiving.errors import SenderLostError
from fleetcast_agent.receiving.writing.target import Target
from fleetcast_wire.memory import Buffer

from tests.integration.sender_site import Site, running_site

IMAGE_BYTES = 60_000_000
BITS_PER_SECOND = 40_000_000
"""Six seconds for the half of the image that has to be sent."""
SLOW_SECONDS = 1.0
"""How long a machine must be slow to count as such, after the second in which its backlog shows."""


class SlowDisk(Target):
    """A file that takes a tenth of what is sent, until it is `repaired`."""

    repaired: threading.Event
    _turn: threading.Lock

    def write(self, offset: int, *contents: Buffer) -> None:
        with self._turn:
            self.repaired.wait(sum(map(len, contents)) * 8 / (BITS_PER_SECOND / 10))
        super().write(offset, *contents)


@pytest.fixture
def slow_disk() -> type[SlowDisk]:
    """Returns the class of a disk of this test alone."""
    return type("TestsSlowDisk", (SlowDisk,), {"repaired": threading.Event(), "_turn": threading.Lock()})


@asynccontextmanager
async def site_with_slow_machine(
    directory: Path, action: session_pb2.SlowPolicy.Action.ValueType, disk: type[SlowDisk], **settings: str
) -> AsyncIterator[Site]:
    """Gives a site that sends to a, b, c, and d, whose disk is repaired once it is in the group no more."""
    async with running_site(
        directory, size_bytes=IMAGE_BYTES, local=True, slow_seconds=SLOW_SECONDS, **settings
    ) as site:
        policy = session_pb2.SlowPolicy(action=action)
        error = await site.start("a", "b", "c", "d", fixed_bits_per_second=BITS_PER_SECOND, slow_policy=policy)
        assert error == ""

        async def repair() -> None:
            counts: list[int] = []

            def fewer() -> bool:
                counts.append(site.scheduler.last_report.transmission.receiver_count)
                return counts[-1] < max(counts)

            await site.scheduler.until(fewer)
            disk.repaired.set()

        repairing = asyncio.create_task(repair())
        yield site
        await repairing


async def test_a_machine_is_moved_to_unicast_by_command_and_stays(tmp_path: Path) -> None:
    async with running_site(tmp_path, size_bytes=20_000_000) as site:
        await site.start("a", "b", fixed_bits_per_second=20_000_000)
        moved, other = asyncio.create_task(site.receive("a")), asyncio.create_task(site.receive("b"))
        await site.until_received("a")
        assert await site.move_to_unicast("a") == ""
        with pytest.raises(SenderLostError, match="served by unicast"):
            await moved
        assert await site.move_to_unicast("a") == "", "a repetition disturbs nobody"
        assert await site.receive("a") == site.image.content
        reasons = {group.reason: list(group.machines) for report in site.scheduler.reports for group in report.unicast}
        assert reasons[session_pb2.UNICAST_REASON_OPERATOR] == ["machines/a"]
        assert site.totals_of["a"].held_bytes > 0, "what came in the group counts"
        assert site.totals_of["a"].multicast_bytes == 0
        assert await other == site.image.content
        assert site.totals_of["b"].unicast_bytes == 0


async def test_a_machine_moved_before_it_comes_gets_nothing_by_multicast(tmp_path: Path) -> None:
    async with running_site(tmp_path) as site:
        await site.start("a", "b")
        assert await site.move_to_unicast("a") == ""
        contents = await asyncio.gather(site.receive("a"), site.receive("b"))
        assert set(contents) == {site.image.content}
        assert site.totals_of["a"].multicast_bytes == 0


async def test_moving_machines_of_something_unknown_is_an_error_in_one_sentence(tmp_path: Path) -> None:
    async with running_site(tmp_path) as site:
        assert "no transmission" in await site.move_to_unicast("a")


async def test_a_slow_machine_gets_the_rest_by_unicast_if_the_session_wants_it(
    tmp_path: Path, slow_disk: type[SlowDisk]
) -> None:
    action = session_pb2.SlowPolicy.ACTION_UNICAST
    async with site_with_slow_machine(tmp_path, action, slow_disk, slow_policy="disconnect") as site:
        others = asyncio.gather(*(site.receive(each) for each in "abc"))
        slow = asyncio.create_task(site.receive("d", memory_mib=110, disk=slow_disk))
        assert set(await others) == {site.image.content}
        assert await slow == site.image.content
        assert site.totals_of["d"].unicast_bytes > 0


async def test_a_slow_machine_is_taken_out_if_the_session_wants_it(tmp_path: Path, slow_disk: type[SlowDisk]) -> None:
    async with site_with_slow_machine(tmp_path, session_pb2.SlowPolicy.ACTION_DISCONNECT, slow_disk) as site:
        others = asyncio.gather(*(site.receive(each) for each in "abc"))
        with pytest.raises(SenderLostError, match="too slow"):
            await site.receive("d", memory_mib=110, disk=slow_disk)
        assert set(await others) == {site.image.content}


async def test_a_slow_machine_goes_on_in_a_slower_group_if_the_session_wants_it(
    tmp_path: Path, slow_disk: type[SlowDisk]
) -> None:
    async with site_with_slow_machine(tmp_path, session_pb2.SlowPolicy.ACTION_SEPARATE, slow_disk) as site:
        others = asyncio.gather(*(site.receive(each) for each in "abc"))
        with pytest.raises(SenderLostError, match="slower group"):
            await site.receive("d", memory_mib=110, disk=slow_disk)
        assert await site.receive("d") == site.image.content
        assert site.totals_of["d"].multicast_bytes > 0
        assert set(await others) == {site.image.content}


async def test_a_sender_says_in_which_subnets_it_is(tmp_path: Path) -> None:
    async with running_site(tmp_path) as site:
        assert "127.0.0.0/8" in site.scheduler.registrations[0].subnets
