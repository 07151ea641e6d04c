"""What the content of the servers says of its way onto the machine."""

import asyncio
import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from fleetcast_agent.sequence.content.content import Delivery
from fleetcast_agent.sequence.content.server_content import ServerContent

from tests.integration.agent_site import Script, Site, running_site
from tests.support.waiting import until
from tests.unit.agent.receiving.transmitting import make_image

IMAGE = make_image(42, 3_000_000)


@dataclass
class Reader:
    """Compares what is said to be verified with what is there."""

    file: Path
    counts: list[int] = field(default_factory=list)

    def take(self, verified_bytes: int) -> None:
        if verified_bytes:
            assert self.file.read_bytes()[:verified_bytes] == IMAGE.content[:verified_bytes]
        self.counts.append(verified_bytes)


async def fetch(site: Site, reader: Reader, delivery: Delivery = "prefer-multicast") -> None:
    content = ServerContent(site.request(), {})
    await content.fetch("office", reader.file, delivery=delivery, progress=lambda part: None, verified=reader.take)


@pytest.mark.parametrize("delivery", ["prefer-multicast", "unicast"])
async def test_what_is_said_to_be_verified_can_be_read(tmp_path: Path, delivery: Delivery) -> None:
    reader = Reader(tmp_path / "image.wim")
    reader.file.write_bytes(os.urandom(len(IMAGE.content)))  # of another attempt, and worth nothing
    async with running_site(Script(IMAGE, fetch_pause_seconds=0.07), tmp_path) as site:
        await fetch(site, reader, delivery)
    assert reader.file.read_bytes() == IMAGE.content
    assert any(0 < count < len(IMAGE.content) for count in reader.counts)


async def test_after_an_interruption_what_is_held_is_verified_before_more_comes(tmp_path: Path) -> None:
    first, second = Reader(tmp_path / "image.wim"), Reader(tmp_path / "image.wim")
    script = Script(IMAGE, unicast=True, fetch_limit=15)
    async with running_site(script, tmp_path) as site:
        fetching = asyncio.ensure_future(fetch(site, first))
        await asyncio.wait_for(site.all_fetched_is_written(), 30)
        await told(first, 1)
        fetching.cancel()
        await asyncio.gather(fetching, return_exceptions=True)
        assert first.counts[-1] < len(IMAGE.content)
        held = (script.fetched[-1] + 1) * 65536
        fetching = asyncio.ensure_future(fetch(site, second))
        await told(second, held)
        assert len(script.fetched) == 15
        script.fetch_limit = 0
        await fetching
    assert second.file.read_bytes() == IMAGE.content
    assert sorted(script.fetched) == np.flatnonzero(~IMAGE.manifest.zero).tolist(), "each chunk once"


async def told(reader: Reader, verified_bytes: int) -> None:
    await until(lambda: reader.counts and reader.counts[-1] >= verified_bytes)
