import json
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import MIB, DiskImage
from tests.support.installation import BIN, Installation, Machine, Reception, wait_until
from tests.support.lab import Host, NetworkLab
from tests.support.loss import Loss
from tests.support.parts import PartsInstallation, Spot

pytestmark = pytest.mark.e2e


class Observer:
    """What a session's watch says, read from its lines of JSON: quicker than asking again and again."""

    def __init__(self, installation: Installation, session: str, file: Path) -> None:
        self._file = file
        self._process = installation.watch(session, "--json", stdout=file)
        self.session: dict[str, Any] = {}
        self.participants: dict[str, dict[str, Any]] = {}
        self._read_bytes = 0

    def look(self) -> None:
        """Takes in what was said since."""
        with self._file.open("rb") as file:
            file.seek(self._read_bytes)
            news = file.read()
        whole = news[: news.rfind(b"\n") + 1]
        self._read_bytes += len(whole)
        for line in whole.splitlines():
            change = json.loads(line)
            self.session = change["session"]
            self.participants |= {each["machine"]: each for each in change["participants"]}

    def until(self, condition: Callable[[], bool], what: str) -> None:
        def holds() -> bool:
            assert self._process.poll() is None or self.session, "the watch failed"
            self.look()
            return condition()

        wait_until(holds, what)

    @property
    def written_bytes(self) -> int:
        """What the machine with the most has written."""
        return max(
            (each["totals"]["written_bytes"] for each in self.participants.values() if each["totals"]), default=0
        )

    @property
    def sent_bytes(self) -> int:
        """Payload that the sender sent, in whatever way."""
        sent = self.session["transmission"]
        return int(sent["sent_source_bytes"] + sent["sent_repair_bytes"] + sent["sent_unicast_bytes"])

    def settled_sent_bytes(self) -> int:
        """Returns what was sent once nothing was added to it for 2 s: the sender reports once a second."""
        changed_at, sent_bytes = time.monotonic(), self.sent_bytes

        def stands_still() -> bool:
            nonlocal changed_at, sent_bytes
            if self.sent_bytes != sent_bytes:
                changed_at, sent_bytes = time.monotonic(), self.sent_bytes
            return time.monotonic() - changed_at > 2

        self.until(stands_still, "the sender has stopped")
        return sent_bytes


def open_session(installation: Installation, image: str, *flags: str) -> str:
    session: str = installation.fleetcast("session", "create", "--image", image, *flags)["name"]
    return session


def transmission(installation: Installation, session: str) -> dict[str, Any]:
    found: dict[str, Any] = installation.fleetcast("session", "show", session)["transmission"] or {}
    return found


def test_two_machines_on_the_loopback_get_the_image_of_an_automatic_session(
    installation: Installation, make_disk_image: Callable[..., DiskImage]
) -> None:
    disk = make_disk_image(24)
    installation.fleetcast("image", "import", str(disk.file), "--name", "disk")
    machines = installation.enrol(["one", "two"])
    receptions = [installation.receive(machine, machine.directory / "disk.img", image="disk") for machine in machines]
    for reception in receptions:
        summary = reception.wait()
        assert reception.output.read_bytes() == disk.content
        assert summary["multicast_bytes"] + summary["unicast_bytes"] >= disk.noise_bytes
    sessions = installation.fleetcast("session", "list")["sessions"]
    assert [session["mode"] for session in sessions] == ["auto"]
    refused = installation.run("image", "delete", "disk")
    assert refused.returncode == 6
    assert "sessions/" in refused.stderr
    installation.fleetcast("session", "cancel", sessions[0]["name"])
    wait_until(lambda: installation.run("image", "delete", "disk").returncode == 0, "the image is free")


