"""Catalog, scheduler and senders as processes of their own: what differs from one process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.e2e.conftest import MIB, DiskImage
from tests.e2e.test_deployment import Observer, open_session
from tests.support import postgres
from tests.support.installation import BIN, Installation, wait_until
from tests.support.lab import NetworkLab
from tests.support.parts import PartsInstallation, Spot
from tests.support.postgres import PostgresServer

pytestmark = pytest.mark.e2e


def test_three_processes_with_addresses_and_tokens_alone_serve_machines(
    apart: PartsInstallation, make_disk_image: Callable[..., DiskImage]
) -> None:
    apart.start_server()
    disk = make_disk_image(24)
    apart.fleetcast("image", "import", str(disk.file), "--name", "disk")
    session = open_session(apart, "disk", "--min-clients", "2")
    machines = apart.enrol(["one", "two"])
    for reception in [apart.receive(each, each.directory / "disk.img", session=session) for each in machines]:
        reception.wait()
        assert reception.output.read_bytes() == disk.content
    tokens = apart.fleetcast("enrolment-token", "list")["enrolment_tokens"]
    assert sorted(token["role"] for token in tokens) == ["machine", "sender", "service"]


def test_after_a_restart_the_parts_need_no_token(apart: PartsInstallation) -> None:
    apart.start_server()
    (name,) = apart.sender_names()
    apart.stop_server()
    apart.start_server()
    assert apart.sender_names() == [name]


def test_without_a_credential_a_sender_says_how_to_get_one(apart: PartsInstallation) -> None:
    refused = apart.start(
        [str(BIN / "fleetcast-sender"), "run", "--scheduler", "127.0.0.1:1", "--credentials", str(apart.directory)],
        stderr=apart.directory / "refused",
    )
    assert refused.wait(30) == 3
    assert "fleetcast enrolment-token create --role sender" in (apart.directory / "refused").read_text()


def test_the_server_keeps_everything_in_postgresql_when_its_url_is_given(
    stopped_installation: Installation, make_disk_image: Callable[..., DiskImage]
) -> None:
    if reason := postgres.why_unavailable():
        pytest.skip(reason)
    with PostgresServer() as database:
        url = database.create_database()
        stopped_installation.start_server("--database-url", url)
        disk = make_disk_image(12)
        stopped_installation.fleetcast("image", "import", str(disk.file), "--name", "disk")
        (machine,) = stopped_installation.enrol(["one"])
        stopped_installation.receive(machine, machine.directory / "disk.img", image="disk").wait()
        assert (machine.directory / "disk.img").read_bytes() == disk.content
        stopped_installation.kill_server()
        stopped_installation.start_server("--database-url", url)
        assert len(stopped_installation.fleetcast("session", "list")["sessions"]) == 1
        assert not list(stopped_installation.data_directory.glob("*.db"))
        stopped_installation.stop_server()


@pytest.fixture
def two_senders(tmp_path: Path, open_lab: Callable[..., NetworkLab]) -> Iterator[tuple[PartsInstallation, NetworkLab]]:
    """Returns a scheduler with its catalog and two senders, each on a host of the network lab."""
    lab = open_lab(sender_count=3, receiver_count=3)
    head, *others = [Spot(host.address, partial(lab.command, host)) for host in lab.senders]
    catalog = Spot(head.address, head.place, port=7444)
    with PartsInstallation(tmp_path / "installation", scheduler=head, catalog=catalog, senders=others) as installation:
        installation.start_server()
        yield installation, lab


@pytest.mark.lab
def test_machines_finish_from_the_other_sender_when_one_is_killed_and_are_sent_only_what_they_lacked(
    two_senders: tuple[PartsInstallation, NetworkLab], make_disk_image: Callable[..., DiskImage], tmp_path: Path
) -> None:
    site, lab = two_senders
    disk = make_disk_image(225)
    site.fleetcast("image", "import", str(disk.file), "--name", "disk")
    hosts = {host.name: partial(lab.command, host) for host in lab.receivers}
    machines = site.enrol(hosts, hosts)
    session = open_session(site, "disk", "--min-clients", "3", "--rate", "80M")
    observer = Observer(site, session, tmp_path / "watch.json")
    receptions = [site.receive(each, each.directory / "disk.img", session=session) for each in machines]
    observer.until(lambda: observer.written_bytes >= len(disk.content) // 2, "a machine has half of the image")
    killed = observer.session["sender"]
    used = site.sender_names().index(killed)
    other = 1 - used
    assert lab.sent_bytes(lab.senders[1 + other]) < MIB, "the other one idles"
    observer.look()
    written_bytes = min(each["totals"]["written_bytes"] for each in observer.participants.values())
    site.kill_part(f"sender-{used}")
    for reception in receptions:
        summary = reception.wait()
        assert reception.output.read_bytes() == disk.content
        assert summary["multicast_bytes"] + summary["unicast_bytes"] < disk.noise_bytes + 2 * MIB, "no chunk came twice"
    observer.until(lambda: observer.session["state"] == "completed", "the session is completed")
    lacking_bytes = len(disk.content) - written_bytes
    sent_bytes = lab.sent_bytes(lab.senders[1 + other])
    assert sent_bytes < lacking_bytes * 1.1 + 4 * MIB < disk.noise_bytes, "with headers and what repair takes"
    connected = {sender["name"]: sender["connected"] for sender in site.fleetcast("sender", "list")["senders"]}
    assert connected == {name: name != killed for name in site.sender_names()}


@pytest.mark.lab
def test_a_sender_in_the_machines_subnet_is_known_as_such(two_senders: tuple[PartsInstallation, NetworkLab]) -> None:
    site, _ = two_senders
    assert all("10.97.0.0/24" in sender["subnets"] for sender in site.fleetcast("sender", "list")["senders"])
    wait_until(lambda: len(site.fleetcast("sender", "list")["senders"]) == 2, "both are listed")
