"""What happens in every network: something is away for some seconds. Multicast stays multicast all the same."""

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.e2e.conftest import DiskImage
from tests.support.installation import Installation, Reception, wait_until
from tests.support.lab import Host, NetworkLab

pytestmark = [pytest.mark.e2e, pytest.mark.lab]

Process = subprocess.Popen[bytes]

RATE = 40_000_000
AWAY_SECONDS = 6.0
"""Longer than a sender waits for a silent machine."""
DROP_MULTICAST = "table inet glitch { chain c { type filter hook input priority 0; udp dport 64000-64255 drop; }; }"


@contextmanager
def switch_away(lab: NetworkLab, receptions: list[Reception], server: Process) -> Iterator[None]:
    with ExitStack() as cables:
        for host in lab.receivers:
            cables.enter_context(unplugged(lab, host))
        yield


@contextmanager
def multicast_dropped(lab: NetworkLab, receptions: list[Reception], server: Process) -> Iterator[None]:
    for host in lab.receivers:
        lab.run(host, ["nft", DROP_MULTICAST])
    yield
    for host in lab.receivers:
        lab.run(host, ["nft", "delete table inet glitch"])


@contextmanager
def server_stopped(lab: NetworkLab, receptions: list[Reception], server: Process) -> Iterator[None]:
    server.send_signal(signal.SIGSTOP)
    yield
    server.send_signal(signal.SIGCONT)


@contextmanager
def machine_stopped(lab: NetworkLab, receptions: list[Reception], server: Process) -> Iterator[None]:
    receptions[0].process.send_signal(signal.SIGSTOP)
    yield
    receptions[0].process.send_signal(signal.SIGCONT)


@contextmanager
def machine_unplugged(lab: NetworkLab, receptions: list[Reception], server: Process) -> Iterator[None]:
    with unplugged(lab, lab.receivers[0]):
        yield


@contextmanager
def server_unplugged(lab: NetworkLab, receptions: list[Reception], server: Process) -> Iterator[None]:
    with unplugged(lab, lab.sender):
        yield


@contextmanager
def unplugged(lab: NetworkLab, host: Host) -> Iterator[None]:
    lab.unplug(host)
    yield
    lab.plug(host)


GLITCHES = [switch_away, multicast_dropped, server_stopped, machine_stopped, machine_unplugged, server_unplugged]


@pytest.mark.parametrize("glitch", GLITCHES, ids=lambda it: str(it.__name__).replace("_", " "))
def test_what_is_away_for_some_seconds_does_not_turn_multicast_into_unicast(
    tmp_path: Path,
    open_lab: Callable[..., NetworkLab],
    make_disk_image: Callable[..., DiskImage],
    glitch: Callable[[NetworkLab, list[Reception], Process], AbstractContextManager[None]],
) -> None:
    lab = open_lab(receiver_count=4, rate_bits_per_second=1_000_000_000)
    disk = make_disk_image(60)
    with Installation(
        tmp_path / "installation", listen=f"{lab.sender.address}:7443", place=partial(lab.command, lab.sender)
    ) as site:
        server = site.start_server()
        site.fleetcast("image", "import", str(disk.file), "--name", "disk")
        places = {host.name: partial(lab.command, host) for host in lab.receivers}
        machines = site.enrol([host.name for host in lab.receivers], places)
        session = site.fleetcast("session", "create", "--image", "disk", "--min-clients", "4", "--rate", str(RATE))
        before = lab.sent_bytes(lab.sender)
        receptions = [site.receive(each, each.directory / "disk.img", session=session["name"]) for each in machines]
        wait_until(lambda: lab.sent_bytes(lab.sender) - before > disk.noise_bytes // 4, "a quarter is sent")
        with glitch(lab, receptions, server):
            time.sleep(AWAY_SECONDS)
        summaries = [reception.wait() for reception in receptions]
        assert all(reception.output.read_bytes() == disk.content for reception in receptions)
        # One copy, what was sent in the seconds until it was clear that nobody hears, and what one machine missed.
        seconds_bytes = 3 * RATE // 8
        one_missed = max(0, *(summary["unicast_bytes"] for summary in summaries))
        assert lab.sent_bytes(lab.sender) - before < 1.15 * disk.noise_bytes + seconds_bytes + one_missed
        unicast = sorted(summary["unicast_bytes"] for summary in summaries)
        assert sum(unicast[:-1]) < seconds_bytes, "no more than one machine, or the last few chunks, by unicast"


def test_a_server_that_restarts_in_mid_session_sends_little_twice(
    tmp_path: Path, open_lab: Callable[..., NetworkLab], make_disk_image: Callable[..., DiskImage]
) -> None:
    lab = open_lab(receiver_count=4, rate_bits_per_second=1_000_000_000)
    disk = make_disk_image(60)
    with Installation(
        tmp_path / "installation", listen=f"{lab.sender.address}:7443", place=partial(lab.command, lab.sender)
    ) as site:
        site.start_server()
        site.fleetcast("image", "import", str(disk.file), "--name", "disk")
        places = {host.name: partial(lab.command, host) for host in lab.receivers}
        machines = site.enrol([host.name for host in lab.receivers], places)
        session = site.fleetcast("session", "create", "--image", "disk", "--min-clients", "4", "--rate", str(RATE))
        before = lab.sent_bytes(lab.sender)
        receptions = [site.receive(each, each.directory / "disk.img", session=session["name"]) for each in machines]
        wait_until(lambda: lab.sent_bytes(lab.sender) - before > disk.noise_bytes // 2, "half is sent")
        site.kill_server()
        site.start_server()
        summaries = [reception.wait() for reception in receptions]
        assert all(reception.output.read_bytes() == disk.content for reception in receptions)
        # What was on its way when the server died, and what the first machine gets alone until the second is back.
        seconds_bytes = 3 * RATE // 8
        assert lab.sent_bytes(lab.sender) - before < 1.15 * disk.noise_bytes + seconds_bytes
        assert sum(summary["unicast_bytes"] for summary in summaries) < seconds_bytes