def test_a_scheduled_session_waits_for_its_machines_and_a_watch_says_who_is_missing(
    installation: Installation, make_disk_image: Callable[..., DiskImage], tmp_path: Path
) -> None:
    disk = make_disk_image(12)
    installation.fleetcast("image", "import", str(disk.file), "--name", "disk")
    session = open_session(installation, "disk", "--min-clients", "2")
    watched = tmp_path / "watch"
    watch = installation.watch(session, stdout=watched)
    first, second = installation.enrol(["one", "two"])
    early = installation.receive(first, first.directory / "disk.img", session=session)
    wait_until(lambda: "1 of 2 missing" in watched.read_text(), "the watch says who is missing")
    assert early.process.poll() is None
    late = installation.receive(second, second.directory / "disk.img", session=session)
    for reception in (early, late):
        reception.wait()
        assert reception.output.read_bytes() == disk.content
    assert watch.wait(20) == 0
    text = watched.read_text()
    assert "completed; 2 machines, 2 succeeded" in text
    assert text.count("succeeded, 100 %") == 2


def test_a_session_can_be_started_by_hand_and_cancelled(
    installation: Installation, make_disk_image: Callable[..., DiskImage], tmp_path: Path
) -> None:
    disk = make_disk_image(12)
    installation.fleetcast("image", "import", str(disk.file), "--name", "disk")
    (machine,) = installation.enrol(["one"])
    session = open_session(installation, "disk", "--min-clients", "5")
    reception = installation.receive(machine, machine.directory / "disk.img", session=session)
    wait_until(lambda: bool(installation.fleetcast("session", "show", session)["participants"]), "it joined")
    installation.fleetcast("session", "start", session)
    reception.wait()
    assert reception.output.read_bytes() == disk.content
    cancelled = open_session(installation, "disk", "--min-clients", "5")
    reception = installation.receive(machine, machine.directory / "other.img", session=cancelled)
    wait_until(lambda: bool(installation.fleetcast("session", "show", cancelled)["participants"]), "it joined")
    assert installation.fleetcast("session", "cancel", cancelled)["state"] == "cancelled"
    assert reception.process.wait(20) != 0
    assert "cancelled" in reception.stderr.read_text()
    assert installation.fleetcast("session", "cancel", cancelled)["state"] == "cancelled"


def test_a_wim_and_a_qcow2_reach_the_disk_as_what_they_describe(
    installation: Installation, make_disk_image: Callable[..., DiskImage], tmp_path: Path
) -> None:
    disk = make_disk_image(6)
    qcow2, wim, tree = tmp_path / "disk.qcow2", tmp_path / "some.wim", tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_bytes(disk.content)
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", disk.file, qcow2], check=True)
    subprocess.run(["wimlib-imagex", "capture", tree, wim, "--quiet"], check=True, capture_output=True)
    installation.fleetcast("image", "import", str(qcow2), "--name", "virtual")
    installation.fleetcast("image", "import", str(wim), "--name", "wim")
    (machine,) = installation.enrol(["one"])
    installation.receive(machine, machine.directory / "disk.img", image="virtual").wait()
    written = (machine.directory / "disk.img").read_bytes()
    assert written[: len(disk.content)] == disk.content
    assert not any(written[len(disk.content) :]), "qemu-img rounds up to whole sectors"
    installation.receive(machine, machine.directory / "some.wim", image="wim").wait()
    assert (machine.directory / "some.wim").read_bytes() == wim.read_bytes()


