import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.e2e.conftest import DiskImage
from tests.support.installation import Installation
from tests.support.lab import NetworkLab

pytestmark = [pytest.mark.e2e, pytest.mark.lab]


def test_a_host_that_injects_forged_datagrams_costs_neither_a_chunk_nor_the_session(
    tmp_path: Path, open_lab: Callable[..., NetworkLab], make_disk_image: Callable[..., DiskImage]
) -> None:
    lab = open_lab(receiver_count=3, hostile_host=True, rate_bits_per_second=1_000_000_000)
    place = partial(lab.command, lab.sender)
    listen = f"{lab.sender.address}:7443"
    disk = make_disk_image(96)
    with Installation(tmp_path / "installation", listen=listen, place=place) as site:
        site.start_server()
        site.fleetcast("image", "import", str(disk.file), "--name", "disk")
        machines = site.enrol(
            [host.name for host in lab.receivers], {host.name: partial(lab.command, host) for host in lab.receivers}
        )
        # Slow enough that the host learns the group and injects for seconds.
        created = site.fleetcast("session", "create", "--image", "disk", "--min-clients", "3", "--rate", "100M")
        assert lab.hostile is not None
        hostile_log = tmp_path / "hostile.log"
        hostile = lab.popen(lab.hostile, [sys.executable, "-m", "tests.support.hostile"], log=hostile_log)
        receptions = [site.receive(each, each.directory / "disk.img", session=created["name"]) for each in machines]
        summaries = [reception.wait() for reception in receptions]
        assert hostile.poll() is None, hostile_log.read_text()
        injected = json.loads(hostile_log.read_text().splitlines()[-1])
        assert sorted(injected) == ["another key", "bit flipped", "random", "replayed"]
        assert min(injected.values()) > 2000, injected
        assert [reception.output.read_bytes() == disk.content for reception in receptions] == [True] * 3
        for summary in summaries:
            assert summary["rejected_datagram_count"] > 5000
            assert summary["damaged_chunk_count"] == 0
            assert summary["multicast_bytes"] > disk.noise_bytes // 2
        assert site.fleetcast("session", "show", created["name"])["state"] == "completed"
