"""Machines that come one after the other get an image by multicast, for hardly more than a carousel would send."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path

import pytest

from tests.e2e.conftest import DiskImage
from tests.support.installation import Installation
from tests.support.lab import NetworkLab

pytestmark = [pytest.mark.e2e, pytest.mark.lab]

RATE_BITS_PER_SECOND = 60_000_000
SLICES_OF_A_COPY = 0.25
"""What four first offers, and chunks that were met in the middle, come to at most."""


@pytest.mark.parametrize("gap_seconds", [0, 1, 3, 10])
def test_machines_seconds_apart_share_what_they_lack(
    gap_seconds: float, tmp_path: Path, open_lab: Callable[..., NetworkLab], make_disk_image: Callable[..., DiskImage]
) -> None:
    lab = open_lab(receiver_count=4, rate_bits_per_second=1_000_000_000)
    disk = make_disk_image(240)
    copy_seconds = disk.noise_bytes * 8 / RATE_BITS_PER_SECOND
    place = partial(lab.command, lab.sender)
    with Installation(tmp_path / "installation", listen=f"{lab.sender.address}:7443", place=place) as site:
        site.start_server()
        site.fleetcast("image", "import", str(disk.file), "--name", "disk")
        machines = site.enrol(
            [host.name for host in lab.receivers], {host.name: partial(lab.command, host) for host in lab.receivers}
        )
        session = site.fleetcast("session", "create", "--image", "disk", "--rate", str(RATE_BITS_PER_SECOND))["name"]
        receptions = []
        for machine in machines:
            receptions.append(site.receive(machine, machine.directory / "disk.img", session=session))
            time.sleep(gap_seconds)  # what is tried is the time between them
        for reception in receptions:
            reception.wait()
            assert reception.output.read_bytes() == disk.content
        shown = site.fleetcast("session", "show", session)
    sent = shown["transmission"]
    joined = sorted(datetime.fromisoformat(it["join_time"]).timestamp() for it in shown["participants"])
    between = [later - earlier for earlier, later in itertools.pairwise(joined)]
    # A carousel sends from the first arrival until one copy after the last.
    copies = 1 + (joined[-1] - joined[0]) / copy_seconds
    sent_bytes = sum(sent[f"sent_{way}_bytes"] for way in ("source", "repair", "unicast"))
    assert sent_bytes / disk.noise_bytes < 1.15 * copies + SLICES_OF_A_COPY
    # Only the first machine is alone, until the second comes, and the last one with what it missed of the others' pass.
    alone = (between[0] + between[-1]) / copy_seconds
    assert sent["sent_unicast_bytes"] / disk.noise_bytes < 1.15 * alone + SLICES_OF_A_COPY