def test_a_server_that_is_restarted_in_the_middle_is_awaited_by_machines_and_watches(
    installation: Installation, make_disk_image: Callable[..., DiskImage], tmp_path: Path
) -> None:
    disk = make_disk_image(24)
    installation.fleetcast("image", "import", str(disk.file), "--name", "disk")
    machines = installation.enrol(["one", "two"])
    session = open_session(installation, "disk", "--min-clients", "2", "--rate", "20M")
    observer = Observer(installation, session, tmp_path / "watch.json")
    receptions = start_all(installation, machines, session)
    observer.until(lambda: observer.written_bytes >= len(disk.content) // 2, "a machine has half of the image")
    installation.stop_server()
    installation.start_server()
    for reception in receptions:
        reception.wait()
        assert reception.output.read_bytes() == disk.content
    observer.until(lambda: observer.session["state"] == "completed", "the session is completed")


class LabInstallation:
    """An installation whose server and machines are hosts of the network lab."""

    def __init__(self, installation: Installation, lab: NetworkLab) -> None:
        self.installation = installation
        self.lab = lab

    def place(self, host: Host) -> Callable[[Any], list[str]]:
        return partial(self.lab.command, host)

    def enrol(self, count: int) -> list[Machine]:
        hosts = self.lab.receivers[:count]
        return self.installation.enrol([host.name for host in hosts], {host.name: self.place(host) for host in hosts})


@pytest.fixture(params=["together", "apart"])
def in_lab(
    request: pytest.FixtureRequest, tmp_path: Path, open_lab: Callable[..., NetworkLab]
) -> Iterator[LabInstallation]:
    """Returns a server and four hosts for machines on a switch at 1 Gbit/s with 1 % loss to each.

    The server is one process, or its parts are three on three hosts.
    """
    is_apart = request.param == "apart"
    lab = open_lab(sender_count=3 if is_apart else 1, receiver_count=4, rate_bits_per_second=1_000_000_000)
    for host in lab.receivers:
        lab.set_loss(host, Loss(fraction=0.01))
    directory, spots = (
        tmp_path / "installation",
        [Spot(host.address, partial(lab.command, host)) for host in lab.senders],
    )
    with (
        PartsInstallation(directory, scheduler=spots[0], catalog=spots[1], senders=spots[2:])
        if is_apart
        else Installation(directory, listen=spots[0].listen, place=spots[0].place)
    ) as installation:
        installation.start_server()
        yield LabInstallation(installation, lab)


def start_all(installation: Installation, machines: list[Machine], session: str) -> list[Reception]:
    return [installation.receive(each, each.directory / "disk.img", session=session) for each in machines]


@pytest.mark.lab
def test_three_machines_behind_a_lossy_switch_get_identical_disks(
    in_lab: LabInstallation, make_disk_image: Callable[..., DiskImage]
) -> None:
    disk = make_disk_image(96)
    site = in_lab.installation
    site.fleetcast("image", "import", str(disk.file), "--name", "disk")
    # A fixed rate: what the automatic one makes of a machine that also runs everything else is measured elsewhere.
    session = open_session(site, "disk", "--min-clients", "3", "--rate", "300M")
    receptions = start_all(site, in_lab.enrol(3), session)
    for reception in receptions:
        summary = reception.wait()
        assert reception.output.read_bytes() == disk.content
        assert summary["multicast_bytes"] > disk.noise_bytes // 2
        assert summary["lost_datagram_count"] > 0
    sent = transmission(site, session)
    assert sent["sent_source_bytes"] < 1.5 * disk.noise_bytes, "one copy and repair, not three copies"


@pytest.mark.lab
def test_nobody_suffers_when_a_machine_dies_the_server_dies_and_a_fourth_comes_late(
    in_lab: LabInstallation, make_disk_image: Callable[..., DiskImage], tmp_path: Path
) -> None:
    disk = make_disk_image(225)  # several windows, so that there is a half
    site = in_lab.installation
    site.fleetcast("image", "import", str(disk.file), "--name", "disk")
    machines = in_lab.enrol(4)
    session = open_session(site, "disk", "--min-clients", "3", "--rate", "120M")
    observer = Observer(site, session, tmp_path / "watch.json")
    receptions = start_all(site, machines[:3], session)
    observer.until(lambda: observer.written_bytes >= len(disk.content) // 3, "a machine has a good part of the image")
    receptions[0].process.kill()
    receptions[0].process.wait()
    receptions.append(site.receive(machines[3], machines[3].directory / "disk.img", session=session))
    observer.until(lambda: len(observer.participants) == 4, "the fourth has joined")
    site.kill_server()
    site.start_server()
    in_lab.lab.change_address(in_lab.lab.receivers[0], "10.97.0.99")  # as a machine may have when it comes back
    receptions[0] = site.receive(machines[0], machines[0].directory / "disk.img", session=session)
    for reception in receptions:
        reception.wait()
        assert reception.output.read_bytes() == disk.content
    observer.until(lambda: observer.session["state"] == "completed", "the session is completed")
    assert observer.session["succeeded_count"] == 4


@pytest.mark.lab
def test_a_lone_machine_killed_at_half_is_sent_nothing_that_it_holds(
    in_lab: LabInstallation, make_disk_image: Callable[..., DiskImage], tmp_path: Path
) -> None:
    disk = make_disk_image(60)
    site = in_lab.installation
    in_lab.lab.set_loss(in_lab.lab.receivers[0], None)
    site.fleetcast("image", "import", str(disk.file), "--name", "disk")
    (machine,) = in_lab.enrol(1)
    session = open_session(site, "disk", "--min-clients", "1", "--rate", "40M")
    observer = Observer(site, session, tmp_path / "watch.json")
    (killed,) = start_all(site, [machine], session)
    observer.until(lambda: observer.written_bytes >= len(disk.content) // 2, "the machine has half of the image")
    killed.process.kill()
    killed.process.wait()
    observer.until(lambda: {each["state"] for each in observer.participants.values()} == {"lost"}, "it is missed")
    sent_before = observer.settled_sent_bytes()
    summary = site.receive(machine, machine.directory / "disk.img", session=session).wait()
    assert (machine.directory / "disk.img").read_bytes() == disk.content
    observer.until(lambda: observer.session["state"] == "completed", "the session is completed")
    held = summary["held_bytes"]
    assert len(disk.content) * 4 // 10 <= held < len(disk.content)
    lacking = len(disk.content) - held
    assert observer.sent_bytes - sent_before <= lacking + MIB, "what it lacked, and what fills the last window"


@pytest.mark.lab
def test_a_loopback_device_takes_an_image_like_a_disk(
    installation: Installation, make_disk_image: Callable[..., DiskImage], tmp_path: Path
) -> None:
    disk = make_disk_image(6)
    backing = tmp_path / "backing"
    backing.write_bytes(b"\xaa" * (len(disk.content) + MIB))
    attached = subprocess.run(["losetup", "--find", "--show", backing], capture_output=True, text=True, check=False)
    if attached.returncode:
        pytest.skip(f"no loop device: {attached.stderr.strip()}")
    device = attached.stdout.strip()
    try:
        installation.fleetcast("image", "import", str(disk.file), "--name", "disk")
        (machine,) = installation.enrol(["one"])
        refused = installation.receive(machine, Path(device), image="disk")
        assert refused.process.wait() == 6
        assert "has neither a partition table nor a file system" in refused.stderr.read_text()
        assert backing.read_bytes() == b"\xaa" * (len(disk.content) + MIB)
        installation.receive(machine, Path(device), image="disk", flags=["--as-is"]).wait()
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)
    assert backing.read_bytes()[: len(disk.content)] == disk.content


def test_buf_curl_lists_images_by_reflection_with_the_administrators_certificate(
    installation: Installation, make_disk_image: Callable[..., DiskImage]
) -> None:
    imported = installation.fleetcast("image", "import", str(make_disk_image(3).file), "--name", "disk")
    administrator = installation.data_directory / "administrator"
    listed = subprocess.run(
        [
            *(BIN / "buf", "curl", "--protocol", "grpc", "--reflect-protocol", "grpc-v1"),
            *("--cacert", administrator / "ca.pem"),
            *("--cert", administrator / "cert.pem", "--key", administrator / "key.pem", "--data", "{}"),
            f"https://{installation.catalog_address}/fleetcast.catalog.v1.CatalogService/ListImages",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert listed.returncode == 0, listed.stderr
    assert [image["name"] for image in json.loads(listed.stdout)["images"]] == [imported["name"]]
