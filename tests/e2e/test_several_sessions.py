from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from tests.e2e.conftest import DiskImage
from tests.support.installation import Installation, wait_until

pytestmark = pytest.mark.e2e

LINK_BITS_PER_SECOND = 100_000_000


def test_two_sessions_at_once_share_the_link_and_do_not_exceed_it(
    stopped_installation: Installation, make_disk_image: Callable[..., DiskImage]
) -> None:
    installation = stopped_installation
    (installation.directory / "fleetcast.toml").write_text('[sender]\nlink_rate = "100M"\n')
    installation.start_server()
    disk = make_disk_image(48)
    installation.fleetcast("image", "import", str(disk.file), "--name", "disk")
    machines = installation.enrol(["one", "two", "three", "four"])
    sessions = [
        installation.fleetcast("session", "create", "--image", "disk", "--min-clients", "2")["name"] for _ in range(2)
    ]
    receptions = [
        installation.receive(machine, machine.directory / "disk.img", session=sessions[number % 2])
        for number, machine in enumerate(machines)
    ]
    for reception in receptions:
        reception.wait()
        assert reception.output.read_bytes() == disk.content

    def ended() -> list[dict[str, Any]]:
        shown = [installation.fleetcast("session", "show", session) for session in sessions]
        return shown if all(each.get("end_time") for each in shown) else []

    wait_until(lambda: bool(ended()), "both sessions ended")
    times = [[datetime.fromisoformat(each[name]) for name in ("start_time", "end_time")] for each in ended()]
    alone_seconds = disk.noise_bytes * 8 / LINK_BITS_PER_SECOND
    assert (max(end for _, end in times) - min(start for start, _ in times)).total_seconds() >= 2 * alone_seconds
    # One that had the link to itself would end after less, headers included; each has half while both run.
    assert min((end - start).total_seconds() for start, end in times) >= 1.3 * alone_seconds
